"""One page per subject: maps, histograms and plausibility checks; open it for what is flagged and why.

The limits of the checks are wide: they catch a wrong unit, a wrong M0, label and control exchanged, or a
model far from its training data, not pathology. Grey matter of healthy adults has CBF 40 to 100 ml/100 g/min
(Alsop et al. 2015, doi:10.1002/mrm.25197) and an ATT of about 500 to 2000 ms.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray

from assay.files import write_bytes
from assay.studies.asl.bids import AslSeries

Array = NDArray[np.float32]

CBF_RANGE = (0.0, 200.0)  # ml/100 g/min, where predictions are clamped
ATT_RANGE = (100.0, 5000.0)  # ms
PLAUSIBLE_CBF = (10.0, 120.0)  # of the median over the mask, ml/100 g/min
PLAUSIBLE_ATT = (300.0, 3000.0)  # ms
MOST_AT_LIMIT = 0.05
MOST_NEGATIVE = 0.20  # noise alone makes half of the CSF negative, and CSF is a tenth to a third of a head
LONGEST_SLICE_DELAY = 100.0  # ms; the models assume one PLD for all slices

PANELS = 4
PASS, FAIL, INK, FAINT, PAPER, MASK = "#1b7f4b", "#c2341d", "#1f2933", "#7b8794", "#ffffff", "#f2b134"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the page's table."""

    name: str
    value: str
    expected: str
    passed: bool


def quality_checks(series: AslSeries, cbf: Array, att: Array, alpha_bs: float = 1.0) -> tuple[Check, ...]:
    """Whether maps (X, Y, Z), in ml/100 g/min and ms, are plausible within the mask of the series.

    alpha_bs: what the model took for the efficiency of one background-suppression pulse.
    """
    flow, arrival = cbf[series.mask], att[series.mask]
    limited = _at_limit(flow, CBF_RANGE) | _at_limit(arrival, ATT_RANGE)
    negative = series.difference[series.mask].mean(axis=-1) < 0
    delay = max((max(each.slice_times) for each in series.labellings if each.slice_times), default=0.0)
    return (
        _within("Median CBF", float(np.median(flow)), PLAUSIBLE_CBF, "ml/100 g/min"),
        _within("Median ATT", float(np.median(arrival)), PLAUSIBLE_ATT, "ms"),
        _share("At the limit of CBF or ATT", float(limited.mean()), MOST_AT_LIMIT),
        _share("Negative difference", float(negative.mean()), MOST_NEGATIVE),
        _within("Slice delay after the PLD", delay, (0.0, LONGEST_SLICE_DELAY), "ms"),
        _suppression(series, alpha_bs),
    )


def quality_page(
    series: AslSeries, cbf: Array, att: Array, *, out: Path, model: str, alpha_bs: float = 1.0
) -> tuple[Check, ...]:
    """Write the page of one series as the PNG file `out` and return its checks.

    cbf and att are (X, Y, Z) in ml/100 g/min and ms; `model` names where they come from. The same input gives
    the same bytes with the same version of matplotlib.
    """
    checks = quality_checks(series, cbf, att, alpha_bs)
    figure = Figure(figsize=(13.0, 8.6), dpi=120, facecolor=PAPER)
    FigureCanvasAgg(figure)
    layout = figure.add_gridspec(2, 2, height_ratios=(0.10, 0.90), width_ratios=(0.66, 0.34))
    head, images, facts = (figure.add_subfigure(layout[place]) for place in ((0, slice(None)), (1, 0), (1, 1)))
    _draw_head(head, series, checks, model)
    _draw_images(images, series, cbf, att)
    _draw_facts(facts, series, cbf, att, checks)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(out, buffer.getvalue())
    return checks


def _at_limit(values: Array, limits: tuple[float, float]) -> NDArray[np.bool_]:
    return np.asarray((values <= limits[0]) | (values >= limits[1]))


def _within(name: str, value: float, limits: tuple[float, float], unit: str) -> Check:
    low, high = limits
    expected = f"{low:g} to {high:g} {unit}"
    return Check(name=name, value=f"{value:.0f}", expected=expected, passed=low <= value <= high)


