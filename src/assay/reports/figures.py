"""The figures of a report: quality by arm, loss curves, cost, time and memory; open it for what a figure shows.

A study of many arms is shown by its best and its worst, and every figure says what it leaves out.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes

from assay.reports.canvas import (
    ARM,
    BASELINE,
    FAILED,
    INK,
    SERIES,
    Drawing,
    Page,
    broken,
    is_wide,
    label,
    name_rows,
    plain_ticks,
    style,
)
from assay.reports.curves import Curve, read_curves
from assay.reports.gather import Metric, Report
from assay.reports.summary import ArmSummary, values

ROWS = 24
"""Arms in a figure with one row each."""
CURVES = 6
LABELLED = 12
ROW_HEIGHT = 0.27
WIDTH = 7.0
HOUR = 3600.0
METRIC_WIDTH = 24
"""Characters that fit below one of several metrics side by side."""
LABEL_WIDTH = 0.25
"""Of a panel's width, what the label of a control takes."""
MEMORY = "The largest of the seeds, sampled about once a second; not memory of a GPU. The baseline in orange."
COST = "One point for each arm, mean with 95 % interval over its seeds; the baseline in orange."
BELOW = 0.28
"""Rows that the dots of seeds lie below their interval."""
LABEL: Any = {"textcoords": "offset points", "fontsize": 8}


def draw(report: Report) -> list[Drawing]:
    """Every figure that the records have something for, in the order of a report."""
    makers: list[Callable[[Report], Drawing | None]] = [_by_metric, _losses, _cost, _time, _memory]
    with style():
        return [drawing for maker in makers if (drawing := maker(report)) is not None]


def chosen(report: Report, rows: int) -> tuple[list[ArmSummary], str]:
    """The arms of a figure, best first, with what is left out in words: best, worst, and always the baseline."""
    order = report.best or [arm for arm in report.summaries.values() if arm.wall_s]
    if len(order) <= rows:
        return order, ""
    half = rows // 2
    picked = [*order[:half], *order[-half:]]
    middle = order[half:-half]
    if report.baseline in middle:
        picked.insert(half, report.baseline)
    by = f" by {report.metrics[0].name}" if report.best else " in the study file"
    return picked, f"The best and the worst {half} of {len(order):,} arms{by}, and the baseline; arms.csv has all."


def _by_metric(report: Report) -> Drawing | None:
    arms, note = chosen(report, ROWS)
    metrics = [each for each in report.metrics if any(each.name in arm.metrics for arm in arms)][:3]
    if not metrics or not arms:
        return None
    page = Page("metric-by-arm", WIDTH, 1.1 + ROW_HEIGHT * len(arms), columns=len(metrics))
    for axis, metric in zip(page.axes, metrics, strict=True):
        _metric_panel(axis, report, arms, metric)
        name_rows(axis, [arm.arm for arm in arms] if axis is page.axes[0] else [""] * len(arms))
    text = f"Dots: seeds; bars: mean and 95 % interval; dashed: the baseline {report.config.baseline}"
    failed = any(arm.ended_short for arm in arms)
    text += "; crosses at the edge: seeds that ended short of complete." if failed else "."
    return page.finish("Quality by arm", f"{text} {metrics[0].name}: {metrics[0].better}.", note)


def _metric_panel(axis: Axes, report: Report, arms: Sequence[ArmSummary], metric: Metric) -> None:
    shown: list[float] = []
    for row, arm in enumerate(arms):
        found = arm.metrics.get(metric.name)
        numbers = list(values(arm.cells, metric.name).values())
        shown += numbers
        colour = BASELINE if arm.arm == report.config.baseline else ARM
        axis.plot(numbers, [row + BELOW] * len(numbers), "o", color=colour, alpha=0.5, markersize=3, linestyle="none")
        if found and found.low is not None and found.high is not None:
            axis.plot([found.low, found.high], [row, row], color=colour, linewidth=2)
        if found:
            axis.plot([found.mean], [row], "|", color=colour, markersize=10, markeredgewidth=2)
        if arm.ended_short:
            axis.plot([1.0], [row], "x", color=FAILED, transform=axis.get_yaxis_transform(), clip_on=False)
    reference = report.baseline.metrics.get(metric.name)
    if reference:
        axis.axvline(reference.mean, color=BASELINE, linewidth=1, linestyle="--")
    if is_wide(shown):
        axis.set_xscale("log")
        plain_ticks(axis.xaxis, min(shown), max(shown))
    else:
        axis.locator_params(axis="x", nbins=3)
    _control_lines(axis, report, metric, shown)
    axis.set_xlabel(broken(metric.label, METRIC_WIDTH))


def _control_lines(axis: Axes, report: Report, metric: Metric, shown: Sequence[float]) -> None:
    """Controls that lie near the numbers: one far away would press them into a corner."""
    if not shown:
        return
    span = max(shown) - min(shown) or abs(max(shown))
    found = {name: report.baseline.metrics.get(source) for name, source in metric.controls.items()}
    means = {name: each.mean for name, each in found.items() if each}
    near = {name: mean for name, mean in means.items() if min(shown) - span <= mean <= max(shown) + span}
    for value in near.values():
        axis.axvline(value, color=INK, linewidth=1, linestyle=":")
    to_axes = axis.transData + axis.transAxes.inverted()
    for places in labels_apart({name: float(to_axes.transform((value, 0.0))[0]) for name, value in near.items()}):
        middle = sum(places.values()) / len(places)
        axis.text(middle, 1.0, "\n".join(places), transform=axis.transAxes, fontsize=7, ha="center", va="bottom")


