"""How a program tells its supervisor what it is doing; open it to make your own script a run that can be watched.

    from assay import progress

    with progress.phase("load", total=len(files), unit="files") as p:
        for file in files:
            read(file)
            p.advance()
            if progress.stop_requested():
                save_checkpoint()
                sys.exit(progress.UNFINISHED)

Under `assay exec` the messages travel over a Unix socket in local memory, named by the environment variable
ASSAY_PROGRESS; without it every call does nothing. No call blocks, fails, or touches a file system that a run uses.
Numbers may be of any kind, also numpy's and torch's; what is no number is left out.
"""

import errno
import faulthandler
import json
import os
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SOCKET = "ASSAY_PROGRESS"
UNFINISHED, STALLED = 75, 76
PEER_LOST = 71
"""With this ends a rank whose exchange with the others failed: one of them has ended, and that one's end counts."""
SEND_EVERY_S = 0.05
MESSAGE_BYTES = 2**17
"""Longest message; a Unix socket takes about 200,000 bytes by default."""
STACKS_SIGNAL = signal.SIGUSR2


class Phase:
    """A phase that has begun. Numbers are sent at most every 0.05 s, however often `advance` is called."""

    def __init__(self, name: str, total: float | None, done: float, unit: str) -> None:
        self.name, self.unit = str(name), str(unit)
        self.total, self.done = _whole(total), _whole(done) or 0
        self.facts: dict[str, Any] = {}
        self._sent = -SEND_EVERY_S

    def advance(
        self, count: float = 1, *, epoch: Any = None, loss: Any = None, bytes_read: float | None = None
    ) -> None:
        """`count` more units are done; `loss` and `epoch` as they are now, `bytes_read` so far in this phase.

        A loss on a GPU is waited for only when it is sent.
        """
        self.done += _whole(count) or 0
        facts = {"epoch": epoch, "loss": loss, "bytes": bytes_read}
        self.facts |= {name: value for name, value in facts.items() if value is not None}
        now = time.monotonic()
        if now - self._sent >= SEND_EVERY_S:
            self._sent = now
            _connection.send({"type": "step", **self.state()})

    def state(self) -> dict[str, Any]:
        """Its name and its numbers, as they are sent."""
        numbers = {name: _number(value) for name, value in self.facts.items()}
        known = {name: value for name, value in numbers.items() if value is not None}
        return {"phase": self.name, "done": self.done, **known}


@contextmanager
def phase(name: str, total: float | None = None, done: float = 0, unit: str = "steps") -> Iterator[Phase]:
    """Announce a phase of `total` units (None: unknown), `done` of them by earlier attempts; phases may be nested.

    Usual names are load, train, checkpoint, validate: each has its own bound on silence.
    """
    begun = time.monotonic()
    opened = Phase(name, total, done, unit)
    begin = {"phase": opened.name, "of": opened.total, "done": opened.done, "unit": opened.unit}
    _connection.send({"type": "phase", **begin})
    try:
        yield opened
    finally:
        seconds = time.monotonic() - begun
        _connection.send({"type": "end", "seconds": seconds, **opened.state()})


def announce(study: str, stage: str, **facts: Any) -> None:
    """Say which stage this process is; `facts` (JSON values: identity, resolved parameters) go into the record.

    A fact that is no JSON value is left out; all are, if they are longer than 128 KiB together.
    """
    told = {name: value for name, value in facts.items() if _encoded(value) is not None}
    _connection.send({"type": "stage", "study": str(study), "stage": str(stage), "facts": told}, spare="facts")


def verdict(code: int, error: str | None = None, kind: str | None = None) -> None:
    """Say how this process ends, for whoever stands between it and its supervisor may hide the exit code.

    code: 0, 75 (unfinished, a checkpoint has been saved), 76 (stalled), 2 (configuration) or another failure.
    error, kind: the message and the exception's type; a message longer than 128 KiB is left out.
    """
    said = {"code": _whole(code), "error": _known(error), "kind": _known(kind)}
    _connection.send({"type": "verdict", **said}, wait=True, spare="error")


def stop_requested() -> bool:
    """Whether the supervisor has asked this process to save a checkpoint and end with exit code 75."""
    return _connection.stop_requested()


def seconds_left() -> float | None:
    """Time until this process must have ended, in s; None if there is no limit or no supervisor."""
    _connection.stop_requested()
    return None if _connection.limit is None else _connection.limit - time.monotonic()


