"""One run in depth: what its config changes, the end of its log, why it failed, what it used; open it to show more.

Every text that comes from here may have been written by anybody: who shows it must escape it.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.matrix.cells import COMPLETE, MISSING, CellResult
from assay.runs.diagnose import Diagnosis
from assay.runs.status import collect
from assay.runs.store import RunFolder, RunRecord

LINES = {COMPLETE: 6}
OTHER_LINES = 25
TAIL_BYTES = 8 * 1024
LINE_CHARACTERS = 300
"""A longer line of a log is cut: a progress bar can be one line of a megabyte."""


@dataclass(frozen=True, kw_only=True)
class RunDetails:
    """What a reader may want to know of one run beyond its numbers."""

    cell: CellResult
    changes: dict[str, Any]
    """Dotted leaf of the recorded parameters to its value here, where it differs from the baseline's run."""
    log: str
    """The end of the newest attempt's log, relative to nothing; empty if there is none."""
    log_file: Path | None
    evidence: tuple[str, ...] = ()
    reached: str = ""
    """How far a run that is not complete has come, e.g. train 512/1000 steps."""
    resources: dict[str, float] = field(default_factory=dict)
    """Of all attempts: cpu_s, gpu_memory_peak, read_bytes, write_bytes; a peak is the largest."""
    started: float | None = None
    """Seconds since 1970, of the first attempt."""


def details(cell: CellResult, baseline: CellResult | None) -> RunDetails:
    """Look into a run's folder. `baseline` is the baseline's run with the same seed."""
    record = _record(cell)
    log_file = _log_file(cell.folder, record)
    diagnosis = _diagnosis(cell)
    return RunDetails(
        cell=cell,
        changes=changes(cell.params, baseline.params if baseline else None),
        log=tail(log_file, LINES.get(cell.state, OTHER_LINES)) if log_file else "",
        log_file=log_file,
        evidence=tuple(diagnosis.evidence) if diagnosis else (),
        reached=_reached(diagnosis),
        resources=_resources(record),
        started=record.attempts[0].started if record and record.attempts else None,
    )


def changes(params: Mapping[str, Any] | None, baseline: Mapping[str, Any] | None) -> dict[str, Any]:
    """Dotted leaves of `params` that differ from the baseline's; one that only the baseline has is null."""
    if params is None or baseline is None:
        return {}
    own, other = dict(_flat(params)), dict(_flat(baseline))
    keys = [*own, *(key for key in other if key not in own)]
    return {key: own.get(key) for key in keys if own.get(key) != other.get(key) and key != "seed"}


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in data.items():
        flat += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return flat


def shown(value: Any) -> str:
    """A parameter as one line of JSON."""
    return json.dumps(value, ensure_ascii=False, default=str)


def tail(path: Path, lines: int) -> str:
    """The last lines of a text file, however long it is; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            begin = max(0, file.tell() - TAIL_BYTES)
            file.seek(begin)
            content = file.read()
    except OSError:
        return ""
    found = content.decode(errors="replace").splitlines()[1 if begin else 0 :][-lines:]
    return "\n".join(line if len(line) <= LINE_CHARACTERS else f"{line[:LINE_CHARACTERS]} ..." for line in found)


def _record(cell: CellResult) -> RunRecord | None:
    if cell.state == MISSING:
        return None
    try:
        return RunFolder(cell.folder).read()
    except DataError:  # its state says so already
        return None


def _log_file(folder: Path, record: RunRecord | None) -> Path | None:
    if record is None or not record.attempts:
        return None
    path = RunFolder(folder).log(record.attempts[-1].number)
    return path if path.is_file() else None


def _diagnosis(cell: CellResult) -> Diagnosis | None:
    """Asked anew only of runs that did not end well: reading their logs takes time."""
    if cell.state in (COMPLETE, MISSING, "queued"):
        return None
    return next(iter(collect(cell.folder)), None)


def _reached(diagnosis: Diagnosis | None) -> str:
    if diagnosis is None or diagnosis.progress.done is None:
        return ""
    count = diagnosis.progress
    text = f"{count.done} {count.unit}" if count.of is None else f"{count.done}/{count.of} {count.unit}"
    return f"{diagnosis.stage or ''} {text}".strip()


def _resources(record: RunRecord | None) -> dict[str, float]:
    if record is None or not record.attempts:
        return {}
    used = [attempt.resources for attempt in record.attempts]
    return {
        "cpu_s": sum(each.cpu_s for each in used),
        "gpu_memory_peak": max(each.gpu_memory_peak or 0 for each in used),
        "read_bytes": sum(each.read_bytes for each in used),
        "write_bytes": sum(each.write_bytes for each in used),
    }
