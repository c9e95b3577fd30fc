"""The schedulers by name; open it to add one."""

from collections.abc import Callable
from pathlib import Path

from assay.errors import ConfigError
from assay.machine import MachineConfig
from assay.schedulers import Scheduler
from assay.schedulers.local import Local
from assay.schedulers.lsf import Lsf
from assay.schedulers.slurm import Slurm
from assay.schedulers.vast import Vast

KEPT = Path(".assay")
"""Below the repository: where a scheduler keeps what it needs between two commands."""
SCHEDULERS: dict[str, Callable[[Path, MachineConfig], Scheduler]] = {
    "local": lambda kept, machine: Local(kept / "pool", machine.jobs, gives_gpus=machine.container.host is None),
    "slurm": lambda kept, machine: Slurm(kept / "slurm", machine.slurm),
    "lsf": lambda kept, machine: Lsf(kept / "lsf", machine.lsf),
    "vast": lambda kept, machine: Vast(kept / "vast", machine.vast),
}


def scheduler_named(name: str, repository: Path, machine: MachineConfig | None = None) -> Scheduler:
    """A scheduler, for jobs of a repository; without a machine for asking about them only.

    Raises:
        ConfigError: there is none of this name.
    """
    if name not in SCHEDULERS:
        known = ", ".join(SCHEDULERS)
        raise ConfigError(f"scheduler: got {name}; allowed here: {known}; choose one of them")
    return SCHEDULERS[name](repository / KEPT, machine or MachineConfig())
