"""When a run must be over, and when to ask it to stop; open it when a job is cut off, or stops too early."""

import math
import os
import shutil
import subprocess
import time
from collections.abc import Mapping

from assay.errors import ConfigError

TAIL_S = 4.0
"""From the end of a stage to the end of the job: the pipeline tool's own exit, and the record."""
UNKNOWN_CHECKPOINT_S = 1.0
"""Assumed until one has been measured."""
ENFORCED_S = 1.0
"""How long before the deadline what is left is killed, so that the end is still recorded."""
ASK_WITHIN_S = 10.0


def time_left(given: float | None, wall_limit: float | None, environment: Mapping[str, str]) -> float | None:
    """Seconds until this job must be over: as given, else as the scheduler says, else the machine's wall limit.

    Raises ConfigError for a limit that is not positive.
    """
    if given is not None:
        if not (given > 0 and math.isfinite(given)):
            raise ConfigError(f"--deadline: got {given:g}; allowed: > 0 seconds; give the time the command may take")
        return given
    scheduled = slurm_time_left(environment) or lsf_time_left(environment)
    return scheduled if scheduled is not None else wall_limit


def slurm_time_left(environment: Mapping[str, str]) -> float | None:
    """From SLURM_JOB_END_TIME (Slurm 22.05 and newer), else squeue's `%L`, [days-]hours:minutes:seconds left.

    A time that has passed is another job's: the variables outlive a job in a terminal that it started.
    """
    if "SLURM_JOB_ID" not in environment:
        return None
    end = environment.get("SLURM_JOB_END_TIME", "")
    if end.isdigit() and int(end) > time.time():
        return int(end) - time.time()
    said = _ask("squeue", "--noheader", "--jobs", environment["SLURM_JOB_ID"], "--format", "%L")
    return parse_slurm_duration(said)


def lsf_time_left(environment: Mapping[str, str]) -> float | None:
    """From bjobs: `time_left`, e.g. `0:58 L`, hours:minutes."""
    if "LSB_JOBID" not in environment:
        return None
    said = _ask("bjobs", "-noheader", "-o", "time_left", environment["LSB_JOBID"])
    hours, colon, minutes = said.partition(" ")[0].partition(":")
    return float(hours) * 3600 + float(minutes) * 60 if colon and hours.isdigit() and minutes.isdigit() else None


def parse_slurm_duration(text: str) -> float | None:
    """Seconds of Slurm's [days-]hours:minutes:seconds or minutes:seconds; None for UNLIMITED and the like."""
    days, dash, rest = text.strip().rpartition("-")
    parts = rest.split(":")
    if not all(part.isdigit() for part in parts) or (dash and not days.isdigit()) or len(parts) < 2:
        return None
    seconds = 0.0
    for part in parts:
        seconds = seconds * 60 + float(part)
    return seconds + 86400 * float(days or 0)


def lead(step_s: float, checkpoint_s: float | None) -> float:
    """How long before the deadline a stage must be asked: two steps, a checkpoint, and the way out, in s."""
    return 2 * step_s + (UNKNOWN_CHECKPOINT_S if checkpoint_s is None else checkpoint_s) + TAIL_S


def plain_lead(grace: float, limit: float) -> float:
    """The same for a command that says nothing: its grace, but no more than a tenth of a short limit."""
    return ENFORCED_S + min(grace, limit / 10)


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ASK_WITHIN_S, env=os.environ)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout.strip()
