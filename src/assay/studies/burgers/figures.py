"""Figures of the evaluation; open it for a colour, a label or a size.

Every estimator has one name, colour and line in all figures (colours: Okabe and Ito, safe for colour-blind readers).
The equation is without units: x in domain lengths, t in the time of one length at u = 1.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from assay.figures import page
from assay.studies.burgers.calibration import LEVELS
from assay.studies.burgers.curves import TRUTH, Curve, spectrum_frames, times
from assay.studies.burgers.equation import cell_centres
from assay.studies.burgers.estimators import (
    COARSE,
    CONSTANT,
    CORRECTED,
    DISTILLED,
    FNO,
    LINEAR,
    NETWORK,
    NULL,
    PERSISTENCE,
)
from assay.studies.burgers.evaluation import Case, Scores, Task, reachable
from assay.studies.burgers.metrics import nrmse_frames

CLOSE = 0.12  # of the domain, on each side of the shock
OFF_SCALE = 3.0  # times the error of persistence, above which curves leave the figure


class Look(NamedTuple):
    """How an estimator appears."""

    label: str
    colour: str
    line: Any = "-"


LOOKS = {
    TRUTH: Look("truth", "#000000"),
    NETWORK: Look("network", "#0072B2"),
    FNO: Look("FNO", "#D55E00"),
    CORRECTED: Look("corrected", "#009E73"),
    DISTILLED: Look("corrected, distilled", "#009E73", "--"),
    LINEAR: Look("linear map", "#CC79A7", "-."),
    PERSISTENCE: Look("persistence", "#000000", ":"),
    CONSTANT: Look("constant mean", "#888888", ":"),
    NULL: Look("untrained network", "#888888", "--"),
}
COARSE_LINES = ("-", "--", "-.", ":")
BANDS = (NETWORK, FNO, CORRECTED)  # whose intervals are drawn
SPECTRA = (TRUTH, NETWORK, FNO, CORRECTED, DISTILLED)


def looks(names: Sequence[str]) -> dict[str, Look]:
    """How each of these estimators appears; the classical solvers differ in their lines."""
    coarse = [name for name in names if name.startswith(COARSE)]
    lines = {name: COARSE_LINES[place % len(COARSE_LINES)] for place, name in enumerate(coarse)}
    found = {name: Look(f"solver, {name.removeprefix(COARSE)} cells", "#E69F00", line) for name, line in lines.items()}
    return {name: found.get(name) or LOOKS[name] for name in names}


def error_by_time(path: Path, t: Tensor, errors: Mapping[str, Curve], nu: float) -> None:
    """Rollout error against time, with 95 % bands for the trained models."""
    with page(path, 7.5, 4.4, grid=True) as figure:
        axis = figure.subplots()
        for name, look in looks(list(errors)).items():
            curve = errors[name]
            if name in BANDS:
                axis.fill_between(t, curve.low, curve.high, color=look.colour, alpha=0.2, linewidth=0)
            axis.plot(t, curve.value, linestyle=look.line, color=look.colour, label=look.label)
        axis.set_yscale("log")
        top = OFF_SCALE * float(errors[PERSISTENCE].value.max())
        shown = torch.cat([curve.value for curve in errors.values()])
        shown = shown[(shown > 0) & (shown <= top)]  # a curve that leaves the page would stretch it below, too
        axis.set_ylim(0.8 * float(shown.min()), min(top, 1.25 * float(shown.max())))
        axis.set_title(f"Rollout error, viscosity {nu:g}")
        axis.set_xlabel("time t")
        axis.set_ylabel("nRMSE of a frame\n(mean over test trajectories; bands: 95 %)")
        _legend(figure, axis, 4)


def spectrum(path: Path, case: Case, spectra: Mapping[str, Tensor]) -> None:
    """Energy by wave number at some times."""
    frames = spectrum_frames(case)
    with page(path, 2.6 * len(frames) + 0.6, 3.6, grid=True) as figure:
        axes = figure.subplots(1, len(frames), sharex=True, sharey=True, squeeze=False)[0]
        for place, (axis, frame) in enumerate(zip(axes, frames, strict=True)):
            for name in (name for name in SPECTRA if name in spectra):
                energy = spectra[name][place, 1:].cpu()
                look = LOOKS[name]
                axis.plot(range(1, len(energy) + 1), energy, color=look.colour, linestyle=look.line, label=look.label)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_title(f"t = {frame * case.dt:g}")
            axis.set_xlabel("wave number")
        axes[0].set_ylabel("energy (mean over trajectories)")
        _legend(figure, axes[0], 5)


def calibration(path: Path, scores: Scores, nu: float, members: int) -> None:
    """Share of the truth within central intervals of the ensembles, against the intervals' nominal level."""
    tasks: dict[Task, str] = {"sampled_step": "one step", "rollout": "rollout"}
    with page(path, 6.4, 4.2, grid=True) as figure:
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, (task, title) in zip(axes, tasks.items(), strict=True):
            axis.plot((0, 1), (0, 1), color="#888888", linewidth=1, linestyle=":", label="nominal")
            best = reachable(members)
            axis.plot((0, 1), (0, best), color="#000000", linewidth=1, label=f"perfect ensemble of {members}")
            for name in (CORRECTED, DISTILLED):
                shares = [scores.get(nu, task, name, f"coverage_{level * 100:.0f}").value for level in LEVELS]
                look = LOOKS[name]
                axis.plot(LEVELS, shares, marker="o", markersize=4, linestyle=look.line, color=look.colour)
                axis.lines[-1].set_label(look.label)
            axis.set_title(title)
            axis.set_xlabel("level of the interval")
        axes[0].set_ylabel("share of the truth within it")
        _legend(figure, axes[0], 2)


