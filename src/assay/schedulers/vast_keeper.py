"""The keeper of rented machines: a process in the background here; open it when one is rented and nothing happens.

    python -m assay.schedulers.vast_keeper FOLDER POLL_S

It rents, sends, fetches and gives back until no job is left. If it is killed, or this computer is off, the machines
look after themselves, see vast_machine.py; the next `assay submit` or `assay status` starts another keeper.
"""

import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from assay.errors import AssayError, DataError, SchedulerError
from assay.schedulers.local import claimed
from assay.schedulers.pool import LOOK_S, detach
from assay.schedulers.vast_client import Client, Instance, clean
from assay.schedulers.vast_jobs import Ledger, Rental, is_for, is_ours
from assay.schedulers.vast_steps import Steps, Work

LONGEST_S = 480.0
"""Of questions that were not answered, each makes the next wait twice as long, up to this."""


class Keeper:
    """The jobs of a folder. Only the process that holds the folder's lock may make one."""

    def __init__(self, folder: Path, poll_s: float) -> None:
        self.ledger = Ledger(folder)
        self.poll_s = poll_s
        self.steps = Steps(self.ledger, poll_s, say)
        self.silences = 0
        self.ended: set[str] = set()
        self.damaged: set[str] = set()
        self.complaints: set[str] = set()

    def work(self) -> None:
        """Until no job is left that can be worked on."""
        while jobs := self.jobs():
            try:
                self.round(jobs)
            except (AssayError, OSError) as error:  # a full disk; the machines are still there to be given back
                say(clean(str(error)))
            time.sleep(min(self.poll_s * 2**self.silences, max(LONGEST_S, self.poll_s)))

    def round(self, jobs: dict[str, Rental]) -> None:
        """One look at the service, and a step for each job; nothing at all while it is silent."""
        works = {job_id: work for job_id in jobs if (work := self._work_of(job_id)) is not None}
        if not works:
            return
        instances = self._instances(sorted({work.ticket.config.client for work in works.values()}))
        if instances is None:
            return
        self.steps.labels = {each.label for each in jobs.values()}
        self._give_back_strays(works, jobs, instances)
        config = next(reversed(works.values())).ticket.config
        taken = sum(1 for each in jobs.values() if each.instance or each.doubtful)
        self.steps.free = config.machines - taken - self._taken_unseen(instances)
        for job_id, work in works.items():
            rental = jobs[job_id]
            try:
                after = self.steps.step(work, rental, instances)
                if after != rental:
                    self.ledger.write(job_id, after)
            except (AssayError, OSError) as error:
                say(f"{job_id}: {clean(str(error))}")

    def _give_back_strays(self, works: dict[str, Work], jobs: dict[str, Rental], instances: list[Instance]) -> None:
        """What was rented for a job after all when that had been given up: nothing will be sent there."""
        for each in filter(is_ours, instances):
            _, token, job_id, _ = each.label.split("-")
            if (
                job_id in works
                and works[job_id].ticket.job.token == token
                and jobs[job_id].instance not in (0, each.id)
            ):
                say(f"{job_id} gives {each.id} back, which it does not use")
                with suppress(SchedulerError):
                    Client(works[job_id].ticket.config.client).destroy(each.id)

    def jobs(self) -> dict[str, Rental]:
        """Those that have not ended; one whose state cannot be read is left alone, for it may have a machine."""
        found: dict[str, Rental] = {}
        self.damaged = set()
        for job_id in self.ledger.ids():
            if job_id not in self.ended:
                try:
                    found[job_id] = self.ledger.rental(job_id)
                except DataError as error:
                    self.damaged.add(job_id)
                    self._complain(str(error))
        self.ended |= {job_id for job_id, rental in found.items() if rental.has_ended}
        return {job_id: rental for job_id, rental in found.items() if not rental.has_ended}

    def _taken_unseen(self, instances: list[Instance]) -> int:
        """How many machines are rented for jobs whose state cannot be read, by their labels."""
        works = [work for job_id in self.damaged if (work := self._work_of(job_id)) is not None]
        tokens = {work.ticket.job.token for work in works}
        unseen = (each for each in instances if each.label not in self.steps.labels)
        return sum(1 for each in unseen if any(is_for(each, token) for token in tokens))

    def _work_of(self, job_id: str) -> Work | None:
        """None: its file is damaged, which is no reason to leave the others alone."""
        try:
            return Work(id=job_id, ticket=self.ledger.ticket(job_id), cancelled=self.ledger.is_cancelled(job_id))
        except DataError as error:
            self._complain(str(error))
            return None

    def _complain(self, text: str) -> None:
        """Once, however often it is met."""
        if text not in self.complaints:
            say(text)
        self.complaints.add(text)

    def _instances(self, programs: list[str]) -> list[Instance] | None:
        """What is paid for; None: the service is silent."""
        try:
            found = [each for program in programs for each in Client(program).instances()]
        except SchedulerError as error:
            self.silences = min(self.silences + 1, 10)
            self.ledger.note_silence(str(error))
            say(str(error))
            return None
        self.silences = 0
        self.ledger.note_instances(found, time.time())
        return found


def say(text: str) -> None:
    """A line of keeper.log, if there is room for it."""
    with suppress(OSError):
        print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, flush=True)


def main(folder: Path, poll_s: float) -> int:
    """Look after what is there; a job that came while the lock was being let go of is not forgotten."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    while True:
        with claimed(folder, LOOK_S) as mine:
            if not mine:
                return 0
            keeper = Keeper(folder, poll_s)
            keeper.work()
        if not keeper.jobs():
            return 0


if __name__ == "__main__":
    detach()
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
