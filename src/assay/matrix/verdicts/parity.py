"""Do arms that must differ differ, and had arms that are compared the same budget? Open it to see what is called inert.

An arm is inert if, at every seed that both it and the baseline have, all logged losses and all metrics are equal to
the last digit: what it changes is not read. Budgets are what training stages wrote about themselves (steps, samples)
and what the records measured (wall and GPU time).
"""

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.matrix.arms import ResolvedArm
from assay.matrix.cells import COMPLETE, LOSSES, CellResult

BUDGET_FILES = "results/*/metrics.json"
BUDGET = ("steps", "samples")
TOLERANCE = 0.05
"""Relative difference of budgets that passes."""
TIME_TOLERANCE = 0.25
"""The same for measured times: machines are noisy."""
BUDGET_KEYS = ("steps", "epochs", "batch_size", "accumulate", "ensemble_size", "patience")
"""Last part of the keys by which an arm may be about its budget."""


def inert(arms: Mapping[str, ResolvedArm], baseline: str, cells: Sequence[CellResult]) -> dict[str, str]:
    """Arm to the reason why nothing follows from it, for arms whose complete runs all equal the baseline's.

    Arms of which `plan` knows already that they run the same as another one are left out.
    """
    complete = {(cell.arm, cell.seed): cell for cell in cells if cell.state == COMPLETE}
    found = {}
    for name, arm in arms.items():
        if name == baseline or arm.same_as:
            continue
        shared = [seed for other, seed in complete if other == name and (baseline, seed) in complete]
        if shared and all(_same(complete[name, seed], complete[baseline, seed]) for seed in shared):
            seeds = ", ".join(map(str, shared))
            found[name] = f"inert: losses and metrics equal those of {baseline} to the last digit at seed {seeds}"
    return found


def _same(one: CellResult, other: CellResult) -> bool:
    """Whether two runs logged the same losses, of which there are some, and have the same metrics."""
    losses = texts(one.folder, LOSSES)
    return bool(losses) and losses == texts(other.folder, LOSSES) and one.metrics == other.metrics


def texts(folder: Path, pattern: str) -> dict[str, str]:
    """What a run's files that match a pattern say to the last digit, by their names below its folder."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.glob(pattern))}


def budgets(cell: CellResult) -> dict[str, float]:
    """What a complete run spent: `stage/steps`, `stage/samples`, wall seconds, and GPU seconds if it used one."""
    found: dict[str, float] = {}
    for path in sorted(cell.folder.glob(BUDGET_FILES)):
        written = _read(path) or {}
        told = {key: written[key] for key in BUDGET if isinstance(written.get(key), int | float)}
        found |= {f"{path.parent.name}/{key}": float(value) for key, value in told.items()}
    found["wall seconds"] = cell.wall_s
    return found | ({"GPU seconds": cell.gpu_s} if cell.gpu_s else {})


def unreadable(cells: Sequence[CellResult]) -> list[str]:
    """A line for each metrics file of a complete run that says nothing, as its stage wrote it."""
    paths = [path for cell in cells if cell.state == COMPLETE for path in sorted(cell.folder.glob(BUDGET_FILES))]
    return [
        f"{path}: no JSON object, so that this run's budget is not compared" for path in paths if _read(path) is None
    ]


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def unequal(arms: Mapping[str, ResolvedArm], baseline: str, cells: Sequence[CellResult]) -> list[str]:
    """A line for each arm whose complete runs had another budget than the baseline's though it is not about that."""
    stages = {stage for cell in cells for stage in cell.seconds}
    wanted = _mean_budgets(baseline, cells, stages)
    lines = []
    for name, arm in arms.items():
        if name == baseline or not wanted or about_budget(arm):
            continue
        spent = _mean_budgets(name, cells, stages)
        for what in wanted.keys() & spent.keys():
            tolerance = TIME_TOLERANCE if what.endswith("seconds") else TOLERANCE
            if abs(spent[what] - wanted[what]) > tolerance * wanted[what]:
                apart = f"allowed: {100 * tolerance:.0f} % apart, unless the arm is about its budget"
                lines.append(f"{name}: {what} {spent[what]:.6g}, of {baseline} {wanted[what]:.6g}; {apart}")
    return sorted(lines)


def about_budget(arm: ResolvedArm) -> bool:
    """Whether what an arm changes is a budget."""
    return any(key.rpartition(".")[2] in BUDGET_KEYS for key in arm.differences)


def _mean_budgets(arm: str, cells: Sequence[CellResult], stages: Collection[str]) -> dict[str, float]:
    """Means over the complete runs of an arm that tell; of times, over those in which all `stages` ran.

    What DVC has found in its cache took no time here, and says nothing about a budget.
    """
    told = defaultdict(list)
    for cell in cells:
        if cell.arm == arm and cell.state == COMPLETE:
            for what, spent in budgets(cell).items():
                if not what.endswith("seconds") or cell.seconds.keys() >= set(stages):
                    told[what].append(spent)
    return {what: sum(values) / len(values) for what, values in told.items()}
