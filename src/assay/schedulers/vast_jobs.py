"""What is kept of jobs on rented machines; open it to see what outlives this computer's restart.

FOLDER/NNNNNN.json     a job with the machine section it was submitted with; a copy lies beside its script
FOLDER/NNNNNN.state    its machine and what it has cost, written by the keeper alone
FOLDER/NNNNNN.cancel   somebody wants its end
FOLDER/instances.json  what is paid for, as the service said last
FOLDER/silent          why the service does not answer; not there while it does
FOLDER/lock            held by the one living keeper
FOLDER/keeper.log      what the keeper did
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.files import write_bytes
from assay.schedulers import ALIVE, Job, Meaning
from assay.schedulers.config import ResourcesConfig, VastConfig
from assay.schedulers.local import job_ids
from assay.schedulers.vast_client import Instance

LABEL = "assay-"
"""Begins the label of every machine that assay rents: assay-TOKEN-JOB-TRY."""
COPY = "vast.json"
"""Beside a job's script: the job again, for when the repository's records are lost."""
MEANINGS: dict[str, Meaning] = {
    **dict.fromkeys(("QUEUED", "RENTING", "LOADING"), "queued"),
    **dict.fromkeys(("RUNNING", "OUTBID", "SILENT", "RETURNING"), "running"),
    **dict.fromkeys(("EXIT", "CANCELLED", "CAPPED", "GIVEN"), "ended"),
}
"""First words for a job. RETURNING: it has ended, and its machine is being given back."""


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """A job as submitted. bundle: the repository's last commit, below the folder; none where there is no repository."""

    job: Job
    config: VastConfig
    bundle: str = ""


@dataclass(frozen=True, kw_only=True)
class Rental:
    """What has become of a job. Times are in s since 1970, money in dollars.

    ending: the word once the machine is given back. heard: when the machine was last as it should be. doubtful: when a
    request to rent was not answered. end: when the machine gives itself back. counted: until when the cost is counted,
    which is the last look at it. missed: how often since then the service has not listed it.
    """

    word: str = "QUEUED"
    ending: str = ""
    instance: int = 0
    machine: int = 0
    label: str = ""
    price: float = 0.0
    heard: float = 0.0
    doubtful: float = 0.0
    sent: bool = False
    started: bool = False
    asked: float = 0.0
    end: float = 0.0
    counted: float = 0.0
    missed: int = 0
    cost: float = 0.0
    tries: int = 0
    avoid: tuple[int, ...] = ()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to do, or to pay for."""
        return meaning(self.word) not in ALIVE


def meaning(word: str) -> Meaning:
    """What such a word means; the first one counts."""
    return MEANINGS.get(word.partition(" ")[0], "unknown")


def label_of(token: str, job_id: str, tries: int) -> str:
    """Names one rental among all of this key."""
    return f"{LABEL}{token}-{job_id}-{tries}"


class Ledger:
    """The records of a repository's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def create(self, ticket: Ticket, rental: Rental | None = None) -> str:
        """Keep a new job; its id."""
        content = json.dumps(dataclasses.asdict(ticket), indent=1, default=str).encode()
        self.folder.mkdir(parents=True, exist_ok=True)
        number = max((int(each) for each in job_ids(self.folder)), default=0)
        whole = self.folder / f".{os.getpid()}.new"
        whole.write_bytes(content)
        while True:
            number += 1
            try:
                os.link(whole, self.folder / f"{number:06d}.json")  # as one step: nobody reads half of a job
            except FileExistsError:
                continue
            break
        whole.unlink()
        job_id = f"{number:06d}"
        if rental is not None:
            self.write(job_id, rental)
        write_bytes(ticket.job.script.with_name(COPY), content)
        return job_id

    def ids(self) -> list[str]:
        """All jobs, in the order they came."""
        return job_ids(self.folder) if self.folder.is_dir() else []

    def open_ids(self) -> list[str]:
        """Those that have not ended, in the order they came."""
        return [job_id for job_id in self.ids() if not self.rental(job_id).has_ended]

    def ticket(self, job_id: str) -> Ticket:
        """A job as submitted.

        Raises:
            DataError: its file is damaged.
        """
        return read_ticket(self.folder / f"{job_id}.json")

    def rental(self, job_id: str) -> Rental:
        """What has become of a job.

        Raises:
            DataError: the file is damaged.
        """
        path = self.folder / f"{job_id}.state"
        if not path.exists():
            return Rental()
        with _read(path) as told:
            return Rental(**{**told, "avoid": tuple(told["avoid"])})

    def write(self, job_id: str, rental: Rental) -> None:
        """Replace what is said of a job; after this it is remembered through a power failure."""
        write_bytes(self.folder / f"{job_id}.state", json.dumps(dataclasses.asdict(rental)).encode())

    def cancel(self, job_id: str) -> None:
        """Somebody wants its end."""
        (self.folder / f"{job_id}.cancel").touch()

    def is_cancelled(self, job_id: str) -> bool:
        """Whether somebody does."""
        return (self.folder / f"{job_id}.cancel").exists()

    def note_instances(self, instances: Sequence[Instance], now: float) -> None:
        """What is paid for, for those who only want to show it."""
        told = {"asked": now, "instances": [dataclasses.asdict(each) for each in instances]}
        write_bytes(self.folder / "instances.json", json.dumps(told).encode())
        (self.folder / "silent").unlink(missing_ok=True)

    def noted_instances(self) -> tuple[float, list[Instance]]:
        """When the service was last asked, and what it said; 0 and nothing if never, or if that cannot be read."""
        with suppress(DataError), _read(self.folder / "instances.json") as told:
            return float(told["asked"]), [Instance(**each) for each in told["instances"]]
        return 0.0, []

    def note_silence(self, why: str) -> None:
        """The service does not answer."""
        write_bytes(self.folder / "silent", f"{why}\n".encode())

    def silence(self) -> str:
        """Why it does not; empty while it does."""
        with suppress(FileNotFoundError):
            return (self.folder / "silent").read_text().strip()
        return ""

    def restore(self, scripts: Iterable[Path], instances: Iterable[Instance]) -> None:
        """Keep those jobs again that are on rented machines, by their labels, but not in these records."""
        known = {self.ticket(job_id).job.token for job_id in self.open_ids()}
        ours = {each.label.split("-")[1]: each for each in instances if is_ours(each)}
        lost = {token: each for token, each in ours.items() if token not in known}
        for script in scripts if lost else []:
            copy = script.with_name(COPY)
            if copy.exists() and (ticket := read_ticket(copy)).job.token in lost:
                each = lost[ticket.job.token]
                self.create(ticket, adopted(Rental(), each))


