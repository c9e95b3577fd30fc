"""A Docker daemon: connect, run one container to its end; open it when a signal, a log or an exit code is lost."""

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

from assay.containers.docker import STOP_S, Request, described
from assay.containers.host import FORWARDED_SIGNALS
from assay.containers.remedies import explain_daemon
from assay.containers.tunnel import tunnel
from assay.errors import AssayError, DataError, UserError
from assay.progress import UNFINISHED

LOCAL = "unix:///var/run/docker.sock"
REPLY_WITHIN_S = 60
LAST_WORDS_S = 10.0
"""How long output is read after the container has ended."""


class DaemonError(AssayError):
    """The daemon refused, or failed."""


class DaemonLostError(DaemonError):
    """The daemon went away while a container ran; the next attempt goes on from the checkpoint."""

    exit_code = UNFINISHED


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    out_of_memory: bool = False


@contextmanager
def connect(host: str | None, reply_within_s: float = REPLY_WITHIN_S) -> Iterator[Any]:
    """The low-level client of a daemon that answers.

    Raises:
        UserError: the SDK is not installed, or no daemon answers.
    """
    try:
        import docker
        from docker.errors import DockerException
    except ImportError:
        raise UserError("docker: its SDK is not installed; do: pip install 'assay[docker]' (make env has it)") from None
    at = address(host)
    with tunnel(at) as near:
        try:
            _knock(near)
            client = docker.from_env(environment={**os.environ, "DOCKER_HOST": near}, timeout=reply_within_s)
            client.ping()
        except (DockerException, OSError) as error:
            reason = f"no Docker daemon answers at {at} ({_plain(error)}); {_remedy(error)}"
            raise UserError(f"container.host: {reason}") from None
        try:
            yield client.api
        finally:
            client.close()


def address(host: str | None) -> str:
    """Where the daemon is, as in DOCKER_HOST."""
    return host or os.environ.get("DOCKER_HOST") or LOCAL


def _knock(at: str) -> None:
    """Raises OSError, in the kernel's own words, if nobody listens at a socket."""
    if at.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as door:
            door.connect(at.removeprefix("unix://"))


def is_remote(host: str | None) -> bool:
    """Whether the daemon's machine may have other files than this one."""
    return not address(host).startswith("unix:")


def find_image(daemon: Any, name: str) -> str:
    """The image's id, the digest of its configuration and so of all it holds.

    Raises:
        DataError: the daemon does not have it, or takes it for no name.
        DaemonError: the daemon failed, or went away.
    """
    from docker.errors import APIError, ImageNotFound, NullResource

    try:
        return str(daemon.inspect_image(name)["Id"])
    except ImageNotFound:
        raise DataError(
            f"container.image: got {name}, which the Docker daemon does not have; do: make docker, or docker pull it"
        ) from None
    except (APIError, NullResource, OSError) as error:
        if isinstance(error, NullResource) or (isinstance(error, APIError) and error.is_client_error()):
            allowed = "allowed: a name in small letters, e.g. assay:cpu; correct it in the machine file"
            raise DataError(f"container.image: got {name!r} (Docker says: {_plain(error)}); {allowed}") from None
        raise DaemonError(
            f"docker: {name}: the daemon failed ({_plain(error)}); try again, or look at its log"
        ) from None


def run(daemon: Any, request: Request) -> int:
    """Run one container to its end and remove it; returns the command's exit code.

    Raises:
        UserError: it cannot be started.
        DaemonError: the daemon refused, or went away.
    """
    from docker.errors import APIError

    heard: SimpleQueue[int | Ended | None] = SimpleQueue()
    for number in FORWARDED_SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: heard.put(received))
    image = find_image(daemon, request.image)
    try:
        _clear(daemon, request.name)
        container = _create(daemon, described(request, image))
        try:
            ended = _follow(daemon, container, heard)
        finally:
            with suppress(APIError, OSError):
                daemon.remove_container(container, force=True)
    except (APIError, OSError) as error:
        raise _explained(error, request) from None
    if ended.out_of_memory:
        limit = "all of its machine" if request.memory is None else f"its {request.memory:g} GiB"
        _say(f"the container ran out of memory: it used {limit} and the kernel killed a process of it")
    return ended.code


def _clear(daemon: Any, name: str) -> None:
    """End what an earlier job of the same command left behind, which a scheduler's SIGKILL does."""
    from docker.errors import NotFound

    with suppress(NotFound):
        daemon.inspect_container(name)
        _say(f"container {name} of an earlier job is still there; it is asked to stop")
        daemon.stop(name, timeout=STOP_S)
        daemon.remove_container(name, force=True)


def _create(daemon: Any, config: dict[str, Any]) -> str:
    settings = {key: value for key, value in config["host_config"].items() if value is not None}
    return str(daemon.create_container(**{**config, "host_config": daemon.create_host_config(**settings)})["Id"])


def _follow(daemon: Any, container: str, heard: "SimpleQueue[int | Ended | None]") -> Ended:
    """Start it; pass output and signals on until it has ended."""
    from docker.errors import APIError

    output = daemon.attach(container, stream=True, demux=True)
    reader = Thread(target=_copy, args=(output,), daemon=True)
    reader.start()
    daemon.start(container)
    Thread(target=_wait, args=(daemon, container, heard), daemon=True).start()
    while isinstance(event := heard.get(), int):
        with suppress(APIError):  # it has just ended
            daemon.kill(container, signal=event)
    if event is None:
        raise DaemonLostError(
            "docker: the daemon went away while the container ran; the next attempt goes on from there"
        )
    reader.join(LAST_WORDS_S)
    return event


def _wait(daemon: Any, container: str, heard: "SimpleQueue[int | Ended | None]") -> None:
    """In a thread: how it ended, or None if nobody knows."""
    ended = None
    with suppress(Exception):  # whatever becomes of the connection, whoever waits for an answer gets one
        daemon.wait(container)
        state = daemon.inspect_container(container)["State"]
        ended = Ended(code=state["ExitCode"], out_of_memory=state["OOMKilled"])
    heard.put(ended)


def _copy(output: Any) -> None:
    """In a thread: what the container says, as it says it."""
    with suppress(Exception):  # the connection ends with the container, one way or another
        for out, error in output:
            for part, stream in ((out, sys.stdout.buffer), (error, sys.stderr.buffer)):
                with suppress(OSError):  # on a full disk; a container to which nobody listens would come to a halt
                    stream.write(part or b"")
                    stream.flush()


def _explained(error: Exception, request: Request) -> AssayError:
    said = _plain(error)
    known = explain_daemon(request.image, said)
    if known:
        return UserError(known)
    return DaemonError(f"docker: {request.image}: the daemon refused ({said}); correct that, then submit again")


def _plain(error: Exception) -> str:
    """The reason, in one line."""
    told = getattr(error, "explanation", None) or getattr(error, "strerror", None) or error
    return " ".join(str(told).split())


def _remedy(error: Exception) -> str:
    if "Permission denied" in str(error):
        return "join the group docker, or give the job to somebody who is in it"
    return "start it: systemctl start docker; or name another in the machine file"


def _say(text: str) -> None:
    print(f"assay: {text}", file=sys.stderr, flush=True)
