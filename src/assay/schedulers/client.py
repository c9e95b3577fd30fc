"""A scheduler's own commands, given as a person would; open it when one fails and the message does not say why."""

import errno
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from assay.errors import SchedulerError

WITHIN_S = 120.0
"""Slurm's commands wait up to 10 s for a controller, and sbatch tries again while it is busy."""
SHOWN = 400
HINTS = {
    r"[Mm]unge": "munge signs every message; start it on this computer: systemctl start munge",
    r"Unable to contact slurm controller": "slurmctld does not answer; wait for it, or tell whoever runs the cluster",
    r"Socket timed out": "slurmctld is busy; wait a minute; what it has accepted is found again",
    r"DNS SRV|configuration source": "no slurm.conf is found; give the command on a login node, or set SLURM_CONF",
    r"LSF is down|Cannot connect to LSF|batch daemon not responding": "LSF is down; tell whoever runs the cluster",
    r"lsf.conf|LSF_ENVDIR": "LSF's environment is not set; source its profile.lsf",
    r"[Ii]nvalid partition": "correct slurm.partition; sinfo lists them",
    r"generic resource": "correct resources.gpus and resources.gpu; sinfo -o '%P %G' lists what there is",
    r"node configuration is not available": "no node has that much; correct resources; sinfo -Nl lists the nodes",
    r"talking to the database": "slurmdbd does not answer; how jobs ended is known again when it does",
    r"MaxSubmitJob": "an account has no room for more jobs; wait until some have ended, then submit again",
    r"accounting/QOS policy": "ask for less than the account's limit; sacctmgr show associations user=$USER lists it",
    r"time limit|TIME_LIMIT|RUNLIMIT": "correct wall_limit; sinfo -o '%P %l', or bqueues -l, lists the limits",
    r"[Ii]nvalid account": "correct slurm.account; sacctmgr show associations user=$USER lists them",
    r"[Qq]ueue .*(not|does)": "correct lsf.queue; bqueues lists them",
    r"QOS|[Ll]imit": "wait until some jobs have ended, then submit again",
}
"""Pattern in what a command says -> what to do about it; the first that fits counts."""


class SilentError(SchedulerError):
    """A scheduler did not answer. known: what it last said of each job."""

    def __init__(self, message: str, known: Mapping[str, str]) -> None:
        super().__init__(message)
        self.known = dict(known)


def missing(*programs: str) -> list[str]:
    """Reasons, with their fix, for programs that are not on PATH."""
    return [
        f"{program}: not on PATH; give the command on a login node of the cluster, or load its module"
        for program in programs
        if shutil.which(program) is None
    ]


def give(command: Sequence[str], text: str = "", where: str | None = None) -> str:
    """What a command says when it is given `text`.

    Raises:
        SchedulerError: it failed or cannot be started; its own words follow, and what to do.
    """
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=where, timeout=WITHIN_S, errors="replace"
        )
    except OSError as error:
        raise SchedulerError(_not_started(command[0], error)) from None
    except subprocess.TimeoutExpired:
        told = f"{command[0]}: no answer within {WITHIN_S:g} s; wait, then give the command again"
        raise SchedulerError(told) from None
    if done.returncode:
        raise SchedulerError(f"{command[0]}: {explained(done.stderr or done.stdout, done.returncode)}")
    return done.stdout


def explained(said: str, code: int) -> str:
    """What a failed command said, on one line, and what to do about it."""
    words = " ".join(said.split())[:SHOWN] or f"exit code {code}"
    fix = next((hint for pattern, hint in HINTS.items() if re.search(pattern, words)), "")
    return f"failed ({words}); {fix or 'correct the machine file, then give the command again'}"


def _not_started(program: str, error: OSError) -> str:
    if error.errno == errno.E2BIG:
        sizes = {name: len(name) + len(value) for name, value in os.environ.items()}
        largest = max(sizes, key=lambda name: sizes[name])
        return (
            f"{program}: cannot be started, the environment has {sum(sizes.values()) / 1e6:.1f} MB; "
            f"unset its largest variable, {largest} ({sizes[largest] / 1e6:.1f} MB)"
        )
    if error.errno == errno.ENOENT:
        return next(iter(missing(program)), f"{program}: cannot be started ({error.strerror})")
    return f"{program}: cannot be started ({error.strerror}); correct PATH"
