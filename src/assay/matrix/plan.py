"""What a study would run: every arm resolved, validated and compared with the baseline; open it for `assay plan`."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assay.config import config_digest, resolved
from assay.config.load import assign, build, read
from assay.errors import ConfigError
from assay.matrix.study import StudyConfig, read_study
from assay.studies import study_config


@dataclass(frozen=True)
class PlannedArm:
    """An arm, valid: its differences from the baseline, its identity per seed, and what it would run."""

    name: str
    reason: str
    differences: dict[str, Any]
    """Dotted leaf to its value in this arm, null if it has none, for leaves that differ from the baseline's."""
    identities: dict[int, str]
    """Seed to the digest of every parameter that can change a result; code and data add to it when it runs."""
    runs: str
    same_as: str | None
    """An earlier arm that would run exactly the same."""


def plan(path: Path) -> list[PlannedArm]:
    """Resolve and validate every arm x seed of a study file.

    Raises:
        ConfigError: one line for every wrong value of every arm.
    """
    study = read_study(path)
    data = read(path.parent / study.params)
    config = study_config(study.study)
    resolved_arms = _resolve(path, study, data, config.Params)
    keys = sorted({key for stage in config.STAGES.values() for key in stage} - {"predict"})
    baseline = _flat(resolved(resolved_arms[study.baseline][study.seeds[0]]))
    planned: list[PlannedArm] = []
    for name, seeds in resolved_arms.items():
        first = _flat(resolved(seeds[study.seeds[0]]))
        identities = {seed: config_digest(params, keys) for seed, params in seeds.items()}
        keys_of_both = [*first, *(key for key in baseline if key not in first)]
        differences = {key: first.get(key) for key in keys_of_both if first.get(key) != baseline.get(key)}
        twin = next((arm.name for arm in planned if arm.identities == identities), None)
        runs = config.describe(seeds[study.seeds[0]])
        planned.append(PlannedArm(name, study.arms[name].reason, differences, identities, runs, twin))
    return planned


def _resolve(path: Path, study: StudyConfig, data: dict[str, Any], params: type) -> dict[str, dict[int, Any]]:
    problems: list[str] = []
    found: dict[str, dict[int, Any]] = {}
    for name, arm in study.arms.items():
        changes = {**study.base, **arm.set, "seed": study.seeds[0]}
        try:
            first: Any = build(params, assign(data, changes))
        except ConfigError as error:
            problems += [f"{path}: arms.{name}: {line}" for line in str(error).splitlines()]
            continue
        found[name] = {seed: dataclasses.replace(first, seed=seed) for seed in study.seeds}
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def show(planned: list[PlannedArm]) -> None:
    """Print one row per arm: what differs from the baseline, and whether another arm is the same."""
    table = Table(show_lines=False)
    for column in ("arm", "differs from the baseline in", "note"):
        table.add_column(column, overflow="fold")
    for arm in planned:
        changes = "\n".join(f"{key}={json.dumps(value)}" for key, value in arm.differences.items())
        table.add_row(escape(str(arm.name)), escape(changes) or "-", f"same as {arm.same_as}" if arm.same_as else "")
    console = Console()
    console.print(table)
    runs = len({identity for arm in planned for identity in arm.identities.values()})
    console.print(f"the first arm runs {planned[0].runs}")
    console.print(f"{len(planned)} arms x {len(planned[0].identities)} seeds: {runs} distinct runs")
