"""A lock that ends with its process, whatever way that ends; open it when two processes do what one should."""

import errno
import fcntl
import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import BinaryIO

from assay.files import NO_LOCKS

POLL_S = 0.01
NAMES = Path("/proc/net/unix")
"""Where the kernel lists the names that processes of this computer have taken, see proc(5)."""


@contextmanager
def locked(path: Path, within_s: float = 0.0) -> Iterator[bool]:
    """Hold the lock of a file within; False: another has held it for so long. math.inf: wait for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + within_s
    while (held := _take(path)) is None and time.monotonic() < end:
        time.sleep(POLL_S)
    with held or nullcontext():
        yield held is not None


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock of a file; looking takes nothing, so that whoever else looks is not misled."""
    with ExitStack() as closing:
        try:
            fcntl.flock(closing.enter_context(path.open("rb")), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _say(path, error.strerror)
            return f"@{_name_of(path)}\n" in NAMES.read_text(errors="replace")
    return False


def _take(path: Path) -> BinaryIO | socket.socket | None:
    with ExitStack() as closing:
        file = closing.enter_context(path.open("ab"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _say(path, error.strerror)
            return _take_name(path)
        closing.pop_all()
        return file


def _take_name(path: Path) -> socket.socket | None:
    """A name that the kernel of this computer gives to one process at a time, and takes back when that ends."""
    name = socket.socket(socket.AF_UNIX)
    try:
        name.bind(f"\0{_name_of(path)}")
    except OSError as error:
        name.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return name


def _name_of(path: Path) -> str:
    return f"assay-{hashlib.sha256(bytes(path.absolute())).hexdigest()}"


@cache
def _say(path: Path, why: str) -> None:
    """Once for each file and process."""
    given = f"assay: {path}: cannot be locked ({why})"
    print(f"{given}; going on: give assay submit on one computer only, others are not seen", file=sys.stderr)
