"""Complete runs, read once and then remembered: most of a large study is; open it when one is shown out of date.

    FOLDER/.complete.json    what is known of the complete runs below, if they are many

`assay status --watch` looks every other second. What is remembered of a run counts as long as neither its `run.json`
nor its `attempts` folder was written since, which every attempt and every heartbeat does.
"""

import dataclasses
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.files import write_bytes
from assay.runs.diagnose import Count, Diagnosis
from assay.runs.history import until_done
from assay.runs.record import SCHEMA
from assay.runs.store import ATTEMPTS, names

REMEMBERED = ".complete.json"
MANY = 200
"""Fewer runs are read as quickly as remembered."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A complete run. seconds: stage -> wall seconds until it ended well, by time. written: in ns, its last attempt."""

    diagnosis: Diagnosis
    seconds: dict[str, list[float]]
    written: int


class Memory:
    """The complete runs below a folder, as they were when somebody last looked."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / REMEMBERED
        self.found: dict[str, Finished] = {}
        try:
            told = json.loads(self.path.read_bytes())
            self.known = {run: _remembered(each) for run, each in told.items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            self.known = {}

    def read(self, run: Path) -> Finished | None:
        """The run, if its newest attempt ended with 0; None: it did not, or its record needs a closer look."""
        name = str(run)
        known = self.known.get(name)
        if known is None or known.written != _written(run):
            known = read_finished(run)
        if known is not None:
            self.found[name] = known
        return known

    def keep(self) -> None:
        """Remember what was found, if that is much and anything new; a folder that cannot be written is left."""
        if len(self.found) >= MANY and self.found != self.known:
            told = {run: dataclasses.asdict(each) for run, each in self.found.items()}
            with suppress(DataError):
                write_bytes(self.path, json.dumps(told).encode(), durable=False)


def _remembered(told: dict[str, Any]) -> Finished:
    diagnosis = {**told["diagnosis"], "progress": Count(**told["diagnosis"]["progress"])}
    return Finished(diagnosis=Diagnosis(**diagnosis), seconds=told["seconds"], written=told["written"])


def _written(run: Path) -> int:
    """When the run's description, or anything in its folder of attempts, was last written, in ns; -1: never."""
    times = [-1]
    for name in (ATTEMPTS, "run.json"):
        with suppress(OSError):
            times.append(os.stat(run / name).st_mtime_ns)
    return max(times)


def read_finished(run: Path) -> Finished | None:
    """The run, if its newest attempt ended with 0; None: it did not, or its record needs a closer look."""
    folder, written = run / ATTEMPTS, _written(run)  # before it is read: what comes meanwhile is read next time
    try:
        if _is_damaged(run / "run.json"):
            return None
        numbers = sorted(int(name[:-5]) for name in os.listdir(folder) if name.endswith(".json") and name[0] != ".")
        newest = _read(folder, numbers[-1])
        if newest["schema"] != SCHEMA or newest["code"] != 0:
            return None
        attempts = [*(_read(folder, number) for number in numbers[:-1]), newest]
        return Finished(diagnosis=_diagnosis(run, attempts), seconds=_seconds(attempts), written=written)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _is_damaged(description: Path) -> bool:
    """Whether it is there and not what it should be. Raises ValueError or LookupError if it is not even JSON."""
    try:
        return bool(json.loads(description.read_bytes())["schema"] != SCHEMA)
    except FileNotFoundError:
        return False


def _read(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{number:04d}.json").read_bytes())
    return found


def _diagnosis(run: Path, attempts: list[dict[str, Any]]) -> Diagnosis:
    study, arm, seed = names(run)
    newest = attempts[-1]
    here, stages = newest["progress"], newest["stages"]
    last = stages[-1]["stage"] if stages else None
    return Diagnosis(
        study=study,
        arm=arm,
        seed=seed,
        state="complete",
        stage=here["stage"] or last if here else last,
        attempts=len(attempts),
        node=newest["job"]["node"] if newest["job"] else newest["holder"]["host"],
    )


def _seconds(attempts: list[dict[str, Any]]) -> dict[str, list[float]]:
    return until_done(
        (stage["stage"], (stage["ended"] or attempt["ended"] or attempt["heartbeat"]) - stage["started"], stage["code"])
        for attempt in attempts
        for stage in attempt["stages"]
    )