def spacetime(path: Path, case: Case, rollouts: Mapping[str, Tensor], place: int) -> None:
    """One trajectory in space and time: truth, network and FNO above, error against time and their errors below."""
    truth = case.truth[place].cpu()
    shown = {name: rollouts[name][place, 0].cpu() for name in (NETWORK, FNO)}
    errors = {name: fields - truth for name, fields in shown.items()}
    limit = float(truth.abs().max())
    largest = max(min(float(error.abs().max()), limit) for error in errors.values())
    with page(path, 8.5, 5.2, grid=True) as figure:
        axes = figure.subplots(2, 3)
        images = [_image(axes[0, 0], case, truth, "truth", limit)]
        for column, name in enumerate(shown, start=1):
            label = LOOKS[name].label
            images.append(_image(axes[0, column], case, shown[name], label, limit))
            below = _image(axes[1, column], case, errors[name], f"{label} - truth", largest, "PuOr_r")
            _frame_error(axes[1, 0], case, shown[name], truth, LOOKS[name])
        figure.colorbar(images[0], ax=axes[0, 2], label="u")
        figure.colorbar(below, ax=axes[1, 2], label="error of u")
        axes[1, 0].set_title("error")
        axes[1, 0].set_xlabel("time t")
        axes[1, 0].set_ylabel("nRMSE of the frame")
        axes[1, 0].legend()
        figure.suptitle(f"Test trajectory {case.rows[place]}, viscosity {case.nu:g}", x=0.01, ha="left", fontsize=10)


def _image(axis: Axes, case: Case, u: Tensor, title: str, limit: float, colours: str = "RdBu_r") -> Any:
    """Fields (K + 1, cells) with x to the right and time upwards."""
    extent = (0.0, 1.0, 0.0, (len(u) - 1) * case.dt)
    axis.grid(visible=False)
    axis.set_title(title)
    axis.set_xlabel("x")
    axis.set_ylabel("time t")
    options: Any = {"origin": "lower", "aspect": "auto", "interpolation": "nearest"}
    return axis.imshow(u.numpy(), extent=extent, cmap=colours, vmin=-limit, vmax=limit, **options)


def _frame_error(axis: Axes, case: Case, fields: Tensor, truth: Tensor, look: Look) -> None:
    error = nrmse_frames(fields[None, 1:], truth[None, 1:])[0]
    axis.plot(times(case), error, color=look.colour, linestyle=look.line, label=look.label)


def shock(path: Path, case: Case, rollouts: Mapping[str, Tensor], images: int) -> None:
    """The steepest place of the drawn trajectories, with the spread of the corrected members."""
    place, frame, cell = steepest(case, images)
    cells = case.truth.shape[-1]
    half = max(round(CLOSE * cells), 2)
    turn, window = cells // 2 - cell, slice(cells // 2 - half, cells // 2 + half + 1)
    x = (cell_centres(cells) - float(cell_centres(cells)[cells // 2]))[window]
    members = rollouts[CORRECTED][:, place, 0, frame].cpu().roll(turn, -1)[:, window]
    with page(path, 6.0, 4.0, grid=True) as figure:
        axis = figure.subplots()
        drawn = {TRUTH: case.truth[place, frame], NETWORK: rollouts[NETWORK][place, 0, frame]}
        drawn[FNO] = rollouts[FNO][place, 0, frame]
        for name, field in drawn.items():
            look = LOOKS[name]
            width = 2.6 if name == TRUTH else 1.6
            axis.plot(x, field.cpu().roll(turn, -1)[window], color=look.colour, label=look.label, linewidth=width)
        look = LOOKS[CORRECTED]
        low, high = members.amin(0), members.amax(0)
        axis.fill_between(x, low, high, color=look.colour, alpha=0.25, linewidth=0, label="all corrected members")
        axis.plot(x, members.mean(0), color=look.colour, label="corrected, mean")
        axis.set_title(f"Steepest shock: trajectory {case.rows[place]}, t = {frame * case.dt:g}, viscosity {case.nu:g}")
        axis.set_xlabel("x from the shock")
        axis.set_ylabel("u")
        _legend(figure, axis, 3)


def steepest(case: Case, images: int) -> tuple[int, int, int]:
    """Trajectory, frame > 0 and cell of the largest fall of u between neighbours, among the first `images`."""
    u = case.truth[:images, 1:]
    fall = u - u.roll(-1, -1)
    index = int(fall.argmax())
    frames, cells = fall.shape[1:]
    return index // (frames * cells), 1 + index // cells % frames, index % cells


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