def labels_apart(places: Mapping[str, float]) -> list[dict[str, float]]:
    """Labels by their place along an axis of length 1; those that would lie upon one another are together."""
    groups: list[dict[str, float]] = []
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        if groups and place - max(groups[-1].values()) < LABEL_WIDTH:
            groups[-1][name] = place
        else:
            groups.append({name: place})
    return groups


def _losses(report: Report) -> Drawing | None:
    arms, _ = chosen(report, CURVES)
    curves = read_curves(arms)
    stages = list(dict.fromkeys(stage for by_stage in curves.values() for stage in by_stage))[:4]
    if not stages:
        return None
    page = Page(
        "loss", WIDTH, 3.0 if len(stages) < 3 else 5.2, rows=(len(stages) + 1) // 2, columns=min(2, len(stages))
    )
    for axis, stage in zip(page.axes, stages, strict=False):
        for index, (arm, by_stage) in enumerate(curves.items()):
            _curve_lines(axis, arm, by_stage.get(stage, []), SERIES[index % len(SERIES)])
        _scale_losses(axis, [curve for by_stage in curves.values() for curve in by_stage.get(stage, [])])
        axis.set_title(label(stage))
        axis.set_xlabel("step")
        axis.set_ylabel("training loss")
    for axis in page.axes[len(stages) :]:
        axis.set_visible(False)
    _share_legend(page, page.axes[0])
    of = len(report.summaries)
    note = f"{len(curves)} of {of:,} arms: the best, the worst and the baseline." if len(curves) < of else ""
    return page.finish("Loss", "Training loss as logged, one line for each seed.", note)


def _curve_lines(axis: Axes, arm: str, lines: Sequence[Curve], colour: str) -> None:
    for index, curve in enumerate(lines):
        name = label(arm) if index == 0 else f"_{index}"
        axis.plot(curve.steps, curve.losses, color=colour, alpha=0.75, linewidth=1.1, label=name)


def _scale_losses(axis: Axes, curves: Sequence[Curve]) -> None:
    losses = [loss for curve in curves for loss in curve.losses]
    if losses and min(losses) > 0:
        axis.set_yscale("log")
        plain_ticks(axis.yaxis, min(losses), max(losses))


def _cost(report: Report) -> Drawing | None:
    arms = [arm for arm in report.best if arm.run_s]
    if len(arms) < 2:
        return None
    metric = report.metrics[0]
    gpu = all(arm.gpu_run_s for arm in arms)
    hours = [((arm.gpu_run_s if gpu else arm.run_s) or 0.0) / HOUR for arm in arms]
    page = Page("cost", WIDTH, 3.6)
    axis = page.axes[0]
    for index, (arm, cost) in enumerate(zip(arms, hours, strict=True)):
        found = arm.metrics[metric.name]
        colour = BASELINE if arm.arm == report.config.baseline else ARM
        low = found.mean if found.low is None else found.low  # the interval is symmetric
        ends = [found.mean - low]
        order = 3 if colour == BASELINE else 2
        axis.errorbar([cost], [found.mean], yerr=ends, fmt="o", color=colour, elinewidth=1, alpha=0.8, zorder=order)
        if len(arms) <= LABELLED:
            axis.annotate(label(arm.arm), (cost, found.mean), (5, -9 if index % 2 else 3), **LABEL)
    axis.set_xlabel(f"{'GPU hours' if gpu else 'hours'} per complete run")
    axis.set_ylabel(label(metric.label))
    if is_wide(hours):
        axis.set_xscale("log")
        plain_ticks(axis.xaxis, min(hours), max(hours))
    note = "" if len(arms) <= LABELLED else f"{len(arms):,} arms, without their names; arms.csv has them."
    return page.finish("Cost against quality", f"{COST} {metric.better.capitalize()}.", note)


def _time(report: Report) -> Drawing | None:
    arms, note = chosen(report, ROWS)
    arms = [arm for arm in arms if arm.seconds]
    stages = list(dict.fromkeys(stage for arm in arms for stage in arm.seconds))
    if not stages:
        return None
    page = Page("time", WIDTH, 1.3 + ROW_HEIGHT * len(arms))
    axis = page.axes[0]
    total = fmean(sum(arm.seconds.values()) for arm in arms)
    unit, scale = ("hours", HOUR) if total > HOUR else ("minutes", 60.0) if total > 120 else ("seconds", 1.0)
    begin = [0.0] * len(arms)
    for index, stage in enumerate(stages):
        lengths = [arm.seconds.get(stage, 0.0) / scale for arm in arms]
        axis.barh(range(len(arms)), lengths, left=begin, color=SERIES[index % len(SERIES)], label=label(stage))
        begin = [start + length for start, length in zip(begin, lengths, strict=True)]
    name_rows(axis, [arm.arm for arm in arms])
    axis.set_xlabel(f"{unit} per run")
    _share_legend(page, axis)
    return page.finish("Time per stage", "Wall time of each stage that ended well, mean over the seeds.", note)


def _memory(report: Report) -> Drawing | None:
    arms, note = chosen(report, ROWS)
    arms = [arm for arm in arms if arm.rss_peak]
    if not arms:
        return None
    page = Page("memory", WIDTH, 0.9 + ROW_HEIGHT * len(arms))
    axis = page.axes[0]
    sizes = [arm.rss_peak / 2**30 for arm in arms]
    axis.barh(range(len(arms)), sizes, color=[BASELINE if a.arm == report.config.baseline else ARM for a in arms])
    name_rows(axis, [arm.arm for arm in arms])
    axis.set_xlabel("peak memory of the processes, GB")
    return page.finish("Memory", MEMORY, note)


def _share_legend(page: Page, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        page.figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), fontsize=8)
