"""What of each machine file can be used from here, and for what is not: why, and the fix; open it to check more.

    assay doctor                        every file of machines/
    assay doctor machines/slurm.yaml

Nothing is submitted: a scheduler is asked whether it would take a job as the file describes it.
"""

import argparse
import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from assay.errors import UserError
from assay.matrix.git import repository

MACHINES = Path("machines")
PROGRAMS = {"git": "every run is a clone; install it"}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found about one machine file. reasons: why it cannot be used, each with its fix; none if it can."""

    machine: str
    scheduler: str
    container: str
    reasons: list[str]


def add_doctor(verb: argparse.ArgumentParser) -> None:
    """Say of each machine file what can be used from here, and for what cannot: why, and the fix.

    Schedulers and containers are asked, and nothing is submitted. Exit code 1 if a file that was named cannot be used.

    examples:
      assay doctor
      assay doctor machines/slurm.yaml --json
    """
    verb.add_argument("files", metavar="FILE", nargs="*", type=Path, help=f"machine files; default: all of {MACHINES}/")
    verb.add_argument("--json", action="store_true", help="print JSON instead of text")
    verb.set_defaults(call=doctor)


def doctor(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Examine machine files."""
    found = [examine(path) for path in parsed.files or sorted(MACHINES.glob("*.yaml"))]
    general = [f"{name}: not on PATH; {fix}" for name, fix in PROGRAMS.items() if shutil.which(name) is None]
    if parsed.json:
        print(json.dumps({"reasons": general, "machines": [dataclasses.asdict(each) for each in found]}, indent=2))
    else:
        print("\n".join(_lines(general, found)))
    return int(bool(general) or any(each.reasons for each in found if parsed.files))


def _lines(general: list[str], found: list[Finding]) -> Iterator[str]:
    yield from general
    for each in found:
        kind = each.scheduler if each.container == "none" else f"{each.scheduler} with {each.container}"
        yield f"{each.machine}: {'not usable here' if each.reasons else f'usable, {kind}'}"
        yield from (f"    {line}" for reason in each.reasons for line in reason.splitlines())
    if not found:
        yield f"no machine file: got nothing in {MACHINES}/; give one, or go to the repository's folder"


def _repository() -> Path:
    """The root of the repository around this folder, where jobs are started; without one, this folder."""
    try:
        return repository(Path.cwd())
    except UserError:
        return Path.cwd()


def examine(path: Path) -> Finding:
    """One machine file: its own mistakes, then its scheduler and its container."""
    from assay.containers import container_of
    from assay.machine import load_machine
    from assay.schedulers import Job
    from assay.schedulers.registry import scheduler_named

    told = {"machine": str(path), "scheduler": "", "container": ""}
    here = _repository()
    try:
        machine = load_machine(path)
        told |= {"scheduler": machine.scheduler, "container": machine.container.kind}
        job = Job(
            name="doctor",
            command=["true"],
            folder=here,
            log=here / "doctor.log",
            script=here / "doctor.sh",
            resources=machine.resources,
            wall_limit=machine.wall_limit,
        )
        reasons = scheduler_named(machine.scheduler, here, machine).unavailable(job)
        return Finding(**told, reasons=[*reasons, *container_of(machine.container).unavailable(here)])
    except UserError as error:
        return Finding(**told, reasons=[str(error)])
