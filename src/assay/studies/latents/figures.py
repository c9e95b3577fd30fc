"""Figures of the evaluation; open it for a colour, a label or a size.

Activity has no unit; a time step is 20 ms. Colours: Okabe and Ito, safe for colour-blind readers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from assay.figures import page
from assay.studies.latents.evaluation import Rollout, principal_variances
from assay.studies.latents.linear import Split

BLUE, GREEN, GREY, RED = "#0072B2", "#009E73", "#888888", "#D55E00"
SHOWN_STEPS = 300  # of a trace
MOST_TRACES = 8


class Look(NamedTuple):
    """How a predictor appears."""

    label: str
    colour: str
    line: str


LOOKS = {
    "network": Look("network", BLUE, "-"),
    "pca_ridge_stimulus": Look("principal components, ridge, stimulus", GREEN, "--"),
    "constant": Look("constant", GREY, ":"),
}


def horizon(path: Path, curves: Mapping[str, Sequence[float]]) -> None:
    """Error by steps ahead; at 0 that of the reconstruction."""
    with page(path, 6.0, 3.8, grid=True) as figure:
        axis = figure.subplots()
        for name, curve in curves.items():
            look = LOOKS[name]
            axis.plot(
                range(len(curve)), curve, look.line, color=look.colour, label=look.label, marker="o", markersize=3
            )
        axis.set_title("Error by steps ahead, test range")
        axis.set_xlabel("steps ahead (20 ms each)")
        axis.set_ylabel("mean squared error")
        axis.set_ylim(bottom=0)
        axis.legend()


def rollouts(path: Path, latent: Rollout, activity: Rollout, test: Split) -> None:
    """Error by step of both kinds of rollout, beside the variance of activity."""
    variance = float(test.activity.double().var(0, correction=0).mean())
    with page(path, 7.5, 3.6, grid=True) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, rolled, title in zip(axes, (latent, activity), ("latent rollout", "activity rollout"), strict=True):
            errors = rolled.errors.double().cpu().clamp(min=1e-6)
            steps = range(1, len(errors) + 1)
            low, high = errors.quantile(0.05, dim=1), errors.quantile(0.95, dim=1)
            axis.fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0, label="5 to 95 % of neurons")
            axis.plot(steps, errors.mean(1), color=BLUE, label="mean over neurons")
            axis.axhline(variance, color=GREY, linestyle=":", label="mean variance")
            axis.set(yscale="log", title=title, xlabel="step (20 ms)")
        axes[0].set_ylabel("squared error, mean over starts")
        _legend(figure, axes[0], 3)


def variance(path: Path, types: Tensor, errors: Tensor, test: Split) -> None:
    """Error of one step against variance, by neuron; colours are cell types."""
    x, y = test.activity.double().var(0, correction=0).cpu(), errors.cpu()
    with page(path, 5.2, 4.4, grid=True) as figure:
        axis = figure.subplots()
        points = axis.scatter(x, y, c=types, cmap="turbo", s=5, linewidths=0)
        ends = [float(x.min()), float(x.max())]
        axis.plot(ends, ends, color=GREY, linestyle=":", label="no better than the mean")
        axis.set(xscale="log", yscale="log", title="One-step error by neuron", xlabel="variance of the neuron")
        axis.set_ylabel("mean squared error")
        axis.legend()
        figure.colorbar(points, ax=axis, label="cell type")


def traces(path: Path, rolled: Rollout, test: Split, neurons: Tensor) -> None:
    """Predicted and true activity of one neuron of some types, in the latent rollout with the median error."""
    place = int(rolled.by_start.argsort()[len(rolled.first) // 2])
    start, shown = rolled.first[place], min(SHOWN_STEPS, rolled.traces.shape[1])
    picked = torch.linspace(0, len(neurons) - 1, min(MOST_TRACES, len(neurons))).long().tolist()
    with page(path, 7.5, 0.9 * len(picked) + 0.8, grid=True) as figure:
        axes = figure.subplots(len(picked), 1, sharex=True, squeeze=False)[:, 0]
        for axis, kind in zip(axes, picked, strict=True):
            truth = test.activity[start + 1 : start + 1 + shown, neurons[kind]].cpu()
            found = rolled.traces[place, :shown, kind].cpu()
            axis.plot(truth, color="#000000", linewidth=0.9, label="recorded")
            axis.plot(found, color=BLUE, linewidth=1.1, label="predicted")
            axis.fill_between(range(shown), truth, found, color=RED, alpha=0.25, linewidth=0)
            axis.set_ylabel(f"type {kind}")
        axes[0].set_title("Latent rollout, one neuron of a type")
        _legend(figure, axes[0], 2)
        axes[-1].set_xlabel("step (20 ms)")


def latents(path: Path, states: Tensor) -> None:
    """Variance along the principal axes of the latent states, and their first two components."""
    values = principal_variances(states).cpu()
    centred = (states - states.mean(0)).cpu()
    _, _, axes_of_states = torch.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes_of_states[:2].T
    with page(path, 7.5, 3.4, grid=True) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(range(1, len(values) + 1), values / values.sum(), color=BLUE, marker="o", markersize=2)
        left.set(yscale="log", title="Latent variance", xlabel="principal axis", ylabel="share of the variance")
        width = plane[:, 1] if plane.shape[1] > 1 else torch.zeros(len(plane))
        right.scatter(plane[:, 0], width, c=range(len(plane)), cmap="viridis", s=2, linewidths=0)
        right.set(title="Latent states by time", xlabel="first component", ylabel="second component")


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
