"""Containers: what a command runs in, chosen apart from who schedules it; open it to add another kind.

    container = container_of(machine.container)
    container.unavailable(repository)                             # reasons with their fix; empty: it can be used here
    container.wrap([container.python, "-m", "assay", ...], folder=repository, gpus=1)

What runs inside sees the repository, under its own path, and the paths that are bound; of the environment it gets what
is named, and nothing else. tests/contracts/test_container.py is what every kind has to pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from assay.containers.config import ContainerConfig
from assay.errors import ConfigError

FORWARDED = (
    "SLURM_*",
    "SLURMD_NODENAME",
    "LSB_*",
    "OMP_NUM_THREADS",
    "GIT_AUTHOR_NAME",
    "GIT_AUTHOR_EMAIL",
    "GIT_COMMITTER_NAME",
    "GIT_COMMITTER_EMAIL",
)
"""Variables of a job that what runs inside always gets, where they are set: what a scheduler says about the job, which
is how its deadline is known; threads; who commits. A name may end in `*`, which no name like a secret's matches."""
IMAGE_DIGEST = "ASSAY_IMAGE_DIGEST"
"""Set inside: the digest of the OCI image, also where Apptainer runs a SIF that was made from it."""
PYTHON = "/opt/assay/env/bin/python"
"""The interpreter of an image; scripts/image.sh puts it there."""


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A path of the host that is seen inside. Both are absolute."""

    source: Path
    target: Path
    writable: bool = False


class Container(Protocol):
    """A way to run a command in an image, or in none."""

    kind: str
    """As in a machine file."""
    python: str
    """The interpreter that has assay inside."""

    def wrap(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        binds: Sequence[Bind] = (),
        gpus: int = 0,
        memory: float | None = None,
        environment: Sequence[str] = (),
    ) -> list[str]:
        """The arguments that run `command` inside; nothing is started, read or written.

        folder: the repository, writable inside under its own path, where the command is started. memory: the most it
        may use, in GiB, where the container is what limits it. environment: names of variables passed on as they are
        when the job starts, besides `FORWARDED`.
        """
        ...

    def unavailable(self, folder: Path) -> list[str]:
        """Why jobs of the repository `folder` cannot use it here, each reason with its fix; empty: they can."""
        ...


def container_of(config: ContainerConfig) -> Container:
    """The container of a machine.

    Raises:
        ConfigError: its section names no image, or a bind that is none.
    """
    from assay.containers.apptainer import Apptainer
    from assay.containers.docker import Docker
    from assay.containers.none import NoContainer

    if config.kind == "none":
        return NoContainer()
    if config.image is None:
        allowed = "the name of a Docker image" if config.kind == "docker" else "the path of a SIF"
        fix = f"make {config.kind} makes one"
        raise ConfigError(f"container.image: got null with kind {config.kind}; allowed: {allowed}; {fix}")
    binds = tuple(parse_bind(text) for text in config.binds)
    return Docker(config, binds) if config.kind == "docker" else Apptainer(config, binds)


def refuse_missing_image(config: ContainerConfig, repository: Path) -> None:
    """An image in the repository is there before jobs that need it wait; at another path it may be the nodes' alone.

    Raises:
        DataError: it is not there.
    """
    from assay.containers.apptainer import refuse_no_image

    if config.kind == "apptainer" and config.image and not Path(config.image).is_absolute():
        refuse_no_image(repository / config.image)


def parse_bind(text: str) -> Bind:
    """A bind of a machine file.

    Raises:
        ConfigError: it is not `HOST:INSIDE` or `HOST:INSIDE:rw` with absolute paths.
    """
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not (source.startswith("/") and target.startswith("/") and mode in ("", "rw")):
        allowed = "HOST:INSIDE, read-only, or HOST:INSIDE:rw, with absolute paths that have no colon"
        raise ConfigError(f"container.binds: got {text}; allowed: {allowed}; correct it")
    return Bind(source=Path(source), target=Path(target), writable=mode == "rw")
