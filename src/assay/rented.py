"""Rented machines that are paid for now: shown by `assay status`, given back by `assay stop`; open it to say more."""

import argparse
import dataclasses
import json
from pathlib import Path


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
    """Give back, or show; 1 if a machine is still listed."""
    from assay.schedulers import vast_paid
    from assay.schedulers.vast_client import Client
    from assay.schedulers.vast_jobs import is_ours

    ledger = vast_paid.ledger_around(Path.cwd())
    client = Client(parsed.client) if parsed.client else vast_paid.client_of(ledger)
    found = client.instances()
    chosen = vast_paid.chosen(parsed.machines, parsed.all, found)
    for each in chosen:
        vast_paid.give_back(ledger, client, each)
    left = client.instances() if chosen else found
    listed = {each.id for each in left}
    if parsed.json:
        print(json.dumps([dataclasses.asdict(each) for each in left if is_ours(each)], indent=2))
        return int(any(each.id in listed for each in chosen))
    for each in chosen:
        again = f"{each.id} is still listed; give assay stop {each.id} again"
        print(again if each.id in listed else f"{each.id} is given back")
    print("\n".join(vast_paid.lines(ledger, left) or ["nothing that assay rented is paid for"]))
    return int(any(each.id in listed for each in chosen))
