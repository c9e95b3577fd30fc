"""Figures of the evaluation; open it for a colour, a label or a size.

Membranes are dark, what they enclose is light, of one hue for each organelle (Okabe and Ito's, safe for colour-blind
readers, where they reach).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch
from numpy.typing import NDArray
from torch import Tensor

from assay.figures import page
from assay.studies.organelles.classes import CLASSES, OTHER, OUTSIDE

COLOURS = {
    "ecs": "#F0E442",
    "pm": "#000000",
    "mito_mem": "#0072B2",
    "mito_lum": "#8CC6EC",
    "mito_ribo": "#4B0082",
    "golgi_mem": "#9C4F8B",
    "golgi_lum": "#E3B7D3",
    "ves_mem": "#A01818",
    "ves_lum": "#F29A9A",
    "endo_mem": "#B35A00",
    "endo_lum": "#F6C48A",
    "er_mem": "#00664A",
    "er_lum": "#7FD1B2",
    "nuc": "#B9A77F",
}
UNKNOWN = "#FFFFFF"
CONTROLS = {"untrained": "--", "everything": ":", "intensity": "-."}


class Example(NamedTuple):
    """A slice: image (Y, X) uint8, labels of truth and prediction (Y, X), classes not annotated there."""

    name: str
    image: Tensor
    truth: Tensor
    predicted: Tensor
    missing: Sequence[str]


def examples(path: Path, every: Sequence[Example]) -> None:
    """Input, truth and prediction; hatched where the truth is not known, as classes named below are not annotated."""
    with page(path, 8.2, 2.75 * max(1, len(every)) + 0.9) as figure:
        grid = figure.subplots(max(1, len(every)), 3, squeeze=False)
        for row, example in zip(grid, every, strict=False):
            row[0].imshow(example.image.numpy(), cmap="gray", vmin=0, vmax=255)
            row[0].set_ylabel(example.name)
            row[1].imshow(coloured(example.truth))
            row[2].imshow(coloured(example.predicted))
            _hatch(row[1], unknown(example))
            if example.missing:
                row[1].set_xlabel(_wrapped("not annotated: " + ", ".join(example.missing)), fontsize=6)
            for axis in row:
                axis.set_xticks([])
                axis.set_yticks([])
        for axis, title in zip(grid[0], ("Input", "Truth", "Prediction"), strict=True):
            axis.set_title(title)
        handles = [Patch(facecolor=colour, edgecolor="#888888", label=name) for name, colour in COLOURS.items()]
        handles.append(Patch(facecolor=UNKNOWN, edgecolor="#555555", hatch="////", label="not known"))
        figure.legend(handles=handles, loc="outside lower center", ncols=8, fontsize=7)


def unknown(example: Example) -> Tensor:
    """Where the truth is not known (Y, X): outside, or no annotated class where others may be."""
    nothing = example.truth == OUTSIDE
    return nothing | (example.truth == OTHER) if example.missing else nothing


def coloured(labels: Tensor) -> NDArray[np.float64]:
    """Labels (Y, X) as colours (Y, X, 3): other light grey, unknown white."""
    table: NDArray[np.float64] = np.ones((256, 3))
    for number, colour in enumerate(("#E8E8E8", *COLOURS.values())):
        table[number] = to_rgb(colour)
    return np.take(table, labels.long().numpy(), 0)


def by_class(path: Path, scores: Mapping[str, Tensor], frequencies: Tensor) -> None:
    """Dice of every class, the network's and the controls', beside the share of voxels."""
    with page(path, 8.2, 4.2) as figure:
        axis = figure.subplots()
        places = np.arange(len(CLASSES))
        network = scores["network"].nan_to_num().numpy()
        axis.bar(places, network, color=[COLOURS[name] for name in CLASSES], edgecolor="#555555", linewidth=0.5)
        for name, marker in zip(CONTROLS, ("o", "^", "x"), strict=True):
            if name in scores:
                axis.plot(places, scores[name].numpy(), marker, color="#333333", markersize=6, label=name)
        shares = [f"{name}\n{share * 100:.2g} %" for name, share in zip(CLASSES, frequencies.tolist(), strict=True)]
        axis.set_xticks(places, shares, rotation=60, fontsize=7)
        axis.set_ylim(0, 1)
        axis.set_ylabel("Dice")
        axis.set_title("The network (bars) and its controls, by class and its share of annotated training voxels")
        axis.legend(ncols=len(CONTROLS))


def confusion(path: Path, table: Tensor) -> None:
    """Shares of each true class, where all classes are annotated."""
    names = ["other", *CLASSES]
    shares = table.double() / table.sum(1, keepdim=True).clamp_min(1)
    with page(path, 6.8, 6.0) as figure:
        axis = figure.subplots()
        drawn = axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        axis.set_xticks(range(len(names)), names, rotation=60, fontsize=7)
        axis.set_yticks(range(len(names)), names, fontsize=7)
        for row, column in (shares >= 0.1).nonzero().tolist():
            dark = float(shares[row, column]) > 0.5
            text = f"{shares[row, column]:.1f}"
            axis.text(column, row, text, ha="center", va="center", fontsize=6, color="white" if dark else "black")
        axis.set_xlabel("label of the network")
        axis.set_ylabel("truth")
        axis.set_title("Confusion, shares of the true class")
        figure.colorbar(drawn, shrink=0.7)


class Cost(NamedTuple):
    """What a network gave and took: mean Dice, parameters, GFLOP per patch, resident GiB, seconds of training."""

    name: str
    dice: float
    parameters: float
    gflop: float
    gib: float
    seconds: float


def trade_offs(path: Path, every: Sequence[Cost]) -> None:
    """Dice against parameters, operations, memory and time, each on a logarithmic axis.

    A colour is a network, of slices (round) and of volumes (square); all seeds of an arm look alike.
    """
    kinds = list(dict.fromkeys(_kind(cost) for cost in every))
    labels = {
        "parameters": "trained parameters",
        "gflop": "GFLOP per patch, forward",
        "gib": "GiB resident at most",
        "seconds": "seconds of training",
    }
    with page(path, 9.0, 3.2) as figure:
        for axis, (key, label) in zip(figure.subplots(1, 4, sharey=True), labels.items(), strict=True):
            for cost in every:
                marker = "s" if cost.name.endswith("_3d") else "o"
                colour = matplotlib.colormaps["tab10"](kinds.index(_kind(cost)) % 10)
                axis.plot(getattr(cost, key), cost.dice, marker, color=colour, label=cost.name, markersize=6)
            axis.set_xscale("log")
            axis.set_xlabel(label)
        figure.axes[0].set_ylabel("mean Dice")
        handles, names = figure.axes[0].get_legend_handles_labels()
        one_each = dict(zip(names, handles, strict=True))
        figure.legend(one_each.values(), one_each.keys(), loc="outside lower center", ncols=8, fontsize=7)


def _kind(cost: Cost) -> str:
    return cost.name.removesuffix("_2d").removesuffix("_3d")


def _hatch(axis: Axes, where: Tensor) -> None:
    if bool(where.any()):
        mask = where.float().numpy()
        axis.contourf(mask, levels=[0.5, 1.5], colors="none", hatches=["////"])


def _wrapped(text: str, width: int = 52) -> str:
    lines = [""]
    for word in text.split(" "):
        lines = [*lines, word] if len(lines[-1]) + len(word) > width else [*lines[:-1], f"{lines[-1]} {word}".strip()]
    return "\n".join(lines)


def labels_of(logits: Tensor) -> Tensor:
    """Labels (*spatial) of logits (C, *spatial) that decide: the class of the highest one, other if none is above 0."""
    best, place = logits.max(0)
    return torch.where(best > 0, place + 1, 0).to(torch.uint8)
