"""Maps of single phantoms, truth beside estimates; open it to change what such a page shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from assay.figures import page
from assay.studies.asl.estimators import LEAST_SQUARES, NETWORK, SMOOTHED
from assay.studies.asl.figures import GREY, LOOKS, NAMES, UNITS
from assay.studies.asl.heldout import HeldOut
from assay.studies.asl.trained import Maps

SHOWN = (NETWORK, LEAST_SQUARES, SMOOTHED)
ERROR_QUANTILE = 0.98  # of |error| of least squares: where the colours of the error maps end


class Column(NamedTuple):
    """One kind of map: the colours, their limits and what they mean."""

    title: str
    colours: str
    scale: Normalize


def draw(out: Path, phantoms: HeldOut, maps: Mapping[str, Maps], count: int, snr: float) -> None:
    """Write `maps_<k>.png` of the first `count` phantoms: rows truth and estimates, columns CBF, ATT and errors."""
    for k in range(min(count, len(phantoms.number))):
        _page(out / f"maps_{k}.png", phantoms, maps, k, snr)


def _page(path: Path, phantoms: HeldOut, maps: Mapping[str, Maps], k: int, snr: float) -> None:
    with page(path, 7.6, 8.2, grid=True) as figure:
        axes = figure.subplots(1 + len(SHOWN), 4)
        for place, quantity in enumerate(NAMES):
            mask = phantoms.mask[k]
            truth = getattr(phantoms.clean, quantity)[k]
            estimates = {name: getattr(maps[name], quantity)[k].float() for name in SHOWN}
            columns = _columns(quantity, truth, estimates[LEAST_SQUARES], mask)
            pair = axes[:, 2 * place : 2 * place + 2]
            _show(pair[0, 0], truth, columns[0])
            pair[0, 1].set_axis_off()
            for row, name in enumerate(SHOWN, start=1):
                error = torch.where(mask, estimates[name] - truth, torch.nan)
                _show(pair[row, 0], estimates[name], columns[0])
                _show(pair[row, 1], error, columns[1])
                mae = float(error.abs().nanmean())
                pair[row, 1].set_title(f"MAE {mae:.3g}", fontsize=8, fontweight="normal", loc="center")
            for column in range(2):
                _colour_bar(figure, pair[:, column], columns[column], UNITS[quantity])
        for row, label in enumerate(("truth", *(LOOKS[name].label for name in SHOWN))):
            axes[row, 0].set_ylabel(label.replace(", ", ",\n"), fontweight="bold")
        figure.suptitle(f"Held-out phantom {int(phantoms.number[k])}, SNR {snr:g}", x=0.01, ha="left", fontsize=11)


def _columns(quantity: str, truth: Tensor, rival: Tensor, mask: Tensor) -> tuple[Column, Column]:
    error = float((rival - truth)[mask].abs().quantile(ERROR_QUANTILE))
    name = NAMES[quantity]
    return (
        Column(name, {"cbf": "inferno", "att": "viridis"}[quantity], Normalize(0.0, float(truth.max()))),
        Column(f"{name}: estimate - truth", "RdBu_r", Normalize(-error, error)),
    )


def _show(axis: Axes, image: Tensor, column: Column) -> None:
    axis.imshow(image.numpy(), cmap=column.colours, norm=column.scale, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.grid(visible=False)
    axis.set_facecolor("#d9d9d9")
    for spine in axis.spines.values():
        spine.set_visible(False)


def _colour_bar(figure: Figure, axes: "list[Axes]", column: Column, unit: str) -> None:
    source = ScalarMappable(column.scale, column.colours)
    bar = figure.colorbar(source, ax=list(axes), location="bottom", pad=0.02, aspect=14, extend="both")
    bar.set_label(f"{column.title}\n({unit})")
    bar.outline.set_edgecolor(GREY)
    bar.ax.tick_params(labelsize=8)
