"""What a job asks for and of whom, as typed data; open it to see what those sections of a machine file may say."""

from dataclasses import dataclass
from typing import Annotated, Literal

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
    processes: Count = 1
    """How many processes train one network together, on all nodes; usually as many as there are GPUs."""
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
    """More options, each as `--name=value` or `--name`."""


@dataclass(frozen=True, kw_only=True)
class LsfConfig:
    """What `bsub` is told besides."""

    queue: str | None = None
    """Null: the cluster's default."""
    project: str | None = None
    """Who is charged; null: the user's default."""
    options: tuple[str, ...] = ()
    """More options, each as `-name value` or `-name`."""


@dataclass(frozen=True, kw_only=True)
class VastConfig:
    """Which machine is rented, for how much at most, and when it is given back."""

    client: str = "vastai"
    """The command-line client: a name on PATH, or a path."""
    image: str | None = None
    """The Docker image that a machine starts, in a registry; it has assay in it."""
    python: str = "/opt/assay/env/bin/python"
    """The interpreter of that image which has assay."""
    machines: Count = 1
    """How many are rented at a time."""
    reliability: Annotated[float, Bounds(ge=0, le=1)] = 0.98
    """The least share of time that an offer's machine has been up."""
    max_price: Annotated[float, Bounds(gt=0)] = 1.0
    """The most for one machine and hour, its disk included, in dollars."""
    bid: Annotated[float, Bounds(gt=0)] | None = None
    """What is bid for one machine and hour, in dollars: cheaper, but a higher bid takes it; null: a fixed price."""
    max_cost: Annotated[float, Bounds(gt=0)] = 20.0
    """The most for one run, in dollars; its machine is given back before it costs more."""
    disk: Annotated[float, Bounds(gt=0)] = 40.0
    """In GB."""
    loading: Annotated[float, Bounds(gt=0)] = 1200.0
    """How long a machine may take to start, or not be heard of, before another is rented, in s."""
    pull: Annotated[float, Bounds(gt=0)] = 300.0
    """How often records and checkpoints are brought here while a run goes on, in s."""
    keep: Annotated[float, Bounds(gt=0)] = 900.0
    """How long a machine waits after its run for this computer to bring the results here, in s."""
    unclaimed: Literal["stop", "destroy"] = "stop"
    """What it does when nobody has: stop keeps them and costs the disk; destroy costs nothing more."""
    send: tuple[str, ...] = ()
    """More files and folders below the repository that a run needs, e.g. `.dvc/cache`, besides the last commit."""
    fetch: tuple[str, ...] = (".dvc/cache",)
    """Folders below the repository from which what is new is brought here when a run has ended."""
    options: tuple[str, ...] = ()
    """More options of `vastai create instance`, each as `--name value` or `--name`."""
