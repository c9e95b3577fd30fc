"""report.html: one file without a link to anywhere else; open it for what the page holds (page.html, .css, .js: how).

Every text is escaped here, or reaches the page as JSON that page.js shows as text. A policy in the page's head forbids
any script but page.js, and every connection.
"""

import base64
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from assay.matrix.cells import COMPLETE
from assay.reports import words
from assay.reports.canvas import Drawing
from assay.reports.details import RunDetails, shown
from assay.reports.effects import effect_text, reason_text
from assay.reports.gather import Metric, Report
from assay.reports.markdown import gap_text, planned_or_recorded
from assay.reports.spreadsheets import relative
from assay.reports.summary import WAITING, ArmSummary, Estimate

MARKS = {COMPLETE: "✓", "failed": "✕", "partial": "◐", "lost": "?", "cancelled": "-", "running": "▸", "queued": "…"}
NOT_BEGUN = "·"


def write_page(report: Report, drawings: Sequence[Drawing], notes: Mapping[str, str], path: Path) -> str:
    """The whole page; links to runs are relative to `path`."""
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return Template(_part("page.html")).substitute(
        policy=f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'",
        title=escape(report.config.name),
        question=escape(report.config.question),
        facts=escape(_facts(report)),
        warnings="".join(f"<li>{escape(warning)}</li>" for warning in report.warnings),
        registration=escape(report.registration),
        cards="".join(_card(report, name) for name in report.verdicts) or "<p>No hypotheses in the study file.</p>",
        head="".join(_header(text, numeric) for text, numeric in _columns(report)),
        rows="".join(_row(report, arm) for arm in report.summaries.values()),
        figures="".join(map(_figure, drawings)) or "<p>Nothing to draw yet.</p>",
        style=_part("page.css"),
        script=script,
        data=_embedded(_data(report, notes, path)),
    )


def _part(name: str) -> str:
    return files("assay.reports").joinpath(name).read_text(encoding="utf-8")


def _embedded(data: Any) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _facts(report: Report) -> str:
    complete = sum(each.state == COMPLETE for each in report.cells)
    wall = sum(arm.wall_s for arm in report.summaries.values())
    facts = [
        f"{complete:,} of {words.plural(len(report.cells), 'run')} complete",
        f"{words.plural(len(report.summaries), 'arm')} x {words.plural(len(report.config.seeds), 'seed')}",
        f"baseline {report.config.baseline}",
        f"{wall / 3600:.1f} h in all",
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(report.written)),
    ]
    return " · ".join([*facts, f"only {report.only}"] if report.only else facts)


def _card(report: Report, name: str) -> str:
    verdict = report.verdicts[name]
    sides = [verdict.hypothesis.arm, verdict.hypothesis.versus]
    arms = " ".join(_arm_link(arm, escape(arm)) for arm in sides if arm in report.summaries and isinstance(arm, str))
    return (
        f'<article class="card v-{verdict.verdict.lower()}"><h3>{escape(name)} '
        f'<span class="verdict">{verdict.verdict}</span></h3>'
        f"<p>{escape(verdict.hypothesis.claim)}</p><p class=effect>{escape(effect_text(verdict))}</p>"
        f"<p class=reason>{escape(reason_text(report, name))}</p>"
        f"<p>Runs: {arms or 'not among those shown'}</p></article>"
    )


def _columns(report: Report) -> list[tuple[str, bool]]:
    """Heading, and whether it sorts as a number."""
    columns = [("arm", False), ("seeds", True)]
    for metric in report.metrics:
        columns += [(metric.label, True), ("against the baseline", True)]
        columns += [(f"{control} control", True) for control in metric.controls]
    return [*columns, ("wall per complete run", True), ("GPU h, all attempts", True), ("memory", True)]


def _header(text: str, numeric: bool) -> str:
    kind = "number" if numeric else "text"
    return f'<th scope="col" data-kind="{kind}"><button type="button">{escape(text)}</button></th>'


def _row(report: Report, arm: ArmSummary) -> str:
    planned = report.arms[arm.arm]
    causes = " ".join(each.cause for each in arm.cells if each.cause)
    text = f"{arm.arm} {planned.reason} {arm.state} {causes}".lower()
    mark = " <small>baseline</small>" if arm.arm == report.config.baseline else ""
    cells = [
        f'<th scope="row" data-value="{escape(arm.arm)}">{_arm_link(arm.arm, escape(arm.arm))}{mark}</th>',
        _cell(arm.complete, "".join(_chip(arm.arm, each.seed, each.state, each.cause) for each in arm.cells)),
    ]
    for metric in report.metrics:
        cells += _metric_cells(report, arm, metric)
    wall = arm.run_s
    cells += [
        _cell(wall, _arm_link(arm.arm, words.duration(wall)) if wall else ""),
        _cell(arm.gpu_s or None, _arm_link(arm.arm, f"{arm.gpu_s / 3600:.2f}") if arm.gpu_s else ""),
        _cell(arm.rss_peak or None, _arm_link(arm.arm, words.size(arm.rss_peak)) if arm.rss_peak else ""),
    ]
    return f'<tr data-group="{_group(arm)}" data-text="{escape(text)}">{"".join(cells)}</tr>\n'


