"""The pool of the scheduler `local`: starts jobs in the order they came, some at a time; open it when one is not run.

    python -m assay.schedulers.pool FOLDER

It ends a while after its last job. If it is killed, its jobs are asked to stop; whoever submits next starts another.
"""

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from assay.errors import AssayError, DataError, SchedulerError
from assay.progress import UNFINISHED
from assay.runs.gpus import visible_gpus
from assay.runs.processes import set_parent_death_signal, start_ticks
from assay.schedulers.local import (
    State,
    claimed,
    is_cancelled,
    job_ids,
    lives,
    read_job,
    read_state,
    write_state,
)

POLL_S = 0.1
LINGER_S = 2.0
"""How long an idle pool waits for more: a start takes a quarter of a second."""
LOOK_S = 1.0
"""How long the lock may be held by somebody who only looks whether there is a pool."""
AGAIN = 3
"""How often in a row a job is started again that ends with 75 although it got nowhere."""
NOWHERE_S = 5.0
"""A job that ends with 75 sooner than this has not got anywhere."""
PAUSE_S = 10.0
"""How long nothing is started where the computer could not start something."""
MTIME_S = 3.0
"""A folder's time may stay the same for so long although its content changes: 2 s on FAT, 1 s on old servers."""
OWN_FAULTS = (
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.ENOEXEC,
    errno.E2BIG,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""Why a job cannot be started later either; anything else is the computer's, and passes: no process, memory, room."""


@dataclass
class Running:
    """A job's process. nowhere: how often in a row it ended with 75 without having got anywhere."""

    process: "subprocess.Popen[bytes]"
    started: float
    gpus: Sequence[str] = ()
    nowhere: int = 0
    asked: bool = False


class Pool:
    """The jobs of a folder. Only the process that holds the folder's lock may make one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, Running] = {}
        self.done: set[str] = set()
        self.orphans: dict[str, State] = {}
        self.gpus: list[str] = []
        self.trouble = ""
        self.pause_until = 0.0
        self.listed: list[str] = []
        self.changed_ns, self.changed_at, self.listed_at = 0, 0.0, 0.0
        for job_id in job_ids(folder):
            self._take_over(job_id)

    def work(self) -> None:
        """Until there has been nothing to do for a while."""
        idle_since = time.monotonic()
        while time.monotonic() - idle_since < LINGER_S:
            self._look_after()
            if self.running or self.orphans or self._pauses():
                idle_since = time.monotonic()
            time.sleep(POLL_S)

    def _look_after(self) -> None:
        """A full disk, or one that is away, is no reason to end what runs: what cannot be kept now is kept later."""
        try:
            self._bury()
            self._collect()
            self._start()
        except (DataError, OSError) as error:
            self._complain(str(error))

    def waiting(self) -> list[str]:
        """Jobs not yet begun, in the order they came; the folder, which may be long, is listed after changes only."""
        now = time.monotonic()
        with suppress(OSError):  # a server that is away for a moment tells nothing new
            changed_ns = self.folder.stat().st_mtime_ns
            if changed_ns != self.changed_ns:
                self.changed_ns, self.changed_at = changed_ns, now
            if self.listed_at <= self.changed_at + MTIME_S:
                self.listed, self.listed_at = job_ids(self.folder), now
        self.listed = [each for each in self.listed if each not in self.done and each not in self.running]
        return self.listed

    def _take_over(self, job_id: str) -> None:
        """What an earlier pool left: its words stand, and what it did not see the end of is an orphan.

        A job whose words cannot be read was started once, and is not started a second time.
        """
        try:
            state = read_state(self.folder, job_id)
        except AssayError as error:
            self._say(f"{job_id} is left alone: {error}")
            self.done.add(job_id)
            return
        if state.word == "QUEUED":
            return
        self.done.add(job_id)
        if state.pid:
            self.orphans[job_id] = state

    def _start(self) -> None:
        """Fill the free places; while there are none the queue is not even looked at, for it may be long."""
        free = 0 if self._pauses() else self._jobs() - len(self.running) - len(self.orphans)
        for job_id in self.waiting() if free > 0 else []:
            if is_cancelled(self.folder, job_id):
                self._end(job_id, "CANCELLED")
            elif free > 0 and not self._pauses():
                free -= 1
                self._launch(job_id, 0, None)

    def _jobs(self) -> int:
        with suppress(OSError, ValueError):
            return int((self.folder / "jobs").read_text())
        return 1

    def _least_used(self, count: int) -> list[str]:
        """The GPUs that fewest jobs have.

        Raises:
            SchedulerError: there are not so many now, though there were when the job was submitted.
        """
        if len(self.gpus) < count:  # the driver is asked for the first job that wants some
            self.gpus = visible_gpus()
        if len(self.gpus) < count:
            raise SchedulerError(f"got {len(self.gpus)} GPUs; allowed: at least {count}; see what nvidia-smi says")
        held = [*(job.gpus for job in self.running.values()), *(state.gpus for state in self.orphans.values())]
        taken = Counter(chain.from_iterable(held))
        return sorted(self.gpus, key=lambda gpu: taken[gpu])[:count]

    def _launch(self, job_id: str, nowhere: int, gpus: Sequence[str] | None) -> None:
        """gpus: those that it had before."""
        try:
            job = read_job(self.folder, job_id)
            gpus = self._least_used(job.resources.gpus) if gpus is None else gpus
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                process = subprocess.Popen(
                    job.command,
                    cwd=job.folder,
                    env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else None,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
                )
        except (OSError, AssayError) as error:
            self._not_started(job_id, error)
            return
        self._say(f"{job_id} {job.name} started as {process.pid}{' with ' if gpus else ''}{','.join(gpus)}")
        self.running[job_id] = Running(process, time.monotonic(), gpus, nowhere)
        self.trouble = ""
        began = start_ticks(process.pid) or 0
        write_state(self.folder, job_id, State(word="RUNNING", pid=process.pid, start_ticks=began, gpus=gpus))

    def _not_started(self, job_id: str, error: OSError | AssayError) -> None:
        """What is the job's own fault ends it; for anything else it stays where it is, and is tried again."""
        if isinstance(error, DataError) or (isinstance(error, OSError) and error.errno in OWN_FAULTS):
            self._say(f"{job_id} cannot be started: {error}")
            self._end(job_id, "EXIT 127")
            return
        self.pause_until = time.monotonic() + PAUSE_S
        self._complain(f"{job_id} cannot be started now, and stays in the queue: {error}")

    def _pauses(self) -> bool:
        return time.monotonic() < self.pause_until

    def _bury(self) -> None:
        """Jobs whose pool was killed were asked to stop by its death; they are lost once they have."""
        for job_id, state in list(self.orphans.items()):
            if not lives(state):
                self._end(job_id, "LOST")
                del self.orphans[job_id]

    def _collect(self) -> None:
        for job_id, job in list(self.running.items()):
            cancelled = is_cancelled(self.folder, job_id)
            code = job.process.poll()
            if code is None:
                if cancelled and not job.asked:
                    job.asked = True
                    job.process.send_signal(signal.SIGINT)
                continue
            if cancelled:
                self._end(job_id, "CANCELLED")
            elif code == UNFINISHED:
                if not self._pauses():
                    self._again(job_id, job)
            else:
                self._end(job_id, f"EXIT {code}")

    def _again(self, job_id: str, job: Running) -> None:
        nowhere = job.nowhere + 1 if time.monotonic() - job.started < NOWHERE_S else 0
        if nowhere > AGAIN:
            self._end(job_id, f"GIVEN UP: ended with {UNFINISHED} {nowhere} times within {NOWHERE_S:g} s")
        else:
            self._say(f"{job_id} ended with {UNFINISHED}")
            self._launch(job_id, nowhere, job.gpus)

    def _end(self, job_id: str, word: str) -> None:
        write_state(self.folder, job_id, State(word=word))
        self.done.add(job_id)
        self.running.pop(job_id, None)
        self._say(f"{job_id} ended: {word}")

    def _complain(self, text: str) -> None:
        """Once, however often it is met in a row."""
        if text != self.trouble:
            self._say(text)
        self.trouble = text

    def _say(self, text: str) -> None:
        with suppress(OSError):
            print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, flush=True)


def main(folder: Path) -> int:
    """Work off what is there; a job that came while the lock was being let go of is not forgotten."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while True:
        with claimed(folder, LOOK_S) as mine:
            if not mine:
                return 0
            pool = Pool(folder)
            pool.work()
        if not pool.waiting():
            return 0


def detach() -> None:
    """Go on as an orphan, so that whoever started this has nothing to wait for."""
    if os.fork():
        os._exit(0)


if __name__ == "__main__":
    detach()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's `&` has it ignored, but jobs are cancelled by it
    sys.exit(main(Path(sys.argv[1])))
