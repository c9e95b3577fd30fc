"""report.md: status, verdicts, results, what went wrong, what to do next, cost; open it to change a section.

Text from logs and configs is escaped (markup.py): it may hold anything.
"""

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import indent

from assay.matrix.cells import COMPLETE, CellResult
from assay.matrix.verdicts.replicates import replicates
from assay.reports import words
from assay.reports.canvas import Drawing
from assay.reports.details import RunDetails
from assay.reports.effects import effect_text, reason_text
from assay.reports.gather import Metric, Report
from assay.reports.markup import cell, changes_text, link, quoted, table
from assay.reports.summary import WAITING, ArmSummary, Estimate, ranked, replicate_spread

DETAILED = 40
"""Runs that are told at length; the others are in runs.csv and report.html."""
NAMED = 8
"""Runs named below an action."""
PRIORITIES = {
    "High": "failed by a fault that comes again: something must be changed first",
    "Medium": "cut off or lost: the same command goes on from what is there",
    "Low": "not begun",
}


def write_report(report: Report, drawings: Sequence[Drawing], path: Path) -> str:
    """The whole text; links are relative to `path`."""
    parts = [
        _head(report),
        _status(report, path),
        _verdicts(report, path),
        *(_results(report, metric, path) for metric in report.metrics),
        _figures(drawings),
        _troubles(report, path),
        _actions(report),
        _cost(report),
        _how(),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(report: Report) -> str:
    config = report.config
    seeds = ", ".join(map(str, config.seeds))
    complete = sum(each.state == COMPLETE for each in report.cells)
    commits = sorted({each.commit[:12] for each in report.cells if each.commit})
    lines = [
        f"# {cell(config.name)}: study report",
        f"Written {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(report.written))} by `assay report`.",
        "## Overview",
        cell(config.question),
        f"{words.plural(len(report.summaries), 'arm')} x {words.plural(len(config.seeds), 'seed')} ({seeds}), "
        f"baseline {cell(config.baseline)}. **{complete} of {len(report.cells):,} runs are complete.**"
        + (f" Only arms that match {cell(report.only)} are shown." if report.only else ""),
    ]
    if commits:
        lines.append(f"Commit{'s' if len(commits) > 1 else ''}: {', '.join(f'`{commit}`' for commit in commits)}.")
    if report.warnings:
        lines.append("\n".join(f"- **Warning**: {cell(warning)}" for warning in report.warnings))
    return "\n\n".join(lines)


def _status(report: Report, path: Path) -> str:
    seeds = report.config.seeds
    rows = []
    for arm in report.summaries.values():
        states = [_state(each, path) for each in arm.cells]
        causes = dict.fromkeys(cell(each.cause) for each in arm.cells if each.cause)
        name = link(cell(arm.arm), report.runs / arm.arm, path) if arm.is_begun else cell(arm.arm)
        rows.append([name, *states, ", ".join(causes) or "-"])
    head = ["arm", *(f"seed {seed}" for seed in seeds), "cause"]
    return f"## Status\n\n{table(head, rows)}"


def _state(run: CellResult, path: Path) -> str:
    if run.state in WAITING:
        return run.state
    return link(run.state if run.state == COMPLETE else f"**{run.state.upper()}**", run.folder, path)


def _verdicts(report: Report, path: Path) -> str:
    if not report.verdicts:
        return ""
    rows = []
    for name, verdict in report.verdicts.items():
        arms = [verdict.hypothesis.arm, verdict.hypothesis.versus]
        begun = [arm for arm in arms if isinstance(arm, str) and (report.runs / arm).is_dir()]
        runs = " ".join(link(cell(arm), report.runs / arm, path) for arm in begun) or "none yet"
        effect = cell(effect_text(verdict))
        rows.append([cell(name), cell(verdict.hypothesis.claim), f"**{verdict.verdict}**", effect, runs])
    reasons = "\n".join(f"- **{cell(name)}**: {cell(reason_text(report, name))}" for name in report.verdicts)
    lines = [report.registration, table(["", "claim", "verdict", "effect", "runs"], rows), reasons]
    return "\n\n".join(["## Verdicts", *(line for line in lines if line)])


def _results(report: Report, metric: Metric, path: Path) -> str:
    order = ranked(report.summaries.values(), metric.name, metric.direction)
    if not order:
        return f"## Results: {cell(metric.label)}\n\nNo run has this metric yet."
    rows = [_result_row(report, arm, metric, path) for arm in order]
    none = [cell(arm.arm) for arm in report.summaries.values() if metric.name not in arm.metrics]
    head = ["arm", "mean [95 % interval]", "seeds", "against the baseline, paired", *metric.controls]
    best = order[0]
    lines = [
        f"## Results: {cell(metric.label)}",
        f"{metric.better.capitalize()}. Best mean: {cell(best.arm)}, "
        f"{link(words.interval(best.metrics[metric.name]), report.runs / best.arm, path)}. {_spread(report, metric)}",
        table(head, rows),
    ]
    if none:
        lines.append(f"Without this metric: {', '.join(none[:DETAILED])}{' ...' if len(none) > DETAILED else ''}.")
    return "\n\n".join(lines)


def _spread(report: Report, metric: Metric) -> str:
    spread = replicate_spread(report.summaries.values(), metric.name)
    if spread is None:
        return "No arm has two seeds: the spread between replicates is not known."
    return f"Spread between replicates (median standard deviation over seeds): {words.number(spread)}."


def _result_row(report: Report, arm: ArmSummary, metric: Metric, path: Path) -> list[str]:
    found = arm.metrics[metric.name]
    folder = report.runs / arm.arm
    controls = [_linked(arm.metrics.get(source), folder, path) for source in metric.controls.values()]
    name = f"**{cell(arm.arm)}** (baseline)" if arm.arm == report.config.baseline else cell(arm.arm)
    return [name, _linked(found, folder, path), _seeds(arm, metric.name), gap_text(report, arm, metric), *controls]


def _seeds(arm: ArmSummary, metric: str) -> str:
    """How many seeds have the metric; and how many failed, by the rule of the verdicts."""
    found, failures = arm.metrics[metric], replicates(arm.cells, arm.arm, metric).failures
    if failures is None or not failures.failed:
        return words.count(found)
    rate = f"{failures.failed} of {failures.n} failed [{100 * failures.low:.0f}, {100 * failures.high:.0f}] %"
    return f"{words.count(found)}; {rate}"


def _linked(found: Estimate | None, folder: Path, path: Path) -> str:
    return link(words.interval(found), folder, path) if found else "-"


def gap_text(report: Report, arm: ArmSummary, metric: Metric) -> str:
    """The paired difference from the baseline in words, with its seeds where they are fewer than the arm's."""
    gap, reference = arm.differences.get(metric.name), report.baseline.metrics.get(metric.name)
    if gap is None or reference is None:
        return "-"
    text = words.change(gap, reference.mean)
    return text if gap.n == arm.metrics[metric.name].n else f"{text} (seeds {', '.join(map(str, gap.seeds))})"


def _figures(drawings: Sequence[Drawing]) -> str:
    if not drawings:
        return ""
    parts = [f"### {each.title}\n\n![{each.text}](figures/{each.name}.png)\n\n{each.text} {each.note}".rstrip()
             for each in drawings]  # fmt: skip
    return "\n\n".join(["## Figures", *parts])


def _troubles(report: Report, path: Path) -> str:
    found = [each for each in report.details.values() if each.cell.state not in {COMPLETE, *WAITING}]
    if not found:
        return ""
    lines = ["## Failed, partial and lost runs"]
    if len(found) > DETAILED:
        lines.append(f"The first {DETAILED} of {len(found):,}; runs.csv and report.html have all.")
    return "\n\n".join([*lines, *(_trouble(each, report, path) for each in found[:DETAILED])])


def _trouble(each: RunDetails, report: Report, path: Path) -> str:
    run = each.cell
    title = f"### {cell(run.arm)}, seed {run.seed}: {run.state.upper()}"
    lines = [f"{title} ({cell(run.cause)})" if run.cause else title, cell(report.arms[run.arm].reason)]
    lines.append(f"Differs from the baseline in: {changes_text(planned_or_recorded(each, report))}.")
    where = f" on {cell(run.node)}" if run.node else ""
    reached = f", reached {cell(each.reached)}" if each.reached else ""
    spent = f"{words.plural(run.attempts, 'attempt')}{where}, {words.duration(run.wall_s)} in all{reached}"
    lines.append(f"{link(spent, run.folder, path)}.")
    if each.evidence:
        lines.append(quoted(each.evidence))
    if run.action:
        lines.append(f"Next: `{run.action}`" if "`" not in run.action else quoted([run.action]))
    return "\n\n".join(lines)


def planned_or_recorded(each: RunDetails, report: Report) -> Mapping[str, object]:
    """What the run's own record says, else what the study file would do."""
    return each.changes or report.arms[each.cell.arm].differences


def _actions(report: Report) -> str:
    groups: dict[str, dict[str, list[str]]] = {name: {} for name in PRIORITIES}
    for each in report.cells:
        if each.state in (COMPLETE, "running"):
            continue
        priority = "Low" if each.state in WAITING else "High" if each.state == "failed" else "Medium"
        action = each.action or f"assay submit {shlex.quote(str(report.file))}"
        groups[priority].setdefault(action, []).append(f"{each.arm}/{each.seed} ({each.cause or each.state})")
    if not any(groups.values()):
        return "## Action items\n\nNone: every run is complete."
    parts = ["## Action items"]
    for name, actions in groups.items():
        if actions:
            listed = enumerate(list(actions.items())[:DETAILED], start=1)
            items = [f"{index}. {_some(runs)}\n\n{indent(quoted([action]), '   ')}" for index, (action, runs) in listed]
            if len(actions) > DETAILED:
                items.append(f"{len(actions) - DETAILED:,} more are in runs.csv.")
            parts += [f"### {name} priority", f"{PRIORITIES[name].capitalize()}.", "\n\n".join(items)]
    return "\n\n".join(parts)


def _some(runs: Sequence[str]) -> str:
    return ", ".join(map(cell, runs[:NAMED])) + (f" and {len(runs) - NAMED:,} more" if len(runs) > NAMED else "")


def _cost(report: Report) -> str:
    arms = list(report.summaries.values())
    stages = list(dict.fromkeys(stage for arm in arms for stage in arm.seconds))
    if not stages:
        return ""
    rows = [
        [cell(arm.arm), *(words.duration(arm.seconds[s]) if s in arm.seconds else "-" for s in stages),
         words.duration(arm.wall_s), words.duration(arm.gpu_s), words.size(arm.rss_peak)]
        for arm in arms if arm.wall_s
    ]  # fmt: skip
    wall, gpu = sum(arm.wall_s for arm in arms), sum(arm.gpu_s for arm in arms)
    budget = report.config.budget
    allowed = f" The budget allows {budget.hours:g} h." if budget.hours is not None else ""
    said = f"All attempts together: {wall / 3600:.2f} h, of them {gpu / 3600:.2f} h with a GPU.{allowed}"
    head = ["arm", *map(cell, stages), "wall, all seeds and attempts", "of it with a GPU", "peak memory"]
    return f"## Cost\n\n{said}\n\nStages: mean wall time of a seed, h:mm:ss.\n\n{table(head, rows)}"


def _how() -> str:
    return (
        "## How the numbers are made\n\n"
        "A number is the mean over the seeds that have it, with Student's 95 % interval over these seeds; one seed has "
        "no interval. `4/5` says that four of five seeds asked for have it. A difference is taken seed by seed and "
        "given in per cent of the baseline's mean. Failed seeds are counted, with Wilson's 95 % interval. Intervals "
        "of single arms are not corrected for their number; the verdicts are, as the study file says. "
        "Every number links to the folder of the runs it came from."
    )
