"""What a job asks for and of whom, as typed data; open it to see what those sections of a machine file may say."""

from dataclasses import dataclass
from typing import Annotated

from assay.config.fields import Bounds

Count = Annotated[int, Bounds(ge=1)]


@dataclass(frozen=True, kw_only=True)
class ResourcesConfig:
    """What one job asks for; of several nodes, on each."""

    nodes: Count = 1
    """How many computers work on one run."""
    cpus: Count = 1
    """Cores."""
    memory: Annotated[float, Bounds(gt=0)] | None = None
    """In GiB; null: what the scheduler gives."""
    gpus: Annotated[int, Bounds(ge=0)] = 0
    """How many."""
    gpu: str | None = None
    """Which kind, in the scheduler's words, e.g. a100; null: any."""


@dataclass(frozen=True, kw_only=True)
class SlurmConfig:
    """What `sbatch` is told besides."""

    partition: str | None = None
    """Null: the cluster's default."""
    account: str | None = None
    """Who is charged; null: the user's default."""
    qos: str | None = None
    """Quality of service; null: the default."""
    constraint: str | None = None
    """Features a node must have."""
    exclude: tuple[str, ...] = ()
    """Nodes that get no job."""
    options: tuple[str, ...] = ()
    """More options, as `--name=value`."""


@dataclass(frozen=True, kw_only=True)
class LsfConfig:
    """What `bsub` is told besides."""

    queue: str | None = None
    """Null: the cluster's default."""
    project: str | None = None
    """Who is charged; null: the user's default."""
    options: tuple[str, ...] = ()
    """More options, as `-name value`."""


@dataclass(frozen=True, kw_only=True)
class VastConfig:
    """Which machine is rented, and for how much at most."""

    client: str = "vastai"
    """The command-line client: a name on PATH, or a path."""
    reliability: Annotated[float, Bounds(ge=0, le=1)] = 0.98
    """The least share of time that an offer's machine has been up."""
    max_price: Annotated[float, Bounds(gt=0)] = 1.0
    """The most for one machine and hour, in dollars."""
    max_cost: Annotated[float, Bounds(gt=0)] = 20.0
    """The most for one run, in dollars; its machine is given back before it costs more."""
    disk: Annotated[float, Bounds(gt=0)] = 40.0
    """In GB."""
