"""Rented machines that are paid for now: shown by `assay status`, given back by `assay stop`; open it to say more."""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from assay.errors import SchedulerError


def paid_for(repository: Path) -> list[str]:
    """Lines on what is paid for now, for `assay status`; nothing where nothing was ever rented from this repository."""
    if not (repository / ".assay/vast").is_dir():
        return []
    from assay.schedulers import vast_paid

    return vast_paid.paid_for(repository)


def add_stop(verb: argparse.ArgumentParser) -> None:
    """Give rented machines back at once, with all that is on them; without a number, show those that are paid for.

    It is the emergency brake: nothing is saved or fetched first. `assay cancel` saves, fetches, and gives back.
    Machines are found by their labels, whichever repository or computer rented them with this key of vast.ai.

    examples:
      assay stop
      assay stop 7835610
      assay stop --all
    """
    verb.add_argument("machines", metavar="NUMBER", nargs="*", type=int, help="a machine, as shown without a number")
    verb.add_argument("--all", action="store_true", help="all that assay has rented")
    verb.add_argument("--client", metavar="PROGRAM", help="the client; default: that of the machine file, or vastai")
    verb.add_argument("--json", action="store_true", help="print JSON instead of text")
    verb.set_defaults(call=stop)


def stop(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Give back, or show; 1 if a machine is still listed. A machine that fails is no reason to keep the others.

    Raises:
        ConfigError: a number is not that of a machine that assay rented.
        SchedulerError: the service does not answer, or refused some machines; one line for each.
    """
    from assay.schedulers import vast_paid
    from assay.schedulers.vast_client import Client
    from assay.schedulers.vast_jobs import is_ours

    ledger = vast_paid.ledger_around(Path.cwd())
    client = Client(parsed.client) if parsed.client else vast_paid.client_of(ledger)
    found = client.instances()
    chosen = vast_paid.chosen(parsed.machines, parsed.all, found)
    owners, damaged = vast_paid.owners_of(ledger, found)
    for line in damaged:
        print(f"assay: {line}", file=sys.stderr)
    numbers = [each.id for each in chosen]
    failed = [line for each in numbers for line in vast_paid.give_back(ledger, client, each, owners.get(each))]
    try:
        left = client.instances() if chosen else found
    except SchedulerError as error:
        raise SchedulerError("\n".join([*failed, str(error)])) from None
    listed = {each.id for each in left}
    if parsed.json:
        print(json.dumps([dataclasses.asdict(each) for each in left if is_ours(each)], indent=2))
    else:
        for number in numbers:
            again = f"{number} is still listed; give assay stop {number} again"
            print(again if number in listed else f"{number} is given back")
        print("\n".join(vast_paid.lines(ledger, owners, left) or ["nothing that assay rented is paid for"]))
    if failed:
        raise SchedulerError("\n".join(failed))
    return int(any(each in listed for each in numbers))
