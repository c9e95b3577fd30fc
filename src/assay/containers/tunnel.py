"""A Docker daemon of another machine as a socket of this one, through ssh; open it when `ssh://` hosts do not answer.

The SDK's own way through ssh needs paramiko, and its plain-ssh variant holds output back until a buffer is full.
"""

import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from assay.errors import UserError
from assay.runs.processes import set_parent_death_signal

REMOTE = "/var/run/docker.sock"
READY_WITHIN_S = 30.0
OPTIONS = ("BatchMode=yes", "ExitOnForwardFailure=yes", "ServerAliveInterval=15", "StreamLocalBindUnlink=yes")
"""Ask nobody for a password; end if the way is closed, or the other side is gone."""


@contextmanager
def tunnel(at: str) -> Iterator[str]:
    """The address to use for a daemon: `at` itself unless it is ssh://[USER@]HOST[:PORT].

    Raises:
        UserError: ssh is not there, or does not get through; its own words follow.
    """
    if not at.startswith("ssh://"):
        yield at
        return
    with TemporaryDirectory(prefix="assay-ssh-") as folder:
        local = Path(folder) / "docker.socket"
        process = _start(command(at, local), at)
        try:
            _await(process, local, at)
            yield f"unix://{local}"
        finally:
            process.terminate()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def command(at: str, local: Path) -> list[str]:
    """ssh with nothing but the one way through."""
    parts = urlsplit(at)
    return [
        *("ssh", "-nNT", "-L", f"{local}:{REMOTE}"),
        *(word for option in OPTIONS for word in ("-o", option)),
        *(["-p", str(parts.port)] if parts.port else []),
        *(["-l", parts.username] if parts.username else []),
        *("--", str(parts.hostname)),
    ]


def _start(arguments: list[str], at: str) -> "subprocess.Popen[str]":
    try:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the container, and must find the way open
            preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
        )
    except OSError as error:
        raise UserError(f"container.host: got {at}, and ssh cannot be started ({error.strerror}); install it") from None


def _await(process: "subprocess.Popen[str]", local: Path, at: str) -> None:
    end = time.monotonic() + READY_WITHIN_S
    while not local.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.terminate()
            said = (
                " ".join((process.stderr.read() if process.stderr else "").split())
                or f"nothing within {READY_WITHIN_S:.0f} s"
            )
            raise UserError(f"container.host: {at} is not reached ({said}); ssh to it by hand, then correct it")
        time.sleep(0.05)
