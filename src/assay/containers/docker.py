"""Docker: the command as a container of a daemon, here or elsewhere; open it to change what a container may do.

    python -m assay.containers.docker --image NAME --folder DIR [options] -- COMMAND ...

The daemon is no child of the job, so this program stands for the container: signals, output and exit code pass through.
"""

import argparse
import hashlib
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.containers import FORWARDED, IMAGE_DIGEST, PYTHON, Bind
from assay.containers.config import ContainerConfig
from assay.containers.host import bind_words, committer, parse_bind_words, refuse_missing, variables
from assay.errors import AssayError

STOP_S = 60
"""How long a daemon that shuts down gives a container to save and stop; Docker's own default is 10 s."""


class Docker:
    """Through the docker SDK: the daemon of this computer, or the one that `host` or DOCKER_HOST names."""

    kind = "docker"
    python = PYTHON

    def __init__(self, config: ContainerConfig, binds: Sequence[Bind]) -> None:
        self.config = config
        self.binds = tuple(binds)

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
        """This module as a program. The daemon's containers are in nobody's job, so it is told of GPUs and memory."""
        config = self.config
        return [
            *(sys.executable, "-m", __name__, "--image", str(config.image), "--folder", str(folder)),
            *bind_words([*self.binds, *binds]),
            *([] if gpus == 0 else ["--gpus", str(gpus)]),
            *([] if memory is None else ["--memory", f"{memory:g}"]),
            *("--shared-memory", f"{config.shared_memory:g}"),
            *(["--network"] if config.network else []),
            *([] if config.host is None else ["--host", config.host]),
            *(word for name in environment for word in ("--environment", name)),
            *("--", *command),
        ]

    def unavailable(self, folder: Path) -> list[str]:
        """No SDK, no daemon that answers, or no such image there."""
        from assay.containers.daemon import connect, find_image

        try:
            with connect(self.config.host) as daemon:
                find_image(daemon, str(self.config.image))
        except AssayError as error:
            return [str(error)]
        return []


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be run. memory and shared_memory in GiB."""

    image: str
    folder: Path
    command: list[str]
    binds: list[Bind]
    gpus: int
    memory: float | None
    shared_memory: float
    network: bool
    host: str | None
    environment: list[str]

    @property
    def all_binds(self) -> list[Bind]:
        """The repository, writable, and what else is named."""
        return [Bind(source=self.folder, target=self.folder, writable=True), *self.binds]

    @property
    def name(self) -> str:
        """Of the container: the same for the same command, so that one that was left behind is found."""
        text = "\0".join([str(self.folder), *self.command])
        return f"assay-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def parse(arguments: list[str]) -> Request:
    """What `wrap` wrote."""
    own, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="python -m assay.containers.docker", allow_abbrev=False)
    parser.add_argument("--image", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--bind", nargs=3, action="append", default=[])
    parser.add_argument("--gpus", type=int, default=0)
    parser.add_argument("--memory", type=float)
    parser.add_argument("--shared-memory", type=float, required=True)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--host")
    parser.add_argument("--environment", action="append", default=[])
    told = vars(parser.parse_args(own))
    return Request(command=command, binds=parse_bind_words(told.pop("bind")), **told)


def described(request: Request, image_id: str) -> dict[str, Any]:
    """The container as the SDK's low-level `create_container` takes it, its part for the host under `host_config`."""
    user, group, others = identity(request.folder)
    return {
        "image": image_id,  # what is run is what is recorded, even if its name is given away meanwhile
        "name": request.name,
        "hostname": socket.gethostname(),  # by which a record names the machine
        "entrypoint": [request.command[0]],
        "command": request.command[1:],
        "working_dir": str(request.folder),
        "user": f"{user}:{group}",
        "environment": {
            **committer(request.folder),
            **variables([*FORWARDED, *request.environment], os.environ),
            IMAGE_DIGEST: image_id,
        },
        "stop_timeout": STOP_S,
        "use_config_proxy": False,
        "host_config": {
            "mounts": [_mount(bind) for bind in request.all_binds],
            "network_mode": "bridge" if request.network else "none",
            "shm_size": int(request.shared_memory * 2**30),
            "mem_limit": None if request.memory is None else int(request.memory * 2**30),
            "memswap_limit": None if request.memory is None else int(request.memory * 2**30),
            "device_requests": gpu_request(request.gpus, os.environ.get("CUDA_VISIBLE_DEVICES")),
            "group_add": others,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "init": True,  # a process of number 1 has no default signals, and must collect orphans
        },
    }


def identity(folder: Path) -> tuple[int, int, list[str]]:
    """User, group and further groups: the caller's; root works as whoever owns the repository."""
    if os.getuid() == 0 and folder.exists():  # it may be on the daemon's machine alone
        owner = folder.stat()
        return owner.st_uid, owner.st_gid, []
    return os.getuid(), os.getgid(), [str(group) for group in os.getgroups()]


def gpu_request(count: int, visible: str | None) -> list[dict[str, Any]]:
    """The GPUs that a scheduler gave the job, by their numbers or ids, else any so many."""
    if count == 0:
        return []
    which = {"DeviceIDs": visible.split(",")} if visible else {"Count": count}
    return [{"Driver": "", "Capabilities": [["gpu"]], "Options": {}, **which}]


def _mount(bind: Bind) -> dict[str, Any]:
    return {
        "Type": "bind",
        "Source": str(bind.source),
        "Target": str(bind.target),
        "ReadOnly": not bind.writable,
    }


def main(arguments: list[str]) -> int:
    """The exit code of the command; an error takes a line."""
    from assay.containers.daemon import connect, is_remote, run

    request = parse(arguments)
    try:
        if not is_remote(request.host):
            refuse_missing(request.all_binds)
        with connect(request.host) as daemon:
            return run(daemon, request)
    except AssayError as error:
        for line in str(error).splitlines():
            print(f"assay: {line}", file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
