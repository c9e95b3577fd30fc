"""What the disk knows of every arm x seed of a study: state, metrics, cost; open it to add a fact to a report."""

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from assay.config.load import assign
from assay.config.recorded import completed, deciding_part
from assay.errors import ConfigError, DataError
from assay.matrix.refusals import place_problems
from assay.matrix.study import StudyConfig
from assay.matrix.submission import machine_option, read_submission, was_queued
from assay.runs.advice import command
from assay.runs.case import State
from assay.runs.diagnose import Diagnosis
from assay.runs.history import stage_tries, until_done
from assay.runs.masking import masked_facts
from assay.runs.record import Attempt
from assay.runs.status import collect
from assay.runs.store import RunFolder, RunRecord
from assay.studies import study_config

METRICS = "metrics.json"
LOSSES = "results/*/log/live/plots/metrics/train/loss.tsv"
"""In a run's folder: what its training logged, step by step."""
STACK = "stack.json"
"""In the folder of a run that was trained with others: attempts of their common record, and how many shared each."""
MISSING: Final = "missing"
COMPLETE: Final = "complete"
CHANGED: Final = "changed"
"""What a run is that was run with other parameters than the study now has."""
NOT_HANDED_BACK: Final = "partial"
"""What a run is that has ended well, as long as its result is not in its folder."""


@dataclass(frozen=True, kw_only=True)
class CellResult:
    """One run. metrics: by name, of a complete run. seconds: stage -> wall seconds until it ended well, with the
    tries before and a run's share of a stack's."""

    arm: str
    seed: int
    folder: Path
    state: State
    """As `assay status` says it; `missing` where there is no record."""
    cause: str | None = None
    outside: bool = False
    """Whether its surroundings ended it, which says nothing about the arm."""
    action: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    wall_s: float = 0.0
    """All attempts together, and a run's share of a stack's."""
    gpu_s: float = 0.0
    """Wall seconds of attempts that used a GPU, and a run's share of a stack's."""
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
    diagnoses = diagnosed(folder)
    cells = []
    for arm in arms:
        for seed in seeds:
            run = folder / arm / str(seed)
            found = diagnoses.get((arm, str(seed)))
            if found is None:
                cells.append(CellResult(arm=arm, seed=seed, folder=run, state=MISSING))
                continue
            told: dict[str, Any] = {
                "state": NOT_HANDED_BACK if found.state == COMPLETE and not (run / METRICS).is_file() else found.state,
                "cause": found.cause,
                "outside": found.outside,
                "action": found.action,
                "node": found.node,
            }
            cells.append(CellResult(arm=arm, seed=seed, folder=run, **told, **_facts(run)))
    return cells


def diagnosed(folder: Path, words: Mapping[Path, Mapping[str, str]] | None = None) -> dict[tuple[str, str], Diagnosis]:
    """Arm and seed to the diagnosis of every run in runs/<study name>; what was moved deeper, or aside, is no arm's."""
    found = collect(folder, words=words) if folder.is_dir() else []
    return {(each.arm, each.seed): each for each in found if each.study == folder.name}


def changed(params: Mapping[str, Any] | None, now: Mapping[str, Any], config_class: type) -> str:
    """Parameters on a run's record that can change a result and are not those of now, as `key=old (now new)`.

    Empty: none. config_class: says what a key is and what runs did before there was it.
    """
    if params is None or params == now:
        return ""
    old, new = (recordable(deciding_part(config_class, completed(config_class, each))) for each in (params, now))
    return _changes(old, new)


def params_class(path: Path, study: StudyConfig) -> type:
    """The class of the parameters of a study file's package.

    Raises:
        ConfigError: there is no such package, or no pipeline.
    """
    if problems := [f"{path}: {problem}" for problem in place_problems(path, study)]:
        raise ConfigError("\n".join(problems))
    found: type = study_config(study.study).Params
    return found


