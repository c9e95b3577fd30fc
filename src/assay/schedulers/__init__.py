"""Schedulers: what `assay submit` asks of one, and nothing more; open it to add another.

A job is one command that is safe to give again: it goes on where it was, and ends at once if there is nothing to do.
Exit code 75 says that it is to be given again. tests/contracts/test_scheduler.py is what every scheduler has to pass.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Meaning = Literal["queued", "running", "ended", "unknown"]
ALIVE: frozenset[Meaning] = frozenset({"queued", "running"})
"""What a job means that must not be submitted a second time."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command. log: the file that its output is appended to."""

    name: str
    command: list[str]
    folder: Path
    """Where it is started."""
    log: Path


class Scheduler(Protocol):
    """A place that runs jobs."""

    name: str
    """As in a record of a job."""

    def submit(self, job: Job) -> str:
        """Take a job; returns its id, which no other job here ever has."""
        ...

    def states(self, ids: Collection[str]) -> dict[str, str]:
        """The scheduler's own words for each job, unchanged; a job that it does not know is left out."""
        ...

    def meaning(self, word: str) -> Meaning:
        """What such a word means; one that is not known is `unknown`, never guessed."""
        ...

    def cancel(self, job_id: str) -> None:
        """Have a job ended, asked first if it runs; one that has ended or is not known stays as it is."""
        ...
