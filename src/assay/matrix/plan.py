"""What a study would run and take, as text and as JSON; open it for `assay plan`."""

import dataclasses
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from assay.matrix.arms import Resolved, ResolvedArm
from assay.matrix.cells import read_cells
from assay.matrix.forecast.forecast import ArmForecast, StudyForecast
from assay.matrix.forecast.quantities import amount, bytes_text, duration, with_interval
from assay.matrix.forecast.scaling import Estimate
from assay.matrix.verdicts.comparison import spread_so_far
from assay.matrix.verdicts.power import Answer, answer
from assay.reports.tables import wide_console

UNKNOWN = "?"
REMEDY = "move their folders away, or give the arms other names; assay status names them all"
Sum = tuple[str, Estimate, Callable[[float], str]]


def answers(path: Path, resolved: Resolved) -> dict[str, Answer]:
    """What the study's seeds can say about each hypothesis, by the spread of the runs that there are."""
    study = resolved.config
    hypotheses = study.hypotheses.values()
    arms = {arm for each in hypotheses for arm in (each.arm, each.versus) if isinstance(arm, str)}
    folder = path.absolute().parent / "runs" / study.name
    cells = read_cells(folder, sorted(arms), study.seeds) if arms else []
    share = len(study.hypotheses) if study.correction == "holm" else 1
    return {
        name: answer(each, len(study.seeds), spread=spread_so_far(each, cells), hypotheses=share)
        for name, each in study.hypotheses.items()
    }


def as_json(path: Path, resolved: Resolved, forecast: StudyForecast, inert: Mapping[str, str]) -> dict[str, Any]:
    """The plan as plain types: the study, its arms, what they and all missing runs take, and what they can answer."""
    study = resolved.config
    return {
        "name": study.name,
        "question": study.question,
        "baseline": study.baseline,
        "seeds": list(study.seeds),
        "runs": len(resolved.arms) * len(study.seeds),
        "distinct_runs": len(resolved.identities),
        "arms": [_arm_as_json(arm, forecast.arms[arm.name]) for arm in resolved.arms.values()],
        "forecast": {
            **{key: value for key, value in dataclasses.asdict(forecast).items() if key != "arms"},
            "refusals": forecast.refusals,
        },
        "probe": dict(inert),
        "answers": {name: dataclasses.asdict(found) for name, found in answers(path, resolved).items()},
    }


def _arm_as_json(arm: ResolvedArm, forecast: ArmForecast) -> dict[str, Any]:
    keys = ("name", "reason", "overrides", "differences", "identities", "runs", "same_as")
    return {**{key: getattr(arm, key) for key in keys}, "forecast": dataclasses.asdict(forecast)}


def show(path: Path, resolved: Resolved, forecast: StudyForecast, inert: Mapping[str, str], options: str = "") -> None:
    """Print one row per arm: what differs from the baseline, what a run takes; then the sums and what can be shown.

    options: with which the plan was asked for; a command that is advised has them, too.
    """
    console = wide_console()
    console.print(_table(resolved, forecast, inert))
    first = next(iter(resolved.arms.values()))
    console.print(f"{first.name} runs {first.runs}", markup=False, soft_wrap=True)
    console.print(_count(resolved), markup=False, soft_wrap=True)
    for line in forecast_lines(path, forecast, options):
        console.print(line, markup=False, soft_wrap=True)
    for name, found in answers(path, resolved).items():
        console.print(f"{name}: {found.text}", markup=False, soft_wrap=True)


def _table(resolved: Resolved, forecast: StudyForecast, inert: Mapping[str, str]) -> Table:
    table = Table(show_lines=False)
    chained = any(each.jobs != 1 for each in forecast.arms.values())
    for column in (
        "arm",
        "differs from the baseline in",
        "a run takes",
        "memory",
        *(["jobs"] if chained else []),
        "note",
    ):
        table.add_column(column, overflow="fold")
    for name, arm in resolved.arms.items():
        changes = "\n".join(f"{key}={json.dumps(value)}" for key, value in arm.differences.items())
        found = forecast.arms[name]
        jobs = [UNKNOWN if found.jobs is None else str(found.jobs or "none")] if chained else []
        notes = "\n".join(filter(None, (_note(resolved, arm), inert.get(name))))
        cells = (name, changes or "-", _seconds(found), _memory(found), *jobs, notes)
        table.add_row(*map(escape, cells))
    return table


def _seconds(found: ArmForecast) -> str:
    return with_interval(found.seconds, duration) if found.seconds else UNKNOWN


def _memory(found: ArmForecast) -> str:
    """The upper end, for that is what a job has to ask for."""
    host = bytes_text(found.memory.high) if found.memory else UNKNOWN
    return f"{host} + GPU {bytes_text(found.gpu_memory.high)}" if found.gpu_memory else host


def _note(resolved: Resolved, arm: ResolvedArm) -> str:
    if arm.same_as is not None:
        return f"same as {arm.same_as}"
    return "baseline" if arm.name == resolved.config.baseline else ""


def _count(resolved: Resolved) -> str:
    arms, seeds, runs = len(resolved.arms), len(resolved.config.seeds), len(resolved.identities)
    return f"{arms} arms x {seeds} seeds = {arms * seeds} runs, {runs} of them distinct"


def forecast_lines(path: Path, found: StudyForecast, options: str) -> Iterator[str]:
    """The sums of what is missing, from what they are known, and what does not fit."""
    runs, pilots = found.learnt_from["runs"], found.learnt_from["pilots"]
    done = found.runs - found.missing
    yield f"{done} of {found.runs} runs are complete; {duration(found.spent_s)} spent so far"
    if found.changed:
        other = "not among them, with other parameters than the study now"
        yield f"{other}: {len(found.changed)}, e.g. {found.changed[0]}; {REMEDY}"
    if found.missing and found.seconds.value:
        others = f" (of those known; {len(found.unknown)} arms are not)" if found.unknown else ""
        yield f"the missing {found.missing} take {with_interval(found.seconds, duration)} of jobs{others}{_sums(found)}"
    if found.seconds.value or runs or pilots:
        yield f"  90 % intervals, from {runs} runs and {pilots} pilots on such hardware"
    if found.unknown:
        shown = ", ".join(found.unknown[:3]) + (" ..." if len(found.unknown) > 3 else "")
        yield f"unknown: {shown}; a pilot measures them: assay plan {shlex.quote(str(path))} --pilot{options}"
    yield from found.over_budget
    yield from (f"refused by submit: {line}" for line in found.refusals)


def _sums(found: StudyForecast) -> str:
    elapsed: list[Sum] = [("elapsed", found.elapsed_s, duration)] if found.elapsed_s != found.seconds else []
    sums: list[Sum] = [
        *elapsed,
        ("GPU hours", found.gpu_hours, amount),
        ("money", found.money, amount),
        ("disk", found.disk, bytes_text),
    ]
    texts = [f"{name} {with_interval(each, text)}" for name, each, text in sums if each.value]
    return "".join(f"; {text}" for text in texts)
