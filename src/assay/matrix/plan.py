"""What a study would run, as text and as JSON; open it for `assay plan`."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assay.matrix.arms import Resolved, ResolvedArm
from assay.matrix.cells import read_cells
from assay.matrix.comparison import spread_so_far
from assay.matrix.power import Answer, answer


def answers(path: Path, resolved: Resolved) -> dict[str, Answer]:
    """What the study's seeds can say about each hypothesis, by the spread of the runs that there are."""
    study = resolved.config
    found = {}
    for name, hypothesis in study.hypotheses.items():
        arms = [arm for arm in (hypothesis.arm, hypothesis.versus) if isinstance(arm, str)]
        cells = read_cells(path.absolute().parent / "runs" / study.name, arms, study.seeds)
        share = len(study.hypotheses) if study.correction == "holm" else 1
        found[name] = answer(hypothesis, len(study.seeds), spread=spread_so_far(hypothesis, cells), hypotheses=share)
    return found


def as_json(path: Path, resolved: Resolved) -> dict[str, Any]:
    """The plan as plain types: the study, its arms, how many runs they make, and what those can answer."""
    study = resolved.config
    return {
        "name": study.name,
        "question": study.question,
        "baseline": study.baseline,
        "seeds": list(study.seeds),
        "runs": len(resolved.arms) * len(study.seeds),
        "distinct_runs": len(resolved.identities),
        "arms": [_arm_as_json(arm) for arm in resolved.arms.values()],
        "answers": {name: dataclasses.asdict(found) for name, found in answers(path, resolved).items()},
    }


def _arm_as_json(arm: ResolvedArm) -> dict[str, Any]:
    keys = ("name", "reason", "overrides", "differences", "identities", "runs", "same_as")
    return {key: getattr(arm, key) for key in keys}


def show(path: Path, resolved: Resolved) -> None:
    """Print one row per arm: what differs from the baseline; then what the seeds can say about each hypothesis."""
    console = Console()
    console.print(_table(resolved))
    first = next(iter(resolved.arms.values()))
    console.print(f"{first.name} runs {first.runs}", markup=False)
    console.print(_count(resolved), markup=False)
    for name, found in answers(path, resolved).items():
        console.print(f"{name}: {found.text}", markup=False)


def _table(resolved: Resolved) -> Table:
    table = Table(show_lines=False)
    for column in ("arm", "differs from the baseline in", "note"):
        table.add_column(column, overflow="fold")
    for name, arm in resolved.arms.items():
        changes = "\n".join(f"{key}={json.dumps(value)}" for key, value in arm.differences.items())
        table.add_row(escape(name), escape(changes) or "-", escape(_note(resolved, arm)))
    return table


def _note(resolved: Resolved, arm: ResolvedArm) -> str:
    if arm.same_as is not None:
        return f"same as {arm.same_as}"
    return "baseline" if arm.name == resolved.config.baseline else ""


def _count(resolved: Resolved) -> str:
    arms, seeds, runs = len(resolved.arms), len(resolved.config.seeds), len(resolved.identities)
    return f"{arms} arms x {seeds} seeds = {arms * seeds} runs, {runs} of them distinct"
