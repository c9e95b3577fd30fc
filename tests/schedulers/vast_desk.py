"""A repository whose jobs run on rented machines, with tests/stubs/vastai for the service."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.stubs.vast_world import World

from assay.schedulers import Job
from assay.schedulers.config import VastConfig
from assay.schedulers.vast import Vast
from assay.schedulers.vast_keeper import Keeper

STUBS = Path(__file__).parents[1] / "stubs"
WITHIN_S = 60.0
KEY = "user-key-that-nobody-may-see"
CONFIG = VastConfig(image="lab/assay:1", python=sys.executable, pull=1.0, keep=30.0)
HOLD = "while [ ! -e go ]; do sleep 0.1; done"
SAVE_WHEN_ASKED = "trap 'echo saved >>runs/r/state; exit 75' TERM; "


class Unattended(Vast):
    """Its keeper is the test."""

    def wake(self) -> None:
        """Nobody."""


class Desk:
    """A repository with a scheduler, and a world with a service."""

    def __init__(self, folder: Path, world: World) -> None:
        self.folder, self.world = folder, world
        self.kept = folder / ".assay/vast"
        self.run = folder / "runs/r"
        self.run.mkdir(parents=True)

    def scheduler(self, **config: object) -> Vast:
        return Unattended(self.kept, replace(CONFIG, **config))

    def job(self, scheduler: Vast, script: str, **more: object) -> Job:
        command = ["sh", "-c", script]
        files = {"log": self.run / "job.log", "script": self.run / "job.sh"}
        job = Job(name="study-arm-s0", command=command, folder=self.folder, **files, **more)
        job.script.write_text(scheduler.render(job))
        return job

    def submit(self, script: str, attempts: int = 1, **config: object) -> tuple[Vast, str]:
        scheduler = self.scheduler(**config)
        return scheduler, scheduler.submit(self.job(scheduler, script, attempts=attempts))

    def round(self) -> None:
        keeper = Keeper(self.kept, 0.0)
        keeper.round(keeper.jobs())

    def rounds(self, scheduler: Vast, job_id: str, until: Callable[[str], object]) -> str:
        """What is said of the job, once it fits."""
        end = time.monotonic() + WITHIN_S
        while not until(word := scheduler.ledger.rental(job_id).word):
            assert time.monotonic() < end, f"waited {WITHIN_S} s: {word}"
            self.round()
            time.sleep(0.3)
        return word

    def ended(self, scheduler: Vast, job_id: str) -> str:
        return self.rounds(scheduler, job_id, lambda word: scheduler.meaning(word) == "ended")

    def running(self, scheduler: Vast, job_id: str) -> int:
        """The machine's number."""
        return int(self.rounds(scheduler, job_id, lambda word: word.startswith("RUNNING")).split()[1])

    def later(self, scheduler: Vast, job_id: str, seconds: float) -> None:
        """As if the machine had last been as it should be so much earlier."""
        rental = scheduler.ledger.rental(job_id)
        scheduler.ledger.write(job_id, replace(rental, heard=rental.heard - seconds))

    def asleep(self, scheduler: Vast, job_id: str, seconds: float) -> None:
        """As if nobody had looked for so long."""
        rental = scheduler.ledger.rental(job_id)
        times = {name: getattr(rental, name) - seconds for name in ("heard", "counted", "end")}
        scheduler.ledger.write(job_id, replace(rental, **times))

    def go(self, number: int) -> None:
        """On that machine only."""
        (self.world.disk(number) / str(self.folder).lstrip("/") / "go").touch()


def wait_for(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, f"waited {WITHIN_S} s"
        time.sleep(0.1)