def _suppression(series: AslSeries, alpha_bs: float) -> Check:
    """Each pulse takes a few percent of the label along, which scales CBF: a model of perfect ones does not know it."""
    pulses = [each.background_suppression_pulses for each in series.labellings]
    value = "none" if not any(each != 0 for each in pulses) else ", ".join("?" if n is None else str(n) for n in pulses)
    passed = value == "none" or (alpha_bs < 1 and None not in pulses)
    return Check(name="Suppression pulses", value=value, expected="none, or known with alpha_bs below 1", passed=passed)


def _share(name: str, share: float, most: float) -> Check:
    return Check(name=name, value=f"{share:.1%}", expected=f"at most {most:.0%}", passed=share <= most)


def _draw_head(figure: SubFigure, series: AslSeries, checks: tuple[Check, ...], model: str) -> None:
    flagged = sum(not check.passed for check in checks)
    verdict, colour = (f"{flagged} flagged", FAIL) if flagged else ("plausible", PASS)
    plds = ", ".join(f"{pld:g}" for pld in series.plds)
    sequences = " + ".join(kind.upper() for kind in series.kinds)
    figure.text(0.03, 0.56, f"Perfusion of {series.name}", size=18, weight="bold", color=INK, va="center")
    figure.text(0.03, 0.16, f"{sequences}, PLD {plds} ms, {model}", size=10.5, color=FAINT, va="center")
    box = {"boxstyle": "round,pad=0.5", "facecolor": colour, "edgecolor": "none"}
    figure.text(0.965, 0.5, verdict, size=13, weight="bold", color=PAPER, ha="right", va="center", bbox=box)


def _draw_images(figure: SubFigure, series: AslSeries, cbf: Array, att: Array) -> None:
    cut = _Cut.of(series)
    widths = [*[1.0] * PANELS, 0.07]
    grid = figure.add_gridspec(3, PANELS + 1, width_ratios=widths, left=0.06, right=0.905, top=0.97, bottom=0.05)
    grid.update(wspace=0.04, hspace=0.06)
    rows = (
        ("CBF", "ml/100 g/min", "inferno", np.where(series.mask, cbf, np.nan), _cbf_top(cbf, series)),
        ("ATT", "ms", "viridis", np.where(series.mask, att, np.nan), _att_top(att, series)),
        ("M0", "scanner units", "gray", series.m0, float(np.percentile(series.m0[series.mask], 99)) * 1.1),
    )
    for row, (name, unit, colours, values, top) in enumerate(rows):
        panels = [figure.add_subplot(grid[row, column]) for column in range(PANELS)]
        for axes, image in zip(panels, cut(values), strict=False):
            shown = axes.imshow(image, cmap=colours, vmin=0.0, vmax=top, origin="lower", aspect=cut.aspect)
        panels[0].set_ylabel(name, size=13, weight="bold", color=INK, labelpad=8)
        for axes in panels:
            _bare(axes)
        bar = figure.colorbar(shown, cax=figure.add_subplot(grid[row, PANELS]))
        _plain_bar(bar, unit)
    for axes, outline in zip(panels, cut(series.mask), strict=False):
        if min(outline.shape) > 1 and outline.any() and not outline.all():
            axes.contour(outline, levels=[0.5], colors=MASK, linewidths=1.0)
    note = "Inferior to superior; the subject's left is on the left. The line on M0 is the mask."
    figure.text(0.06, 0.018, note, size=8.5, color=FAINT)


def _draw_facts(figure: SubFigure, series: AslSeries, cbf: Array, att: Array, checks: tuple[Check, ...]) -> None:
    grid = figure.add_gridspec(3, 1, height_ratios=(1.0, 1.0, 1.45), left=0.08, right=0.93, top=0.95, bottom=0.05)
    grid.update(hspace=0.62)
    flow, arrival = cbf[series.mask], att[series.mask]
    _draw_histogram(figure.add_subplot(grid[0]), flow, _cbf_top(cbf, series), ("CBF, ml/100 g/min", "#b8416b"))
    _draw_histogram(figure.add_subplot(grid[1]), arrival, _att_top(att, series), ("ATT, ms", "#2a788e"))
    _draw_table(figure.add_subplot(grid[2]), checks)


