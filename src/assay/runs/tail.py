"""The two ends of a log, read as facts: when it said what, how far it had come; open it when a log is misread."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from assay.runs.record import Progress

HEAD_BYTES, TAIL_BYTES = 16 * 1024, 48 * 1024
"""What is read of a log: enough for the start and the last few hundred lines, and no more however long it is."""
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?) ?")
FROM_SCHEDULER = re.compile(r"slurmstepd: |srun: error: |\bTERM_[A-Z_]+\b")
UNITS = {
    "epoch": "epochs",
    "step": "steps",
    "iteration": "iterations",
    "batch": "batches",
    "file": "files",
    "sample": "samples",
}
COUNT = re.compile(rf"\b({'|'.join(UNITS)})(?:e?s)?\b\W{{0,3}}(\d+)\s*(?:/|of)\s*(\d+)", re.IGNORECASE)
SAVED = re.compile(
    r"\b(?:sav(?:ed?|ing)|wrote)\b.*\b(?:model|weights)|\b(?:model|weights)s?\b.*\bsaved\b", re.IGNORECASE
)
"""A model that can be used is there."""
UNCHANGED = re.compile(r"^Stage '([^']+)' (?:didn't change, skipping|is cached)")
"""DVC's words for a stage whose results are there already."""
PHASES = {
    "train": COUNT,
    "load": re.compile(r"\b(?:pre-?)?load|dataset|\bopening\b|\breading\b", re.IGNORECASE),
    "checkpoint": re.compile(r"\bcheckpoint|\bsaving\b", re.IGNORECASE),
    "validate": re.compile(r"\bvalidat|\bevaluat", re.IGNORECASE),
}
"""What a line that names a phase looks like, in order of precedence."""


class Line(NamedTuple):
    """One line. number: from 1; below zero it counts from the end of a long log, -1 being the last line."""

    number: int
    raw: str

    @property
    def time(self) -> float | None:
        """When it was printed, if it says so."""
        stamp = STAMP.match(self.raw)
        if stamp is None:
            return None
        at = datetime.fromisoformat(stamp[1])
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()

    @property
    def text(self) -> str:
        """What was printed."""
        stamp = STAMP.match(self.raw)
        return self.raw if stamp is None else self.raw[stamp.end() :]

    @property
    def from_scheduler(self) -> bool:
        """Whether the scheduler wrote it, not the run."""
        raw = self.raw  # looking for words first is many times faster than a pattern, for the many lines that have none
        spoken = "slurmstepd" in raw or "srun" in raw or "TERM_" in raw
        return spoken and FROM_SCHEDULER.search(self.text) is not None


def read_ends(path: Path) -> list[Line]:
    """The lines at both ends of a log; none if it cannot be read, for a diagnosis goes on without."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES + TAIL_BYTES)
            size = os.fstat(file.fileno()).st_size
            if size <= len(head):
                return [Line(*line) for line in enumerate(_split(head), 1)]
            file.seek(-TAIL_BYTES, os.SEEK_END)
            tail = _split(file.read(TAIL_BYTES))[1:]
    except OSError:
        return []
    first = [Line(*line) for line in enumerate(_split(head[:HEAD_BYTES])[:-1], 1)]
    return first + [Line(*line) for line in enumerate(tail, -len(tail))]


def _split(raw: bytes) -> list[str]:
    return raw.decode(errors="replace").removesuffix("\n").split("\n") if raw else []


def saved_model(lines: list[Line]) -> Line | None:
    """The last line that says that a model was saved."""
    return next(
        (line for line in reversed(lines) if ("odel" in line.raw or "eights" in line.raw) and SAVED.search(line.text)),
        None,
    )


def unchanged_stages(lines: list[Line]) -> list[str]:
    """The stages that DVC did not run, for they were complete."""
    return [found[1] for line in lines if "Stage '" in line.raw and (found := UNCHANGED.match(line.text))]


def phase(lines: list[Line]) -> str | None:
    """The phase that the last line naming one names."""
    for line in reversed(lines):
        for name, pattern in PHASES.items():
            if not line.from_scheduler and pattern.search(line.text):
                return name
    return None


def progress(lines: list[Line]) -> Progress | None:
    """How far the log says it came, as in `epoch 89/100`, from the first and the last line that counts the same."""
    newest = next(_counts(reversed(lines)), None)
    if newest is None:
        return None
    same = (each for each in _counts(lines) if (each.unit, each.of) == (newest.unit, newest.of))
    oldest = next(same, newest)
    gained = newest.done - oldest.done
    pace = (newest.changed - oldest.changed) / gained if gained > 0 else 0.0
    return dataclasses.replace(newest, since=oldest.changed - (oldest.done if gained > 0 else 0) * pace)


def _counts(lines: Iterable[Line]) -> Iterator[Progress]:
    for line in lines:
        found = COUNT.search(line.text)
        if found is not None and line.time is not None:
            unit = found[1].lower()
            yield Progress(phase="train", done=int(found[2]), of=int(found[3]), unit=UNITS[unit], changed=line.time)