def adopted(rental: Rental, instance: Instance) -> Rental:
    """A job with a machine that was rented for it, and that its records do not know."""
    found = dataclasses.replace(
        rental, instance=instance.id, machine=instance.machine, label=instance.label, doubtful=0.0
    )
    times = dataclasses.replace(found, heard=time.time(), counted=instance.started, tries=rental.tries + 1)
    sent = instance.wanted == "stopped"  # by itself, after its job: what is there is to be fetched
    return dataclasses.replace(times, price=instance.price, sent=sent, word=f"LOADING {instance.id}")


def is_ours(instance: Instance) -> bool:
    """Whether assay rented it, from whatever repository or computer."""
    return instance.label.startswith(LABEL) and instance.label.count("-") == 3


def is_for(instance: Instance, token: str) -> bool:
    """Whether assay rented it for the job of that token."""
    return is_ours(instance) and instance.label.split("-")[1] == token


def read_ticket(path: Path) -> Ticket:
    """A job as submitted.

    Raises:
        DataError: the file is damaged.
    """
    with _read(path) as told:
        job, config = told["job"], told["config"]
        paths = {key: Path(job[key]) for key in ("folder", "log", "script")}
        resources = ResourcesConfig(**job["resources"])
        lists = {key: tuple(config[key]) for key in ("send", "fetch", "options")}
        return Ticket(
            job=Job(**{**job, **paths, "resources": resources, "avoid": tuple(job["avoid"])}),
            config=VastConfig(**{**config, **lists}),
            bundle=told["bundle"],
        )


@contextmanager
def _read(path: Path) -> Iterator[dict[str, Any]]:
    """What a file says; what it ought to say and does not is damage too."""
    try:
        yield json.loads(path.read_text())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error!r}); see what is rented with assay stop, then remove it") from None
