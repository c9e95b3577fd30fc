"""Which machines are paid for now, and how one is given back without further ado; open it if one is forgotten.

Every machine that assay rents has a label that begins with `assay-`, so they are found without any records.
"""

import time
from pathlib import Path

from assay.errors import ConfigError, SchedulerError
from assay.schedulers.config import VastConfig
from assay.schedulers.vast_client import Client, Instance
from assay.schedulers.vast_cost import STOPPED
from assay.schedulers.vast_jobs import Ledger, is_ours

KEPT = Path(".assay/vast")
FRESH_S = 60.0
"""How old what the service said may be, for a look."""


def ledger_around(folder: Path) -> Ledger:
    """That of the repository around a folder, if it has rented anything."""
    around = (each for each in (folder, *folder.parents) if (each / KEPT).is_dir())
    return Ledger(next(around, folder) / KEPT)


def client_of(ledger: Ledger) -> Client:
    """As the newest job's machine file has it."""
    ids = ledger.ids()
    return Client(ledger.ticket(ids[-1]).config.client if ids else VastConfig().client)


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
    return lines(ledger, found)


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


def give_back(ledger: Ledger, client: Client, instance: Instance) -> None:
    """At once, and without another for its job.

    Raises:
        SchedulerError: the service does not answer.
    """
    for job_id in ledger.open_ids():
        if ledger.rental(job_id).instance == instance.id:
            ledger.cancel(job_id)
    client.destroy(instance.id)


def lines(ledger: Ledger, found: list[Instance]) -> list[str]:
    """One for each machine of assay's, and the sum."""
    ours = [each for each in found if is_ours(each)]
    if not ours:
        return []
    names = {ledger.rental(job_id).instance: ledger.ticket(job_id).job.name for job_id in ledger.open_ids()}
    others = f"; {len(found) - len(ours)} more that assay did not rent" if len(found) > len(ours) else ""
    total = sum(each.price for each in ours if each.status not in STOPPED)
    count = "1 rented machine is" if len(ours) == 1 else f"{len(ours)} rented machines are"
    head = f"{count} paid for, ${total:.2f} an hour (assay stop NUMBER gives one back{others}):"
    return [head, *(_line(each, names.get(each.id, "no job of this repository")) for each in ours)]


def _line(each: Instance, name: str) -> str:
    hours = max(time.time() - each.started, 0.0) / 3600
    cost = "its disk alone is paid for" if each.status in STOPPED else f"about ${hours * each.price:.2f}"
    return f"  {each.id}  {each.gpu}  {each.status}  {hours:.1f} h, {cost}  {name}"
