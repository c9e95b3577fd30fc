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
from assay.schedulers.pool import detach
from assay.schedulers.vast_client import Client, Instance, clean
from assay.schedulers.vast_jobs import Ledger, Rental, is_ours
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

    def work(self) -> None:
        """Until no job is left."""
        while jobs := self._open():
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
        self.steps.free = config.machines - sum(1 for each in jobs.values() if each.instance or each.doubtful)
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

    def _open(self) -> dict[str, Rental]:
        found = {job_id: self.ledger.rental(job_id) for job_id in self.ledger.ids() if job_id not in self.ended}
        self.ended |= {job_id for job_id, rental in found.items() if rental.has_ended}
        return {job_id: rental for job_id, rental in found.items() if not rental.has_ended}

    def _work_of(self, job_id: str) -> Work | None:
        """None: its file is damaged, which is no reason to leave the others alone."""
        try:
            return Work(id=job_id, ticket=self.ledger.ticket(job_id), cancelled=self.ledger.is_cancelled(job_id))
        except DataError as error:
            say(str(error))
            return None

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
        with claimed(folder) as mine:
            if not mine:
                return 0
            Keeper(folder, poll_s).work()
        if not Ledger(folder).open_ids():
            return 0


if __name__ == "__main__":
    detach()
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
