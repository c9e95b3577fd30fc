"""This computer as a scheduler: jobs are files in a folder that a pool in the background works off.

FOLDER/NNNNNN.json     a job, as submitted
FOLDER/NNNNNN.state    what has become of it, written by the pool alone
FOLDER/NNNNNN.cancel   somebody wants its end
FOLDER/jobs            how many may run at a time
FOLDER/lock            held by the one living pool; the kernel lets go of it whatever way that pool ends
FOLDER/pool.log        what the pool did
"""

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import DataError, SchedulerError
from assay.files import write_bytes
from assay.runs.gpus import visible_gpus
from assay.runs.processes import start_ticks
from assay.schedulers import ALIVE, Job, Meaning, Scheduler
from assay.schedulers.config import ResourcesConfig
from assay.schedulers.locks import is_held, locked

MEANINGS: dict[str, Meaning] = {"QUEUED": "queued", "RUNNING": "running"}
ENDED = ("EXIT", "CANCELLED", "LOST", "GIVEN")
"""First words for a job that will not go on: its exit code, cancelled, its pool killed, given up."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What the pool says of a job. start_ticks tells its process from a later one of the same number."""

    word: str
    pid: int = 0
    start_ticks: int = 0
    gpus: Sequence[str] = ()
    """Ids of those that it was given."""


