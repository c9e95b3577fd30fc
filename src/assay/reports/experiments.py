"""experiments.md, the experiment log: an entry for every arm with a run; open it to change the template.

The person's part comes from notes.md (notes.py) and is given back as it was written.
"""

import time
from collections.abc import Mapping
from pathlib import Path

from assay.matrix.verdicts.replicates import replicates
from assay.reports import words
from assay.reports.details import shown
from assay.reports.gather import Report
from assay.reports.markdown import gap_text
from assay.reports.markup import cell, link, quoted
from assay.reports.summary import ArmSummary

PLACE = "*Yours: write below `## {arm}` in [notes.md](notes.md).*"


def begun(report: Report) -> list[str]:
    """The arms that have a run, in the order of the study file."""
    return [name for name, arm in report.summaries.items() if any(cell.attempts for cell in arm.cells)]


def write_experiments(report: Report, notes: Mapping[str, str], path: Path) -> str:
    """The whole log."""
    head = [f"# {cell(report.config.name)}: experiment log", "Written by `assay report`; the notes are a person's."]
    return "\n\n".join([*head, *(_entry(report, arm, notes, path) for arm in begun(report))]) + "\n"


def _entry(report: Report, name: str, notes: Mapping[str, str], path: Path) -> str:
    arm, planned = report.summaries[name], report.arms[name]
    runs = ", ".join(link(f"seed {each.seed}", each.folder, path) for each in arm.cells if each.attempts)
    changes = [f"- {cell(key)}: {cell(shown(value))}" for key, value in planned.differences.items()]
    parts = [
        f"## Experiment: {cell(name)}",
        f"**Date**: {_date(report, arm)}<br>\n**Runs**: {runs}<br>\n**Status**: {arm.state}",
        f"**Why**: {cell(planned.reason)}",
        "**Configuration**, where it differs from the baseline:",
        "\n".join(changes) or ("- this is the baseline" if name == report.config.baseline else "- nothing"),
        "**Results**, mean [95 % interval] over seeds:",
        quoted(_results(arm)),
        "**Analysis**:",
        "\n".join(f"- {line}" for line in _analysis(report, arm)),
        "**Notes**:",
        notes.get(name) or PLACE.format(arm=name),
    ]
    actions = dict.fromkeys(each.action for each in arm.cells if each.action)
    return "\n\n".join([*parts, "**Next steps**:", quoted(actions) if actions else "None from the records."])


def _date(report: Report, arm: ArmSummary) -> str:
    times = [report.details[(arm.arm, each.seed)].started for each in arm.cells]
    known = [each for each in times if each is not None]
    return time.strftime("%Y-%m-%d", time.gmtime(min(known))) if known else "not known"


def _results(arm: ArmSummary) -> list[str]:
    width = max(map(len, arm.metrics), default=0)
    lines = [
        f"{name:{width}}  {words.interval(each)}  ({words.count(each)} seeds)" for name, each in arm.metrics.items()
    ]
    return lines or ["no metrics yet"]


def _analysis(report: Report, arm: ArmSummary) -> list[str]:
    """What the records say by themselves."""
    lines = [
        f"{cell(metric.name)}: {gap_text(report, arm, metric)} against the baseline ({metric.better})"
        for metric in report.metrics
        if metric.name in arm.differences
    ]
    for name, verdict in report.verdicts.items():
        if arm.arm in (verdict.hypothesis.arm, verdict.hypothesis.versus):
            lines.append(f"{cell(name)}, {cell(verdict.hypothesis.claim)}: **{verdict.verdict}**")
    for metric in report.metrics[:1]:  # by the rule of the verdicts
        failures = replicates(arm.cells, arm.arm, metric.name).failures
        if failures and failures.failed:
            causes = ", ".join(dict.fromkeys(cell(each.cause) for each in arm.cells if each.cause))
            lines.append(f"{failures.failed} of {failures.n} seeds failed: {causes or 'not a finite number'}")
    return lines or ["nothing to compare yet"]
