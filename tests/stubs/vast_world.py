"""The world of the stand-in for vast.ai, tests/stubs/vastai: make one, look at it, and have things go wrong in it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OFFER = {
    "gpu_name": "RTX 4090",
    "num_gpus": 1,
    "reliability": 0.99,
    "disk_space": 200.0,
    "cpu_cores_effective": 16.0,
    "cpu_ram": 64000,
    "storage_cost": 0.0,
    "min_bid": 0.1,
    "rentable": True,
}
FAULTS: dict[str, Any] = {
    "down": False,  # the service does not answer
    "stuck": [],  # machines that never leave `loading`
    "taken": [],  # offers that somebody else has rented meanwhile
    "credit": False,  # there is no money left
    "stopping_s": 0.0,  # how long a machine that is stopped still runs
    "answers_lost": 0,  # of so many requests to rent the answer is lost
    "copies_half": False,  # rsync fails in the middle, and the client says nothing
    "copies_none": False,  # rsync fails at once, and the client says nothing
    "hidden": False,  # no machine is listed
    "refuses_delete": False,  # a machine may not destroy itself
}


class World:
    """Some offers, all of them for different machines. shared: folders that every machine shares with this computer."""

    def __init__(self, folder: Path, offers: dict[int, float], shared: tuple[str, ...] = (), loading_s: float = 0.0):
        self.folder = folder
        folder.mkdir(parents=True)
        made = [
            {**OFFER, "id": number, "machine_id": 10 * number, "dph_base": price} for number, price in offers.items()
        ]
        state = {"offers": made, "instances": [], "paid": 0.0, "last": 7000, "requests": [], "faults": FAULTS}
        (folder / "world.json").write_text(json.dumps({**state, "shared": shared, "loading_s": loading_s}))

    @contextmanager
    def changed(self) -> Iterator[dict[str, Any]]:
        """The state, to be changed while nobody else looks."""
        with (self.folder / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self.state
            yield state
            temporary = self.folder / f".world.test.{os.getpid()}"
            temporary.write_text(json.dumps(state))
            temporary.replace(self.folder / "world.json")

    @property
    def state(self) -> dict[str, Any]:
        """All that there is."""
        found: dict[str, Any] = json.loads((self.folder / "world.json").read_text())
        return found

    @property
    def rented(self) -> list[dict[str, Any]]:
        """The machines that are paid for."""
        return [each for each in self.state["instances"] if each["end_date"] is None]

    @property
    def ever(self) -> list[dict[str, Any]]:
        """All machines that were ever rented, in order."""
        found: list[dict[str, Any]] = self.state["instances"]
        return found

    def fault(self, **what: Any) -> None:
        """Have something go wrong, or right again."""
        with self.changed() as state:
            state["faults"].update(what)

    def change(self, number: int, **what: Any) -> None:
        """Another status, price or label of a machine."""
        with self.changed() as state:
            next(each for each in state["instances"] if each["id"] == number).update(what)

    def vanish(self, number: int) -> None:
        """The machine is gone, and nobody says why."""
        with self.changed() as state:
            next(each for each in state["instances"] if each["id"] == number)["end_date"] = 1.0

    def disk(self, number: int) -> Path:
        """What stands for the machine's root."""
        return self.folder / "disks" / str(number)

    def end(self) -> None:
        """Give everything back, and rent no more: no process is left behind."""
        with self.changed() as state:
            state["offers"] = []
            for each in state["instances"]:
                each["end_date"] = each["end_date"] or 1.0
