"""What the disk knows of every arm x seed of a study: state, metrics, cost; open it to add a fact to a report."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.runs.advice import command
from assay.runs.record import Attempt, Stage
from assay.runs.status import collect
from assay.runs.store import RunFolder, RunRecord

METRICS = "metrics.json"
MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One run. metrics: by name, of a complete run. seconds: stage -> wall seconds of the last time it ended well."""

    arm: str
    seed: int
    folder: Path
    state: str
    """As `assay status` says it; `missing` where there is no record."""
    cause: str | None = None
    action: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    """All attempts together."""
    gpu_s: float = 0.0
    """Wall seconds of attempts that used a GPU."""
    rss_peak: int = 0
    """Bytes."""
    attempts: int = 0
    node: str | None = None
    identity: str | None = None
    commit: str | None = None


def read_cells(folder: Path, arms: Sequence[str], seeds: Sequence[int]) -> list[CellResult]:
    """Every arm x seed of the study whose runs lie below `folder` (runs/<study name>), missing ones too.

    Raises:
        DataError: a metrics file is damaged.
    """
    diagnoses = {(each.arm, each.seed): each for each in collect(folder)} if folder.is_dir() else {}
    cells = []
    for arm in arms:
        for seed in seeds:
            run = folder / arm / str(seed)
            found = diagnoses.get((arm, str(seed)))
            if found is None:
                cells.append(CellResult(arm=arm, seed=seed, folder=run, state=MISSING))
                continue
            told: dict[str, Any] = {
                "state": found.state,
                "cause": found.cause,
                "action": found.action,
                "node": found.node,
            }
            cells.append(CellResult(arm=arm, seed=seed, folder=run, **told, **_facts(run)))
    return cells


def advice(action: str, run: Path, study: Path, arm: str, cause: str | None) -> str:
    """What to do about a run, as a command that names its study: its own, given by hand, would run outside a clone."""
    again = " --again" if cause == "NaN" else ""
    submit = f"assay submit {shlex.quote(str(study))} --only {shlex.quote(arm)}{again}"
    return action.replace(command(RunFolder(run).read()), submit)


def _facts(folder: Path) -> dict[str, Any]:
    """What the record of a run says beside its state; little where it is damaged, which the state tells."""
    try:
        record: RunRecord = RunFolder(folder).read()
    except DataError:
        return {}
    attempts = record.attempts
    return {
        "metrics": read_metrics(folder),
        "params": record.run.params,
        "seconds": stage_seconds(stage for attempt in attempts for stage in attempt.stages),
        "wall_s": sum(map(_lasted, attempts)),
        "gpu_s": sum(_lasted(attempt) for attempt in attempts if attempt.resources.gpu_memory_peak),
        "rss_peak": max((attempt.resources.rss_peak for attempt in attempts), default=0),
        "attempts": len(attempts),
        "identity": record.run.identity,
        "commit": record.run.commit,
    }


def _lasted(attempt: Attempt) -> float:
    return (attempt.ended or attempt.heartbeat) - attempt.started


def stage_seconds(stages: Iterable[Stage]) -> dict[str, float]:
    """Stage -> wall seconds of the last time it ended well."""
    return {s.stage: s.ended - s.started for s in stages if s.code == 0 and s.ended is not None}


def read_metrics(folder: Path) -> dict[str, float]:
    """The metrics that a complete run has left, by name; none if it has left none.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / METRICS
    try:
        found: dict[str, float] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); remove it and submit the run again") from None
    return found
