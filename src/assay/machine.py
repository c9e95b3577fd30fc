"""A place where runs happen, as typed data; open it to see what a machine file, `machines/NAME.yaml`, may say.

Scheduler and container are separate choices; each has its section, read only where it is the one chosen.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from assay.config.fields import Bounds
from assay.config.load import build, read, resolved
from assay.containers.config import ContainerConfig
from assay.errors import ConfigError
from assay.runs.config import Seconds, WatchConfig
from assay.schedulers.config import LsfConfig, ResourcesConfig, SlurmConfig, VastConfig

OPTIONS = {"slurm": re.compile(r"--[a-z][\w-]*(=[^\n]*)?"), "lsf": re.compile(r"-[a-zA-Z]\w*( [^\n]*)?")}
EXAMPLES = {"slurm": "--name=value", "lsf": "-name value"}
OURS = {
    "slurm": (
        *("--job-name", "--comment", "--output", "--array", "--open-mode", "--signal", "--exclude"),
        *("--nodes", "--ntasks-per-node", "--cpus-per-task", "--mem", "--gres", "--time"),
        *("--partition", "--account", "--qos", "--constraint"),
    ),
    "lsf": ("-J", "-g", "-o", "-oo", "-H", "-w", "-q", "-P", "-n", "-M", "-gpu", "-W", "-wt", "-wa"),
}
"""Options that a job is given anyway: a second value would win, and the job then not be found, or not warned. Not `-R`:
LSF joins what several ask for."""

CONTAINER_KEYS = {
    "none": ("image", "binds", "network", "shared_memory", "host"),
    "docker": (),
    "apptainer": ("shared_memory", "host"),
}
"""Keys of the section `container` that a kind does not read."""


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """A place where runs happen."""

    name: str = "local"
    """For reports."""
    wall_limit: Seconds | None = None
    """How long a job may take, in s; null: no limit, or the scheduler's own words are used."""
    jobs: Annotated[int, Bounds(ge=1)] = 1
    """How many runs at a time `assay submit` has going here, where `scheduler` is `local`."""
    chain: Annotated[int, Bounds(ge=1, le=100)] | None = None
    """How many jobs in a row a run is given; null: as many as it is expected to need, and one to spare."""
    price: Annotated[float, Bounds(ge=0)] = 0.0
    """What a job costs for each hour, in the currency of the study's budget."""
    scheduler: Literal["local", "slurm", "lsf", "vast"] = "local"
    """What takes the jobs."""
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    """What a job asks for."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """Where `scheduler` is `slurm`."""
    lsf: LsfConfig = field(default_factory=LsfConfig)
    """Where `scheduler` is `lsf`."""
    vast: VastConfig = field(default_factory=VastConfig)
    """Where `scheduler` is `vast`."""
    container: ContainerConfig = field(default_factory=ContainerConfig)
    """What a job runs in."""
    grace: Annotated[float, Bounds(ge=0)] = 30.0
    """How long a command may take to end once asked to, in s, before it is killed."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """When silence is a stall."""

    @property
    def at_once(self) -> int:
        """How many runs it has going at a time, as far as it says: a cluster's queue does not, and counts as one."""
        return self.vast.machines if self.scheduler == "vast" else self.jobs


def load_machine(path: Path) -> MachineConfig:
    """Read a machine file; a key that it leaves out has its default.

    Raises:
        ConfigError: one line per problem, each with file, dotted key, what was given and what is allowed.
    """
    data = _completed(read(path), resolved(MachineConfig()))
    try:
        machine = build(MachineConfig, data)
        problems = list(_contradictions(machine))
        if problems:
            raise ConfigError("\n".join(problems))
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from None
    return machine


def _contradictions(machine: MachineConfig) -> Iterator[str]:
    """What is said for another scheduler than the one chosen would be read by nobody; and options that are none."""
    unset = MachineConfig()
    for key, scheduler in {"slurm": "slurm", "lsf": "lsf", "vast": "vast", "jobs": "local"}.items():
        if scheduler != machine.scheduler and getattr(machine, key) != getattr(unset, key):
            given = f"{key}: got values with scheduler {machine.scheduler}"
            yield f"{given}; allowed: none; remove them, or choose scheduler {scheduler}"
    for name in OPTIONS:
        yield from _refused(name, getattr(machine, name).options)
    yield from _unequal_shares(machine.resources)
    yield from _unread(machine)


def _unequal_shares(asked: ResourcesConfig) -> Iterator[str]:
    """Processes that cannot be shared out among nodes, or GPUs."""
    if asked.processes > 1 and asked.processes % asked.nodes:
        given = f"resources.processes: got {asked.processes} with nodes {asked.nodes}"
        yield f"{given}; allowed: a multiple of {asked.nodes}; each node takes equally many"
    if asked.gpus and asked.processes > asked.gpus * asked.nodes:
        given = f"resources.processes: got {asked.processes} with gpus {asked.gpus} on each of {asked.nodes} nodes"
        yield f"{given}; allowed: <= {asked.gpus * asked.nodes}, one for each GPU; lower it, or ask for more"


def _unread(machine: MachineConfig) -> Iterator[str]:
    """What nothing would read, or what would be read otherwise than it is meant."""
    kind = machine.container.kind
    if machine.scheduler == "vast" and kind != "none":
        given = f"container.kind: got {kind} with scheduler vast"
        yield f"{given}; allowed: none, a rented machine is a container already; name its image in vast.image"
    others = [key for key in CONTAINER_KEYS[kind] if getattr(machine.container, key) != getattr(ContainerConfig(), key)]
    for key in others:
        yield f"container.{key}: got a value with kind {kind}; allowed: none; remove it, or choose another kind"
    if machine.scheduler == "local":
        if machine.chain is not None:
            given = "chain: got a number with scheduler local"
            yield f"{given}; allowed: null, as the pool starts a run anew by itself; remove it"
        if machine.resources.nodes > 1:
            given = f"resources.nodes: got {machine.resources.nodes} with scheduler local"
            yield f"{given}; allowed: 1, this computer; choose the scheduler of a cluster"
        if machine.resources.gpu is not None:
            given = f"resources.gpu: got {machine.resources.gpu} with scheduler local"
            yield f"{given}; allowed: null, the GPUs are those of this computer; remove it"


def _refused(scheduler: str, options: Sequence[str]) -> Iterator[str]:
    for option in options:
        given, name = f"{scheduler}.options: got {option!r}", re.split("[= ]", option)[0]
        if not OPTIONS[scheduler].fullmatch(option):
            yield f"{given}; allowed: {EXAMPLES[scheduler]} on one line; correct it"
        elif name in OURS[scheduler] or (scheduler == "slurm" and any(own.startswith(name) for own in OURS["slurm"])):
            ours = ", ".join(OURS[scheduler])  # sbatch takes the beginning of a name for it
            yield f"{given}; allowed: none of {ours}; remove it, assay sets it from the other keys"


def _completed(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    sections = {
        key: _completed(given[key], value)
        for key, value in defaults.items()
        if isinstance(value, Mapping) and isinstance(given.get(key), Mapping)
    }
    return {**defaults, **given, **sections}