def _draw_histogram(axes: Axes, values: Array, top: float, style: tuple[str, str]) -> None:
    low, middle, high = np.percentile(values, (25, 50, 75))
    label, colour = style
    axes.hist(np.clip(values, 0, top), bins=60, range=(0, top), color=colour, alpha=0.85)
    axes.axvspan(low, high, color=colour, alpha=0.12, linewidth=0)
    axes.axvline(middle, color=INK, linewidth=1.4)
    axes.set_title(f"median {middle:.0f}, quartiles {low:.0f} and {high:.0f}", size=9.5, color=INK, loc="left")
    axes.set_xlabel(label, size=9.5, color=INK)
    axes.set_xlim(0, top)
    axes.set_yticks([])
    axes.tick_params(labelsize=8.5, colors=INK)
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)


def _draw_table(axes: Axes, checks: tuple[Check, ...]) -> None:
    axes.set_axis_off()
    axes.set(xlim=(0, 1), ylim=(len(checks), 0))
    for row, check in enumerate(checks):
        colour = PASS if check.passed else FAIL
        axes.plot(0.02, row + 0.5, "o" if check.passed else "X", color=colour, markersize=7, clip_on=False)
        axes.text(0.08, row + 0.28, check.name, size=10, color=INK, va="center")
        axes.text(0.08, row + 0.72, check.expected, size=8.5, color=FAINT, va="center")
        axes.text(1.0, row + 0.5, check.value, size=13, weight="bold", color=colour, ha="right", va="center")
        axes.axhline(row + 1.0, color=FAINT, linewidth=0.4, alpha=0.6)


def _bare(axes: Axes) -> None:
    axes.set_facecolor("black")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _plain_bar(bar: Colorbar, unit: str) -> None:
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8.5, colors=INK, length=0, pad=4)
    bar.set_label(unit, size=9.5, color=INK)


def _cbf_top(cbf: Array, series: AslSeries) -> float:
    return _ceiling(cbf[series.mask], 20.0)


def _att_top(att: Array, series: AslSeries) -> float:
    return _ceiling(att[series.mask], 500.0)


def _ceiling(values: Array, step: float) -> float:
    """The 99th percentile, rounded up to a multiple of `step`: what colour bars and histograms reach."""
    return float(max(np.ceil(np.percentile(values, 99) / step), 1.0) * step)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Cut:
    """Cuts axial images, rows to anterior and columns to the right, out of maps of any orientation."""

    turn: NDArray[np.float64]
    window: tuple[slice, slice]
    planes: tuple[int, ...]
    aspect: float

    @classmethod
    def of(cls, series: AslSeries) -> "_Cut":
        """Planes spread over the middle of the mask, and a window about it."""
        turn = nib.orientations.io_orientation(series.affine)  # type: ignore[no-untyped-call]
        mask = _turned(series.mask, turn)
        x, y, z = (np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
        spread = np.linspace(0, len(z) - 1, PANELS + 2).round().astype(int)[1:-1]
        planes = z[spread] if len(z) > PANELS else z
        sizes = np.sqrt((series.affine[:3, :3] ** 2).sum(axis=0))[np.argsort(turn[:, 0])]
        return cls(
            turn=turn,
            window=(_around(x), _around(y)),
            planes=tuple(planes.tolist()),
            aspect=float(sizes[1] / sizes[0]),
        )

    def __call__(self, values: NDArray[np.generic]) -> list[NDArray[np.generic]]:
        """The images (Y, X) of a map (X, Y, Z), the most inferior first."""
        turned = _turned(values, self.turn)
        return [turned[*self.window, plane].T for plane in self.planes]


def _turned(values: NDArray[np.generic], turn: NDArray[np.float64]) -> NDArray[np.generic]:
    return np.asarray(nib.orientations.apply_orientation(values, turn))  # type: ignore[no-untyped-call]


def _around(indices: NDArray[np.intp]) -> slice:
    """The range of sorted indices, with one voxel of margin."""
    return slice(max(int(indices[0]) - 1, 0), int(indices[-1]) + 2)