class Local(Scheduler):
    """A bounded pool in a detached process; one for each folder. jobs: how many may run at a time.

    gives_gpus: whether jobs that ask for GPUs mean those of this computer.
    """

    name = "local"

    def __init__(self, folder: Path, jobs: int = 1, gives_gpus: bool = True) -> None:
        self.folder = folder.absolute()
        self.jobs, self.gives_gpus = jobs, gives_gpus
        self._last = 0

    def render(self, job: Job) -> str:
        """What the pool does, as a person would; again and again while it ends with 75."""
        here, gpus = f"cd {shlex.quote(str(job.folder))}", self._gpus(job)
        given = f"# CUDA_VISIBLE_DEVICES: {gpus} of this computer, those that fewest other jobs have\n" if gpus else ""
        return f"#!/bin/sh\n{given}{here} && exec {shlex.join(job.command)} >>{shlex.quote(str(job.log))} 2>&1\n"

    def submit_all(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Put jobs into the queue, and start a pool if none lives, with the first one and again after the last.

        Without any, for what a pool that was killed has left in the queue.
        """
        if not jobs and "QUEUED" in self.states(job_ids(self.folder)).values():
            self.wake()
        if jobs:
            if reasons := self.unavailable(max(jobs, key=self._gpus)):
                raise SchedulerError(reasons[0])
            write_bytes(self.folder / "jobs", f"{self.jobs}\n".encode())
        for number, job in enumerate(jobs):
            job_id = self._create(job)
            if number in (0, len(jobs) - 1):
                self.wake()
            yield job_id

    def wake(self) -> None:
        """Start the pool unless one lives; it outlives this process and its terminal."""
        if self.has_pool():
            return
        with (self.folder / "pool.log").open("ab") as log:
            subprocess.run(
                [sys.executable, "-m", "assay.schedulers.pool", str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                check=True,
            )

    def has_pool(self) -> bool:
        """Whether a pool lives."""
        return is_held(lock_of(self.folder))

    def states(self, ids: Collection[str], insist: bool = False) -> dict[str, str]:
        """QUEUED, RUNNING PID, EXIT CODE, CANCELLED, LOST (its pool was killed), or GIVEN UP."""
        known = [each for each in ids if (self.folder / f"{each}.json").is_file()]
        return {each: self._word(each) for each in known}

    def meaning(self, word: str) -> Meaning:
        """What such a word means."""
        first = word.partition(" ")[0]
        return MEANINGS.get(first, "ended" if first in ENDED else "unknown")

    def cancel(self, *ids: str) -> None:
        """Ask for the end of jobs; the pool does it, or has nothing to do where none lives."""
        for job_id in self.states(ids):
            (self.folder / f"{job_id}.cancel").touch()

    def alive(self) -> dict[str, str]:
        """By the script's place, in the job's file."""
        words = self.states(job_ids(self.folder))
        alive = [job_id for job_id, word in words.items() if self.meaning(word) in ALIVE]
        return {read_job(self.folder, job_id).token: job_id for job_id in alive}

    def unavailable(self, job: Job) -> list[str]:
        """That it asks for more GPUs than there are."""
        asked = self._gpus(job)
        there = len(visible_gpus()) if asked else 0
        allowed = f"<= {there}, the GPUs that this computer shows" if there else "0, as no GPU was found here"
        given = f"resources.gpus: got {asked}; allowed: {allowed}"
        return [f"{given}; lower it, or see what nvidia-smi says"] if asked > there else []

    def _gpus(self, job: Job) -> int:
        return job.resources.gpus if self.gives_gpus else 0

    def _word(self, job_id: str) -> str:
        state = read_state(self.folder, job_id)
        if state.word == "QUEUED" and is_cancelled(self.folder, job_id):
            return "CANCELLED"
        if state.pid and not lives(state):
            # the pool has seen its end and is about to say so, or was killed
            state = read_state(self.folder, job_id)
            return state.word if not state.pid or self.has_pool() else "LOST"
        return f"{state.word} {state.pid}" if state.pid else state.word

    def _create(self, job: Job) -> str:
        places = {"folder": str(job.folder), "log": str(job.log), "script": str(job.script)}
        content = json.dumps({"name": job.name, "command": job.command, **places, "gpus": self._gpus(job)}, indent=1)
        self._last = self._last or max((int(each) for each in job_ids(self.folder)), default=0)
        while True:
            self._last += 1
            whole = self.folder / f".{os.getpid()}.{self._last}.new"
            whole.write_text(content)  # no fsync: a job that a power failure takes is missing, and submitted again
            try:
                os.link(whole, self.folder / f"{self._last:06d}.json")  # as one step: a pool reads no half of a job
            except FileExistsError:
                continue
            finally:
                whole.unlink()
            return f"{self._last:06d}"


def claimed(folder: Path, within_s: float = 0.0) -> AbstractContextManager[bool]:
    """Hold the lock of the pool within; False: another has held it for so long."""
    return locked(lock_of(folder), within_s)


def lock_of(folder: Path) -> Path:
    """The file whose lock the one living pool holds."""
    return folder / "lock"


def job_ids(folder: Path) -> list[str]:
    """All jobs, in the order they came."""
    return sorted(path.stem for path in folder.glob("[0-9]*.json"))


def read_job(folder: Path, job_id: str) -> Job:
    """A job as submitted.

    Raises:
        DataError: its file is damaged.
        SchedulerError: it cannot be read now.
    """
    with _read(folder / f"{job_id}.json") as told:
        where, log, script = (Path(told[key]) for key in ("folder", "log", "script"))
        asked = ResourcesConfig(gpus=told.get("gpus", 0))  # an older version has put none
        return Job(name=told["name"], command=told["command"], folder=where, log=log, script=script, resources=asked)


def read_state(folder: Path, job_id: str) -> State:
    """What the pool said last; QUEUED if it has said nothing.

    Raises:
        DataError: the file is damaged.
        SchedulerError: it cannot be read now.
    """
    path = folder / f"{job_id}.state"
    if not path.exists():
        return State(word="QUEUED")
    with _read(path) as told:
        return State(**told)


def write_state(folder: Path, job_id: str, state: State) -> None:
    """Replace what is said of a job."""
    write_bytes(folder / f"{job_id}.state", json.dumps(dataclasses.asdict(state)).encode())


def is_cancelled(folder: Path, job_id: str) -> bool:
    """Whether somebody wants its end."""
    return (folder / f"{job_id}.cancel").exists()


def lives(state: State) -> bool:
    """Whether the process of a running job still runs."""
    return state.pid > 0 and start_ticks(state.pid) == state.start_ticks


@contextmanager
def _read(path: Path) -> Iterator[dict[str, Any]]:
    """What a file says; what it ought to say and does not is damage too."""
    try:
        yield json.loads(path.read_text())
    except OSError as error:
        raise SchedulerError(f"{path}: cannot be read ({error.strerror}); give the command again") from error
    except ValueError:
        raise DataError(f"{path}: not valid JSON; remove it and submit again") from None
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); remove it and submit again") from None
