"""Schedulers: what `assay submit` asks of one, and nothing more; open it to add another.

A job is one command that is safe to give again: it goes on where it was, and ends at once if there is nothing to do.
Exit code 75 says that it is to be given again, 76 that it is, elsewhere: this node is suspect.
tests/contracts/test_scheduler.py is what every scheduler has to pass.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from assay.schedulers.config import ResourcesConfig

Alive = Literal["queued", "running"]
Meaning = Alive | Literal["ended", "unknown"]
ALIVE: frozenset[Meaning] = frozenset({"queued", "running"})
"""What a job means that must not be submitted a second time."""
SUSPECTS = "suspect-nodes"
"""Beside a job's log: the nodes where it ended with 76, one a line."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One command, to be given up to `attempts` times in a row, until it ends neither with 75 nor with 76."""

    name: str
    command: list[str]
    folder: Path
    """Where it is started."""
    log: Path
    """The file that its output is appended to; no other job has it."""
    script: Path
    """Where the rendered job is kept: what will run, for whoever wants to know."""
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    wall_limit: float | None = None
    """How long one attempt may take, in s; None: the scheduler's default."""
    attempts: int = 1
    beside: tuple[str, ...] = ()
    """Of several nodes, what every one but the first runs as long as the command, which tells it when to end."""
    avoid: tuple[str, ...] = ()
    """Nodes that it must not run on."""

    @property
    def token(self) -> str:
        """Names this job among all others of the user, wherever it is in a queue."""
        return token_of(self.script)


def token_of(script: Path) -> str:
    """The token of the job whose script is kept there."""
    return hashlib.sha256(str(script).encode()).hexdigest()[:16]


class Scheduler(ABC):
    """A place that runs jobs."""

    name: str
    """As in a machine file, and in a record of a job."""

    @abstractmethod
    def render(self, job: Job) -> str:
        """The job as text, complete and in the scheduler's own words; touches nothing."""

    @abstractmethod
    def submit_all(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Hand over what `render` says of each; yields the ids in the order of the jobs, as they are accepted.

        An id is one that no other job here ever has. The scripts must have been written before.

        Raises:
            SchedulerError: one was refused, or nobody answers; those whose ids were yielded are accepted.
        """

    @abstractmethod
    def states(self, ids: Collection[str], insist: bool = False) -> dict[str, str]:
        """The scheduler's own words for each job, unchanged; a job that it does not know is left out.

        Where asking costs somebody something, an answer is good for a while. insist: a silence is not, ask again.

        Raises:
            SilentError: nobody answers.
        """

    @abstractmethod
    def meaning(self, word: str) -> Meaning:
        """What such a word means; one that is not known is `unknown`, never guessed."""

    @abstractmethod
    def cancel(self, *ids: str) -> None:
        """Have jobs ended, asked first if they run; what has ended or is not known stays as it is."""

    def submit(self, job: Job) -> str:
        """One job."""
        (job_id,) = self.submit_all([job])
        return job_id

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        """What the scheduler will be handed for these jobs, in order; touches nothing."""
        return [self.render(job) for job in jobs]

    def find(self, scripts: Collection[Path]) -> dict[Path, str]:
        """Script -> id of those whose jobs are queued or running: whoever submitted them may have died before it knew.

        Raises:
            SchedulerError: nobody answers.
        """
        tokens = {token_of(script): script for script in scripts}
        return {tokens[token]: job_id for token, job_id in self.alive().items() if token in tokens} if tokens else {}

    def alive(self) -> dict[str, str]:
        """Token -> id of every job that is queued or running; asks now."""
        return {}

    def unavailable(self, job: Job) -> list[str]:
        """Why such a job cannot be run from here, each reason with its fix; empty if it can."""
        return []
