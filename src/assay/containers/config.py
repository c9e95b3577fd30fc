"""What a job runs in, as typed data; open it to see what the section `container` of a machine file may say."""

from dataclasses import dataclass
from typing import Annotated, Literal

from assay.config.fields import Bounds


@dataclass(frozen=True, kw_only=True)
class ContainerConfig:
    """An image and what of the host is seen in it."""

    kind: Literal["none", "docker", "apptainer"] = "none"
    """What runs the image; none: jobs run in the environment that submits them."""
    image: str | None = None
    """The name of a Docker image, or the path of a SIF, from the repository's folder."""
    binds: tuple[str, ...] = ()
    """More paths of the host, `HOST:INSIDE`, read-only; `HOST:INSIDE:rw` may be written."""
    network: bool = False
    """Whether what runs inside reaches the network."""
    shared_memory: Annotated[float, Bounds(gt=0)] = 2.0
    """/dev/shm in GiB, which workers of a DataLoader use; Docker only."""
    host: str | None = None
    """A Docker daemon elsewhere, as in `DOCKER_HOST`, e.g. ssh://user@host; null: the local one."""
