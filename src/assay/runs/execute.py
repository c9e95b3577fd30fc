"""The verb exec: a command becomes an attempt of a run; open it to see what happens before and after the command."""

import dataclasses
import math
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from assay import progress
from assay.errors import AssayError, ConfigError
from assay.machine import MachineConfig
from assay.runs.config import FloorsConfig
from assay.runs.deadline import ENFORCED_S, time_left
from assay.runs.guardian import guard
from assay.runs.journal import CHECKPOINTS, Journal
from assay.runs.masking import masked
from assay.runs.nodes import NODES, NODES_AT, meeting_place
from assay.runs.processes import state
from assay.runs.provenance import describe
from assay.runs.ranks import PROCESSES
from assay.runs.record import Attempt, Job, Run
from assay.runs.scribe import close_others
from assay.runs.store import RunFolder, RunRecord, this_process

CHECKPOINTS_AT = "ASSAY_CHECKPOINTS"
DESCRIBE_WITHIN_S = 5.0
"""How long a command that was quicker than its description waits for it."""
UNNAMED = Path(".assay/runs/exec")


def execute(command: list[str], folder: Path | None, deadline: float | None, machine: MachineConfig) -> int:
    """Supervise a command; returns the exit code, in the supervisor's process (see `guard`).

    Raises:
        UserError: no such program, a deadline that is not positive, or a run that is already running.
        FolderHangsError: the run's folder does not answer.
    """
    left = time_left(deadline, machine.wall_limit, os.environ)
    end_at = math.inf if left is None else time.monotonic() + left
    guard()
    place = folder or _unnamed()
    run = place.absolute()
    journal = Journal(run)
    now = time.time()
    journal.begin(
        Attempt(
            number=0,
            holder=this_process(),
            command=masked(command),
            started=now,
            heartbeat=now,
            cwd=os.getcwd(),
            job=scheduler_job(os.environ),
            deadline=None if left is None else now + left,
        )
    )
    nested = progress.SOCKET in os.environ
    if folder is not None and (nested or CHECKPOINTS_AT not in os.environ):
        os.environ[CHECKPOINTS_AT] = str(run / CHECKPOINTS)
    _say_who_takes_part(machine, run)
    describing = _describe(journal, command)
    from assay.runs.supervise import Supervisor

    code = 1
    try:
        code = Supervisor(command, journal, machine, end_at).run()
    except AssayError as error:
        code = error.exit_code
        raise
    finally:
        if folder is None:
            journal.tell(f"the record is in {place}")
        journal.end(code, end_at - ENFORCED_S)
        if not journal.failing:
            _wait_for(describing)
    return code


def _say_who_takes_part(machine: MachineConfig, run: Path) -> None:
    """To the stages: how many processes train together, and on how many nodes."""
    asked, place = machine.resources, meeting_place(run, os.environ)
    if asked.processes > 1:
        os.environ.setdefault(PROCESSES, str(asked.processes))
    if asked.nodes > 1 and asked.processes > 1 and place is not None:
        os.environ |= {NODES: str(asked.nodes), NODES_AT: str(place)}


def watched(machine: MachineConfig, stall_after: float | None, grace: float | None) -> MachineConfig:
    """The machine with what the command line says: one floor for every phase, another grace. Raises ConfigError."""
    for name, value in (("--stall-after", stall_after), ("--grace", grace)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name}: got {value:g}; allowed: > 0 seconds; leave it out for the machine's")
    if stall_after is not None:
        floors = FloorsConfig(**{item.name: stall_after for item in dataclasses.fields(FloorsConfig)})
        machine = dataclasses.replace(machine, watch=dataclasses.replace(machine.watch, floors=floors))
    return machine if grace is None else dataclasses.replace(machine, grace=grace)


def scheduler_job(environment: Mapping[str, str]) -> Job | None:
    """The job this process runs in, by its scheduler's variables."""
    if "SLURM_JOB_ID" in environment:
        node = environment.get("SLURMD_NODENAME") or os.uname().nodename
        return Job(scheduler="slurm", id=environment["SLURM_JOB_ID"], node=node, raw=_words(environment, "SLURM_JOB"))
    if "LSB_JOBID" in environment:
        node = os.uname().nodename
        return Job(scheduler="lsf", id=environment["LSB_JOBID"], node=node, raw=_words(environment, "LSB_"))
    return None


def _words(environment: Mapping[str, str], prefix: str) -> dict[str, str]:
    """What the scheduler told the job about itself, secrets masked."""
    told = masked([f"{name}={value}" for name, value in sorted(environment.items()) if name.startswith(prefix)])
    return dict(word.split("=", 1) for word in told)


def _unnamed() -> Path:
    """A folder for a command that is nobody's run: by time and process."""
    return UNNAMED / time.strftime("%Y%m%d-%H%M%S", time.gmtime()) / str(os.getpid())


def _describe(journal: Journal, command: list[str]) -> int:
    """Write run.json in a process of its own, for git may take long or hang; returns its number."""
    pid = os.fork()
    if pid:
        journal.processes.add(pid)
        return pid
    try:
        close_others()
        with suppress(OSError, AssayError):  # the scribe tells of trouble; the next attempt describes
            folder = RunFolder(journal.folder)
            described = describe(journal.folder, command, Path.cwd())
            known = folder.read()
            described = dataclasses.replace(described, created=known.attempts[0].started)
            folder.write_run(_with_findings(described, known))
    finally:
        os._exit(0)


def _with_findings(described: Run, known: RunRecord) -> Run:
    """With what this attempt has found out, should it have been quicker, and earlier ones, if they ran the same.

    A stage that is complete does not say it again.
    """
    before, (*earlier, now) = known.run, known.attempts
    told = [str(stage.facts["identity"]) for stage in now.stages if "identity" in stage.facts]
    same = (before.params, before.commit, before.dirty) == (described.params, described.commit, described.dirty)
    found = before if same or not earlier else described
    return dataclasses.replace(described, identity=told[-1] if told else found.identity, disk=found.disk)


def _wait_for(pid: int) -> None:
    end = time.monotonic() + DESCRIBE_WITHIN_S
    while state(pid) not in (None, "Z") and time.monotonic() < end:
        time.sleep(0.002)
