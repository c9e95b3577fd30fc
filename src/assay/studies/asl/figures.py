"""Curves and intervals of the evaluation stages; open it for a colour, a label or a size.

Every estimator has one name, colour and marker in all figures (colours: Okabe and Ito, safe for colour-blind readers).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from assay.figures import page
from assay.studies.asl.amplitude import Curve
from assay.studies.asl.estimators import CONSTANT, LEAST_SQUARES, NETWORK, NOMINAL, NULL, SMOOTHED
from assay.studies.asl.evaluation import ALL, Score, Scores
from assay.studies.asl.heldout import STRATA

GREY = "#666666"
ATT_TOLERANCE = 2.0  # %, the change of ATT that a sound estimator stays below
UNITS = {"cbf": "ml/100 g/min", "att": "ms"}
NAMES = {"cbf": "CBF", "att": "ATT"}
FAMILIES = {"voronoi": "simulated phantoms", "brain": "reference brain"}


class Look(NamedTuple):
    """How an estimator appears."""

    label: str
    colour: str
    marker: str
    line: str = "-"


LOOKS = {
    NETWORK: Look("network", "#0072B2", "o"),
    LEAST_SQUARES: Look("least squares", "#D55E00", "s"),
    SMOOTHED: Look("least squares, smoothed", "#E69F00", "^"),
    LEAST_SQUARES + NOMINAL: Look("least squares, nominal physics", "#D55E00", "s", ":"),
    SMOOTHED + NOMINAL: Look("least squares, smoothed, nominal physics", "#E69F00", "^", ":"),
    NULL: Look("untrained network", "#999999", "D", "--"),
    CONSTANT: Look("training mean", "#000000", "v", "--"),
}


def error_by_snr(path: Path, scores: Scores, levels: Sequence[float]) -> None:
    """Mean absolute error against SNR: a row for each family, CBF and ATT side by side."""
    families = [family for family in FAMILIES if any(row.family == family for row in scores.rows)]
    with page(path, 7.5, 0.6 + 2.9 * len(families), grid=True) as figure:
        axes = figure.subplots(len(families), 2, sharex=True, squeeze=False)
        for row, family in zip(axes, families, strict=True):
            for axis, quantity in zip(row, NAMES, strict=True):
                for estimator in scores.estimators:
                    found = [scores.get((family, snr, ALL), estimator, quantity, "mae") for snr in levels]
                    _curve(axis, LOOKS[estimator], [score for score in found if score])
                _log_axes(axis, levels)
                axis.set_title(f"{NAMES[quantity]}, {FAMILIES[family]}")
                axis.set_ylabel(f"mean absolute error ({UNITS[quantity]})")
        for axis in axes[-1]:
            axis.set_xlabel("SNR")
        _legend(figure, axes[0, 0])


def strata(path: Path, scores: Scores, snr: float) -> None:
    """Error of the network relative to least squares in every kind of voxel, with intervals."""
    rivals = {"mae_ratio": LEAST_SQUARES, "mae_ratio_smoothed": SMOOTHED}
    kinds = [kind for kind in (ALL, *STRATA) if scores.get(("voronoi", snr, kind), NETWORK, "cbf", "mae")]
    with page(path, 7.5, 3.4, grid=True) as figure:
        axes = figure.subplots(1, 2, sharey=True)
        for axis, quantity in zip(axes, NAMES, strict=True):
            for offset, (metric, rival) in zip((-0.13, 0.13), rivals.items(), strict=True):
                found = [scores.get(("voronoi", snr, kind), NETWORK, quantity, metric) for kind in kinds]
                _intervals(axis, offset, rival, [score for score in found if score])
            axis.axvline(1.0, color=GREY, linewidth=1, linestyle="--")
            axis.set_xscale("log")
            low, high = axis.get_xlim()
            axis.set_xlim(min(low, 0.65), max(high, 1.6))
            _plain_ticks(axis.xaxis)
            axis.set_title(f"{NAMES[quantity]}, SNR {snr:g}")
            axis.set_xlabel("error of the network / error of the rival\n(left of 1: the network is better)")
            axis.grid(visible=False, axis="y")
        axes[0].set_yticks(range(len(kinds)), [_kind(scores, snr, kind) for kind in kinds])
        axes[0].invert_yaxis()
        _legend(figure, axes[0])


def calibration(path: Path, scores: Scores, levels: Sequence[float]) -> None:
    """Share of voxels whose 68 % and 95 % interval holds the truth, against SNR."""
    with page(path, 7.5, 3.2, grid=True) as figure:
        axes = figure.subplots(1, 2, sharex=True, sharey=True)
        for axis, quantity in zip(axes, NAMES, strict=True):
            for nominal, (colour, marker) in {68: ("#009E73", "o"), 95: ("#CC79A7", "s")}.items():
                look = Look(f"{nominal} % interval", colour, marker)
                metric = f"coverage_{nominal}"
                found = [scores.get(("voronoi", snr, ALL), NETWORK, quantity, metric) for snr in levels]
                _curve(axis, look, [score for score in found if score])
                axis.axhline(nominal / 100, color=colour, linewidth=1, linestyle="--")
            axis.set_xscale("log")
            _ticks_at(axis.xaxis, levels)
            axis.set_title(NAMES[quantity])
            axis.set_xlabel("SNR")
            axis.set_ylim(0, 1.02)
        axes[0].set_ylabel("share of voxels\n(dashed: nominal)")
        _legend(figure, axes[0])


def response(path: Path, scales: Sequence[float], curves: Mapping[str, Curve]) -> None:
    """Mean CBF, relative to that at scale 1, and change of ATT, against the factor on signal and noise."""
    one = list(scales).index(1)
    nulls = [curve for name, curve in curves.items() if name.startswith(NULL)]
    with page(path, 7.5, 3.6, grid=True) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(scales, scales, color=GREY, linestyle="--", linewidth=1, label="ideal")
        relative = torch.stack([each.cbf.value / each.cbf.value[one] for each in nulls])
        change = torch.stack([each.att_change.value for each in nulls])
        for axis, values in ((left, relative), (right, change)):
            low, high = values.amin(0), values.amax(0)
            axis.fill_between(scales, low, high, color=LOOKS[NULL].colour, alpha=0.3, linewidth=0)
            label = f"{len(nulls)} untrained networks"
            axis.plot(scales, values.quantile(0.5, dim=0), LOOKS[NULL].line, color=LOOKS[NULL].colour, label=label)
        for name in (LEAST_SQUARES, NETWORK):
            look, each = LOOKS[name], curves[name]
            label = f"{look.label}, slope {float(each.slope.value):.3f}"
            kind = {"color": look.colour, "marker": look.marker, "linestyle": look.line}
            left.plot(scales, each.cbf.value / each.cbf.value[one], label=label, **kind)
            right.plot(scales, each.att_change.value, **kind)
        left.set_yscale("log")
        _plain_ticks(left.yaxis)
        left.set_title("CBF")
        left.set_ylabel("mean CBF / mean CBF at factor 1")
        right.set_title("ATT")
        right.set_ylabel("mean absolute change (%)")
        right.axhline(ATT_TOLERANCE, color=GREY, linestyle="--", linewidth=1)
        right.set_ylim(-0.05, max(1.25 * ATT_TOLERANCE, right.get_ylim()[1]))
        for axis in (left, right):
            axis.set_xscale("log")
            _ticks_at(axis.xaxis, scales)
            axis.set_xlabel("factor on signal and noise")
        _legend(figure, left, columns=2)


def _curve(axis: Axes, look: Look, found: list[Score]) -> None:
    """Values against SNR with a band for their intervals."""
    snr = [score.snr for score in found]
    low, high = [score.low for score in found], [score.high for score in found]
    axis.fill_between(snr, low, high, color=look.colour, alpha=0.18, linewidth=0)
    axis.plot(
        snr,
        [score.value for score in found],
        color=look.colour,
        marker=look.marker,
        linestyle=look.line,
        label=look.label,
    )


def _intervals(axis: Axes, offset: float, rival: str, found: list[Score]) -> None:
    """A point with its interval for each stratum, one below the other."""
    look = LOOKS[rival]
    values = [score.value for score in found]
    ends = [[s.value - s.low for s in found], [s.high - s.value for s in found]]
    place = [index + offset for index in range(len(found))]
    label = f"against {look.label}"
    axis.errorbar(values, place, xerr=ends, fmt=look.marker, color=look.colour, label=label, capsize=2.5)


def _kind(scores: Scores, snr: float, kind: str) -> str:
    """A stratum with its share of the voxels."""
    whole, part = (scores.get(("voronoi", snr, k), NETWORK, "cbf", "mae") for k in (ALL, kind))
    if whole is None or part is None or kind == ALL:
        return "all voxels"
    names = {"grey": "grey matter", "white": "white matter", "csf": "CSF"}
    return f"{names.get(kind, kind)} ({100 * part.n_voxels / whole.n_voxels:.0f} %)"


def _log_axes(axis: Axes, levels: Sequence[float]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    _ticks_at(axis.xaxis, levels)
    _plain_ticks(axis.yaxis)


def _ticks_at(axis: Axis, places: Sequence[float]) -> None:
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(list(places), [f"{place:g}" for place in places])


def _plain_ticks(axis: Axis) -> None:
    """0.5, 1, 2, 5 instead of powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _legend(figure: Figure, axis: Axes, columns: int = 3) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns)
