"""A place where runs happen, as typed data; open it to see what a machine file, `machines/NAME.yaml`, may say.

Scheduler and container are separate choices; each has its section, read only where it is the one chosen.
"""

import re
from collections.abc import Iterator, Mapping
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
    for name, form in OPTIONS.items():
        for option in getattr(machine, name).options:
            if not form.fullmatch(option):
                yield f"{name}.options: got {option!r}; allowed: {EXAMPLES[name]} on one line; correct it"
    asked = machine.resources
    if asked.processes > 1 and asked.processes % asked.nodes:
        given = f"resources.processes: got {asked.processes} with nodes {asked.nodes}"
        yield f"{given}; allowed: a multiple of {asked.nodes}; each node takes equally many"
    if asked.gpus and asked.processes > asked.gpus * asked.nodes:
        given = f"resources.processes: got {asked.processes} with gpus {asked.gpus} on each of {asked.nodes} nodes"
        yield f"{given}; allowed: <= {asked.gpus * asked.nodes}, one for each GPU; lower it, or ask for more"
    if machine.scheduler == "vast" and machine.container.kind != "none":
        given = f"container.kind: got {machine.container.kind} with scheduler vast"
        yield f"{given}; allowed: none, a rented machine is a container already; name its image in vast.image"
    if machine.scheduler == "local" and machine.chain is not None:
        yield "chain: got a number with scheduler local; allowed: null, as it has no wall limit; remove it"


def _completed(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    sections = {
        key: _completed(given[key], value)
        for key, value in defaults.items()
        if isinstance(value, Mapping) and isinstance(given.get(key), Mapping)
    }
    return {**defaults, **given, **sections}