def planned(data: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arm to the parameters of its runs, but for the seed. data: params.yaml; arms: to overrides."""
    return {name: assign(data, overrides) for name, overrides in arms.items()}


def recorded_params(run: Path) -> dict[str, Any] | None:
    """What a run was run with; None where its record does not say, or is damaged, which its state tells."""
    try:
        found: dict[str, Any] | None = json.loads((run / "run.json").read_bytes())["params"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found


def recordable(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as a run's record has them."""
    found: dict[str, Any] = masked_facts(plain(params))
    return found


def plain(value: Any) -> Any:
    """As YAML gives it back: lists instead of tuples."""
    return json.loads(json.dumps(value))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    found = []
    for key in {**old, **new}:
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found.append(_changes(before, now, f"{prefix}{key}."))
        elif before != now:
            found.append(f"{prefix}{key}={json.dumps(before)} (now {json.dumps(now)})")
    return ", ".join(text for text in found if text)


def advice(action: str, run: Path, study: Path, cause: str | None) -> str:
    """What to do about a run, as a command that names its study: its own, given by hand, would run outside a clone."""
    step = action.replace(command(RunFolder(run).read()), submit_step(run, study, cause))
    return f"{step}; if the arm changes, mv {shlex.quote(str(run))} aside first" if cause == "NaN" else step


def submit_step(run: Path, study: Path, cause: str | None) -> str:
    """The command that submits a run again."""
    which = "--queued" if was_queued(run) else f"--only {shlex.quote(run.absolute().parent.name)}"
    again = " --again" if cause == "NaN" else ""
    return f"assay submit {shlex.quote(str(study))} {which}{machine_option(read_submission(run))}{again}"


def _facts(folder: Path) -> dict[str, Any]:
    """What the record of a run says beside its state; little where it is damaged, which the state tells."""
    try:
        record: RunRecord = RunFolder(folder).read()
    except DataError:
        return {}
    attempts = record.attempts
    shares = list(_stacked(folder))
    return {
        "metrics": read_metrics(folder),
        "params": record.run.params,
        "seconds": _stage_seconds(attempts, shares),
        "wall_s": sum(map(_lasted, attempts)) + sum(share * _lasted(attempt) for share, attempt in shares),
        "gpu_s": _on_gpu(attempts) + sum(share * _on_gpu([attempt]) for share, attempt in shares),
        "rss_peak": max((attempt.resources.rss_peak for attempt in attempts), default=0),
        "attempts": len(attempts),
        "identity": record.run.identity,
        "commit": record.run.commit,
    }


def _stacked(folder: Path) -> Iterator[tuple[float, Attempt]]:
    """The attempts in which a run was trained together with others, and its share in each."""
    path = folder / STACK
    try:
        for told in json.loads(path.read_bytes()) if path.is_file() else ():
            attempts = RunFolder(folder / told["record"]).read().attempts
            yield 1 / told["runs"], next(attempt for attempt in attempts if attempt.number == told["attempt"])
    except (ValueError, LookupError, TypeError, StopIteration, DataError) as error:
        given = f"{path}: damaged, or its record was moved ({error or 'no such attempt'})"
        raise DataError(f"{given}; remove it: the cost of this run's training is not counted then") from None


def _on_gpu(attempts: Iterable[Attempt]) -> float:
    return sum(_lasted(attempt) for attempt in attempts if attempt.resources.gpu_memory_peak)


def _lasted(attempt: Attempt) -> float:
    return (attempt.ended or attempt.heartbeat) - attempt.started


def _stage_seconds(attempts: Sequence[Attempt], shares: Iterable[tuple[float, Attempt]]) -> dict[str, float]:
    """Stage -> wall seconds until it ended well, the last time: with the tries before, and a share of a stack's."""
    stacked = [(stage, share * s, None) for share, attempt in shares for stage, s, _ in stage_tries([attempt])]
    return {stage: times[-1] for stage, times in until_done([*stacked, *stage_tries(attempts)]).items()}


def read_metrics(folder: Path) -> dict[str, float]:
    """The metrics that a complete run has left, by name, NaN where one is not finite; none if it has left none.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / METRICS
    try:
        found: dict[str, float | None] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); remove it and submit the run again") from None
    if not isinstance(found, dict) or not all(isinstance(value, int | float | None) for value in found.values()):
        raise DataError(f"{path}: got other things than numbers by name; remove it and submit the run again")
    return {name: math.nan if value is None else value for name, value in found.items()}