def _group(arm: ArmSummary) -> str:
    if arm.ended_short:
        return "trouble"
    return "complete" if arm.complete == len(arm.cells) else "waiting"


def _metric_cells(report: Report, arm: ArmSummary, metric: Metric) -> list[str]:
    found, gap = arm.metrics.get(metric.name), arm.differences.get(metric.name)
    cells = [_estimate_cell(arm.arm, found)]
    text = gap_text(report, arm, metric)
    cells.append(_cell(gap.mean, _arm_link(arm.arm, escape(text))) if gap else _cell(None, ""))
    return cells + [_estimate_cell(arm.arm, arm.metrics.get(source)) for source in metric.controls.values()]


def _estimate_cell(arm: str, found: Estimate | None) -> str:
    if found is None:
        return _cell(None, "")
    short = f" <small>{words.count(found)} seeds</small>" if found.n < found.planned else ""
    return _cell(found.mean, f"{_arm_link(arm, words.interval(found))}{short}")


def _cell(value: float | None, content: str) -> str:
    given = "" if value is None else f' data-value="{value!r}"'
    return f"<td{given}>{content or '<span class=none>none</span>'}</td>"


def _arm_link(arm: str, content: str) -> str:
    return f'<a href="#/arm/{quote(arm, safe="")}">{content}</a>'


def _chip(arm: str, seed: int, state: str, cause: str | None) -> str:
    text = escape(f"seed {seed}: {state}{f', {cause}' if cause else ''}")
    mark = MARKS.get(state, NOT_BEGUN)
    kind = state if state in (COMPLETE, *WAITING) else "trouble"
    place = f"#/run/{quote(arm, safe='')}/{seed}"
    return f'<a class="chip c-{kind}" href="{place}" title="{text}" aria-label="{text}">{mark}</a>'


def _figure(drawing: Drawing) -> str:
    text = escape(f"{drawing.text} {drawing.note}".strip())
    return (
        f'<figure id="figure-{drawing.name}"><h3>{escape(drawing.title)}</h3>'
        f'<div class="drawing" role="img" tabindex="0" aria-label="{escape(drawing.title)}. {text}">{drawing.svg}</div>'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _data(report: Report, notes: Mapping[str, str], path: Path) -> dict[str, Any]:
    """What the drill-down shows: texts that page.js puts onto the page as text."""
    return {
        "arms": {name: _arm_data(report, arm, notes, path) for name, arm in report.summaries.items()},
        "runs": {f"{arm}/{seed}": _run_data(each, report, path) for (arm, seed), each in report.details.items()},
        "metrics": [metric.name for metric in report.metrics],
    }


def _arm_data(report: Report, arm: ArmSummary, notes: Mapping[str, str], path: Path) -> dict[str, Any]:
    planned = report.arms[arm.arm]
    return {
        "reason": planned.reason,
        "state": arm.state,
        "changes": _pairs(planned.differences),
        "same_as": planned.same_as,
        "metrics": [[name, words.interval(each), words.count(each)] for name, each in arm.metrics.items()],
        "seeds": [each.seed for each in arm.cells],
        "notes": notes.get(arm.arm, ""),
        "folder": _place(report.runs / arm.arm, path) if arm.is_begun else None,
    }


def _run_data(each: RunDetails, report: Report, path: Path) -> dict[str, Any]:
    run = each.cell
    return {
        "state": run.state,
        "cause": run.cause,
        "action": run.action,
        "reached": each.reached,
        "evidence": each.evidence,
        "changes": _pairs(planned_or_recorded(each, report)),
        "metrics": [[name, words.number(value)] for name, value in run.metrics.items()],
        "resources": _resources(each) if run.attempts else [],
        "log": each.log,
        "log_file": _place(each.log_file, path) if each.log_file else None,
        "folder": _place(run.folder, path) if run.attempts else None,
    }


def _resources(each: RunDetails) -> list[tuple[str, str]]:
    run, used = each.cell, each.resources
    rows = [("attempts", str(run.attempts)), ("wall time, all attempts", words.duration(run.wall_s))]
    rows += [(f"stage {stage}", words.duration(seconds)) for stage, seconds in run.seconds.items()]
    rows += [("with a GPU", words.duration(run.gpu_s))] if run.gpu_s else []
    rows += [("peak memory", words.size(run.rss_peak))]
    if used:
        rows += [("CPU time", words.duration(used["cpu_s"]))]
        sizes = {"peak GPU memory": "gpu_memory_peak", "read": "read_bytes", "written": "write_bytes"}
        rows += [(name, words.size(used[key])) for name, key in sizes.items() if used[key]]
    named = {"node": run.node, "commit": run.commit, "identity": run.identity}
    return rows + [(name, value) for name, value in named.items() if value]


def _pairs(changes: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, shown(value)) for key, value in changes.items()]


def _place(target: Path, path: Path) -> str:
    """A file or folder as a relative link."""
    return f"./{quote(relative(target, path))}"
