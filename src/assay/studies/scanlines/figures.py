"""Figures of the evaluation and of a watched scan; open it for a colour, a label or a size.

Colours are those of Okabe and Ito, safe for colour-blind readers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from assay.figures import page
from assay.studies.scanlines.metrics import Scores
from assay.studies.scanlines.model.lines import normalise

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
CONTROLS = {"untrained": "--", "constant": ":", "template": "-."}


def confusion(path: Path, names: Sequence[str], scores: Scores) -> None:
    """Confusion matrix: shares of each true class, with counts."""
    with page(path, 5.6, 4.6) as figure:
        axis = figure.subplots()
        table = scores.confusion.float()
        shares = table / table.sum(1, keepdim=True).clamp_min(1)
        axis.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        for row, column in torch.ones_like(table).nonzero().tolist():
            dark = float(shares[row, column]) > 0.5
            text = f"{shares[row, column]:.2f}\n{int(table[row, column])}"
            axis.text(column, row, text, ha="center", va="center", color="white" if dark else "black")
        short = [name.replace("/", "/\n") for name in names]
        axis.set_xticks(range(len(names)), short)
        axis.set_yticks(range(len(names)), short)
        axis.set_xlabel("label of the network")
        axis.set_ylabel("truth")
        axis.set_title(f"Balanced accuracy {scores.balanced_accuracy:.3f}")


def by_lines(path: Path, curve: Mapping[int, tuple[float, float]], controls: Mapping[str, Scores]) -> None:
    """Balanced accuracy and area under the curve against lines seen, with the controls' at the full image."""
    with page(path, 6.5, 4.0) as figure:
        axis = figure.subplots()
        lines = list(curve)
        for place, name in enumerate(("balanced accuracy", "AUROC")):
            values = [values[place] for values in curve.values()]
            axis.plot(lines, values, marker="o", markersize=3, color=COLOURS[place % len(COLOURS)], label=name)
        for name, style in CONTROLS.items():
            if name in controls:
                label = f"{name}, balanced accuracy"
                axis.axhline(controls[name].balanced_accuracy, color="#888888", linestyle=style, label=label)
        axis.set_ylim(0, 1)
        axis.set_xlabel("lines seen")
        axis.set_title("How soon can one tell?")
        _legend(figure, axis, 3)


def calibration(path: Path, probabilities: Tensor, labels: Tensor, bins: int) -> None:
    """Share of right labels against the network's confidence, in those of `bins` of equal width that have images."""
    confidence, predicted = probabilities.max(1)
    place = (confidence * bins).long().clamp_max(bins - 1)
    number = torch.bincount(place, minlength=bins).float()
    right = torch.bincount(place, weights=(predicted == labels).float(), minlength=bins)
    mean = torch.bincount(place, weights=confidence, minlength=bins)
    used = number > 0
    with page(path, 4.4, 4.2) as figure:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color="#888888", linestyle=":", label="calibrated")
        shares = (right / number)[used], (mean / number)[used]
        axis.plot(shares[1], shares[0], marker="o", color=COLOURS[0], label="network")
        axis.set_xlabel("confidence")
        axis.set_ylabel("share of right labels")
        axis.set_title("Calibration")
        axis.legend()


def examples(path: Path, names: Sequence[str], images: Tensor, labels: Tensor, probabilities: Tensor) -> None:
    """The surest right and the surest wrong image of every class."""
    confidence, predicted = probabilities.max(1)
    with page(path, 1.9 * len(names), 4.2) as figure:
        grid = figure.subplots(2, len(names), squeeze=False)
        for label, name in enumerate(names):
            for row, right in enumerate((True, False)):
                chosen = (labels == label) & ((predicted == labels) == right)
                axis = grid[row, label]
                axis.axis("off")
                if chosen.any():
                    place = int(torch.where(chosen, confidence, -1.0).argmax())
                    _image(axis, images[place])
                    said = name if right else f"as {names[int(predicted[place])]}"
                    axis.set_title(f"{said}, {confidence[place]:.2f}", fontsize=6, fontweight="normal")


def watched(path: Path, names: Sequence[str], image: Tensor, lines: Tensor, probabilities: Tensor, switch: int) -> None:
    """A scan (N, P) with its tip change at line `switch`, beside class probabilities (R, K) after `lines` (R,)."""
    with page(path, 8.0, 3.6) as figure:
        left, right = figure.subplots(1, 2, width_ratios=(1, 1.3))
        _image(left, image)
        left.set_ylabel("line")
        left.set_title("The scan")
        for place, name in enumerate(names):
            right.plot(probabilities[:, place], lines, color=COLOURS[place % len(COLOURS)], label=name)
        for axis in (left, right):
            axis.axhline(switch, color="black", linestyle=":", linewidth=1)
        right.set_ylim(len(image), 1)
        right.set_xlabel("probability after this line")
        right.set_title("While scanning; dotted: the tip changes")
        _legend(figure, right, 4)


def _image(axis: Axes, image: Tensor) -> None:
    axis.imshow(normalise(image[None], "line")[0].numpy(), cmap="gray", vmin=-2, vmax=2)
    axis.set_xticks([])


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
