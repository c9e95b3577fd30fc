"""Which machines are paid for now, and how one is given back without further ado; open it if one is forgotten.

Every machine that assay rents has a label that begins with `assay-`, so they are found without any records. Records
only tell the names of jobs, and which are to get no other machine; what cannot be read of them is said, and left out.
"""

import time
from contextlib import suppress
from pathlib import Path

from assay.errors import ConfigError, DataError, SchedulerError
from assay.schedulers.config import VastConfig
from assay.schedulers.vast_client import Client, Instance
from assay.schedulers.vast_cost import STOPPED
from assay.schedulers.vast_jobs import Ledger, is_for, is_ours

KEPT = Path(".assay/vast")
FRESH_S = 60.0
"""How old what the service said may be, for a look."""


def ledger_around(folder: Path) -> Ledger:
    """That of the repository around a folder, if it has rented anything."""
    around = (each for each in (folder, *folder.parents) if (each / KEPT).is_dir())
    return Ledger(next(around, folder) / KEPT)


def client_of(ledger: Ledger) -> Client:
    """As the machine file of the newest job has it that can be read."""
    for job_id in reversed(ledger.ids()):
        with suppress(DataError):
            return Client(ledger.ticket(job_id).config.client)
    return Client(VastConfig().client)


def paid_for(repository: Path) -> list[str]:
    """Lines on what is paid for now, for `assay status`; nothing where nothing was ever rented from this repository."""
    ledger = Ledger(repository / KEPT)
    if not ledger.ids():
        return []
    asked, found = ledger.noted_instances()
    try:
        if time.time() - asked > FRESH_S:
            found = client_of(ledger).instances()
            ledger.note_instances(found, time.time())
    except SchedulerError as error:
        return [f"what is rented is not known: {error}"]
    owners, damaged = owners_of(ledger, found)
    return [*lines(ledger, owners, found), *damaged]


def owners_of(ledger: Ledger, found: list[Instance]) -> tuple[dict[int, str], list[str]]:
    """Machine -> id of the job on it, if this repository's; and a line for each state that cannot be read.

    Which machines such a job has is told by their labels.
    """
    owners: dict[int, str] = {}
    labelled: dict[int, str] = {}
    damaged: list[str] = []
    for job_id in ledger.ids():
        try:
            rental = ledger.rental(job_id)
        except DataError as error:
            damaged.append(str(error))
            labelled |= _by_label(ledger, job_id, found)
            continue
        if not rental.has_ended:
            owners[rental.instance] = job_id
    return {**labelled, **owners}, damaged


def _by_label(ledger: Ledger, job_id: str, found: list[Instance]) -> dict[int, str]:
    with suppress(DataError):
        token = ledger.ticket(job_id).job.token
        return {each.id: job_id for each in found if is_for(each, token)}
    return {}


def chosen(numbers: list[int], every: bool, found: list[Instance]) -> list[Instance]:
    """Those of assay's that are meant.

    Raises:
        ConfigError: a number is not that of a machine that assay rented.
    """
    ours = {each.id: each for each in found if is_ours(each)}
    unknown = sorted(set(numbers) - ours.keys())
    if unknown:
        allowed = ", ".join(map(str, ours)) or "none, as none is rented"
        raise ConfigError(f"NUMBER: got {unknown[0]}; allowed: {allowed}; see assay stop, or the console of vast.ai")
    return [each for each in ours.values() if every or each.id in numbers]


def give_back(ledger: Ledger, client: Client, number: int, job_id: str | None) -> list[str]:
    """At once, and without another for its job; a line for each of the two that failed."""
    failed = []
    try:
        if job_id is not None:
            ledger.cancel(job_id)
    except OSError as error:
        told = f"{number}: its job is not cancelled ({error.strerror}), and may get another machine"
        failed.append(f"{told}; make room in {ledger.folder}, then give assay cancel")
    try:
        client.destroy(number)
    except SchedulerError as error:
        failed.append(f"{number}: {error}")
    return failed


def lines(ledger: Ledger, owners: dict[int, str], found: list[Instance]) -> list[str]:
    """One for each machine of assay's, and the sum."""
    ours = [each for each in found if is_ours(each)]
    if not ours:
        return []
    names = {each.id: _name(ledger, owners[each.id]) for each in ours if each.id in owners}
    others = f"; {len(found) - len(ours)} more that assay did not rent" if len(found) > len(ours) else ""
    total = sum(each.price for each in ours if each.status not in STOPPED)
    count = "1 rented machine is" if len(ours) == 1 else f"{len(ours)} rented machines are"
    head = f"{count} paid for, ${total:.2f} an hour (assay stop NUMBER gives one back{others}):"
    return [head, *(_line(each, names.get(each.id, "no job of this repository")) for each in ours)]


def _name(ledger: Ledger, job_id: str) -> str:
    try:
        return ledger.ticket(job_id).job.name
    except DataError:
        return f"job {job_id}, whose file is damaged"


def _line(each: Instance, name: str) -> str:
    hours = max(time.time() - each.started, 0.0) / 3600
    cost = "its disk alone is paid for" if each.status in STOPPED else f"about ${hours * each.price:.2f}"
    return f"  {each.id}  {each.gpu}  {each.status}  {hours:.1f} h, {cost}  {name}"