class _Connection:
    """The socket to the supervisor, opened at first use; a forked process opens its own."""

    def __init__(self) -> None:
        self.owner = 0
        self.socket: socket.socket | None = None
        self.stop = False
        self.limit: float | None = None
        self.asked = -SEND_EVERY_S
        os.register_at_fork(after_in_child=self._close)

    def send(self, message: dict[str, Any], wait: bool = False, spare: str | None = None) -> None:
        """Send one message; drop it if the supervisor is gone or, unless `wait` (1 s at most), its queue is full.

        spare: what is left out of a message that is too long; without it the message is dropped.
        """
        self._open()
        raw = _encoded(message)
        if spare is not None and (raw is None or len(raw) > MESSAGE_BYTES):
            raw = _encoded({**message, spare: None})
        if self.socket is None or raw is None or len(raw) > MESSAGE_BYTES:
            return
        try:
            self.socket.send(raw, 0 if wait else socket.MSG_DONTWAIT)
        except OSError as failed:
            if failed.errno not in _DROPPED:
                self._lose()

    def stop_requested(self) -> bool:
        """Look for a request, at most every 0.05 s."""
        now = time.monotonic()
        if not self.stop and now - self.asked >= SEND_EVERY_S:
            self.asked = now
            self._open()
            while self.socket is not None and not self.stop:
                try:
                    self._take(self.socket.recv(4096, socket.MSG_DONTWAIT))
                except BlockingIOError:
                    break
                except OSError:
                    self._lose()
        return self.stop

    def _take(self, raw: bytes) -> None:
        """A limit, or a request to stop; nothing at all: the supervisor has gone."""
        if not raw:
            self._lose()
            return
        message = json.loads(raw)
        if "limit" in message:
            self.limit = time.monotonic() + message["limit"]
        else:
            self.stop = True

    def _open(self) -> None:
        if self.owner == os.getpid():
            return
        self.owner, self.stop = os.getpid(), False
        address = os.environ.get(SOCKET)
        if not address:
            return
        try:
            opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # no file descriptor is left
            return
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        try:
            opened.connect(address)
        except OSError:
            opened.close()
            return
        self.socket = opened
        hello = {"type": "hello", "pid": self.owner, "stacks": _register_stacks(Path(address).parent)}
        rank = {name.lower(): os.environ[name] for name in ("RANK", "WORLD_SIZE") if name in os.environ}
        self.send({**hello, **rank})

    def _close(self) -> None:
        """In a fork: leave the socket to the parent."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _lose(self) -> None:
        """The supervisor is gone and nobody will collect this process: it is to save a checkpoint and end."""
        self._close()
        self.stop = True


def _register_stacks(folder: Path) -> str | None:
    """On SIGUSR2 this process and its forks append the stacks of all threads to a file in local memory."""
    if signal.getsignal(STACKS_SIGNAL) != signal.SIG_DFL:
        return None
    path = folder / f"{os.getpid()}.stacks"
    try:
        _stacks.append(path.open("ab", buffering=0))
    except OSError:
        return None
    faulthandler.register(STACKS_SIGNAL, file=_stacks[-1], all_threads=True)
    return str(path)


def _number(value: Any) -> float | None:
    """The value as a number; None for what is none, such as a tensor of several values."""
    try:
        return float(_scalar(value))
    except (TypeError, ValueError, ArithmeticError, RuntimeError):  # RuntimeError: torch's
        return None


def _whole(value: Any) -> int | None:
    """The value as a whole number; None for what is none, also not a number and infinity."""
    try:
        return int(_scalar(value))
    except (TypeError, ValueError, ArithmeticError, RuntimeError):
        return None


def _scalar(value: Any) -> Any:
    """What an array or a tensor of one value holds; float() would warn of one that has a gradient."""
    return value.item() if hasattr(value, "item") else value


def _known(value: Any) -> str | None:
    return None if value is None else str(value)


def _encoded(value: Any) -> bytes | None:
    """The value as JSON; None if it cannot be."""
    try:
        return json.dumps(value, default=_plain).encode()
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: Any) -> float:
    number = _number(value)
    if number is None:
        raise TypeError
    return number


_DROPPED = {errno.EAGAIN, errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM}
"""A message may fail to be sent while the supervisor is there."""
_stacks: list[Any] = []  # kept open: faulthandler writes to them
_connection = _Connection()
