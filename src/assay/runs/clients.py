"""The supervisor's end of the progress socket: who speaks, where each stage is, how long its parts took."""

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay.errors import AssayError
from assay.progress import MESSAGE_BYTES, PEER_LOST, UNFINISHED
from assay.runs.config import WatchConfig
from assay.runs.local_memory import make_local_memory
from assay.runs.record import Progress, Stage, Work
from assay.runs.watch import Silence

KEPT_DURATIONS = 20
IDLE = "load"
"""The phase of a client that has announced none: it is importing, or opening its data."""
ASIDE = ("checkpoint", "validate")
"""Phases between two steps of another one."""


@dataclass
class Begun:
    """An open phase: the units it began with, and the seconds of phases that have ended within it."""

    first: int
    within_s: float = 0.0


class Client:
    """One process that speaks: usually a stage; in distributed training one for each rank."""

    def __init__(self, connection: socket.socket, watch: WatchConfig, now: float) -> None:
        self.connection = connection
        self.pid = 0
        self.rank: int | None = None
        self.world = 1
        self.stacks: Path | None = None
        self.silence = Silence(watch, IDLE, now)
        self.phases: list[Progress] = []
        self.begun: list[Begun] = []
        self.study = self.stage = ""
        self.started = time.time()
        self.begun_at = time.monotonic()
        self.ended: float | None = None
        self.latest = Progress(phase=IDLE, since=self.started)
        self.code: int | None = None
        self.error: str | None = None
        self.kind: str | None = None
        self.facts: dict[str, Any] = {}
        self.seconds: dict[str, list[float]] = {}
        self.work: dict[str, Work] = {}
        self.asked = False

    def hear(self, message: dict[str, Any], now: float) -> None:
        """Take in one message. What is not as it should be is left out, and still shows that its sender lives."""
        takers = {
            "hello": self._hello,
            "stage": self._announce,
            "phase": self._begin,
            "step": self._step,
            "end": self._finish,
            "verdict": self._verdict,
        }
        if self._ends_interval(message):
            self.silence.moved(now, self.silence.phase)
        take = takers.get(_text(message.get("type")) or "")
        if take is not None:
            take(message)
        self.silence.enter(now, (self.phases[-1].phase or IDLE) if self.phases else IDLE)

    @property
    def counts(self) -> bool:
        """Whether its stage is kept: of several ranks the first one's, and those of others that failed themselves."""
        return bool(self.stage) and (not self.rank or self.code not in (None, 0, UNFINISHED, PEER_LOST))

    def tell_limit(self, seconds: float) -> None:
        """Tell it how much time is left, so that it begins nothing that takes longer."""
        with suppress(OSError):
            self.connection.send(json.dumps({"limit": seconds}).encode(), socket.MSG_DONTWAIT)

    def ask_to_stop(self) -> None:
        """Ask once; a client that has gone needs no asking."""
        if not self.asked:
            self.asked = True
            with suppress(OSError):
                self.connection.send(b"{}", socket.MSG_DONTWAIT)

    def checkpoint_s(self) -> float | None:
        """The longest checkpoint so far, in s."""
        return max(self.seconds["checkpoint"], default=None) if "checkpoint" in self.seconds else None

    def elapsed_s(self) -> float:
        """How long it has run, in s, whatever becomes of the time of day."""
        return time.monotonic() - self.begun_at

    def step_s(self) -> float:
        """The longest of the latest steps of the phase that is running, in s; 0 before there is one.

        One that validates is told its limit and looks itself.
        """
        running = [phase.phase for phase in self.phases if phase.phase not in ASIDE]
        return max(self.silence.intervals.get(running[-1] or IDLE, ()), default=0.0) if running else 0.0

    def progress(self) -> Progress:
        """Where it is, or was: the outermost phase's count, the innermost phase's name."""
        shown = [*self.phases, self.latest]
        return replace(
            shown[0],
            study=self.study or None,
            stage=self.stage or None,
            phase=self.phases[-1].phase if self.phases else self.latest.phase,
            changed=time.time() - self.silence.silent(time.monotonic()),
        )

    def record(self) -> Stage:
        """What is kept about the stage."""
        return Stage(
            study=self.study,
            stage=self.stage,
            started=self.started,
            ended=self.ended,
            code=self.code,
            error=self.error,
            kind=self.kind,
            seconds={name: list(values) for name, values in self.seconds.items()},
            work=dict(self.work),
            facts=self.facts,
        )

    def _hello(self, message: dict[str, Any]) -> None:
        self.pid = max(_whole(message.get("pid")) or 0, 0)
        rank, world = (_text(message.get(name)) or "" for name in ("rank", "world_size"))
        if rank.isdecimal() and world.isdecimal():
            self.rank, self.world = int(rank), int(world)
        stacks = _text(message.get("stacks"))
        self.stacks = Path(stacks) if stacks else None

    def _announce(self, message: dict[str, Any]) -> None:
        self.study = _text(message.get("study")) or self.study
        self.stage = _text(message.get("stage")) or self.stage
        facts = message.get("facts")
        if isinstance(facts, dict):
            self.facts |= facts

    def _begin(self, message: dict[str, Any]) -> None:
        name, now = _text(message.get("phase")), time.time()
        if name is not None:
            unit = _text(message.get("unit")) or Progress.unit
            begun = Progress(phase=name, of=_whole(message.get("of")), unit=unit, since=now, changed=now)
            self.phases.append(replace(begun, **_numbers(message)))
            self.begun.append(Begun(first=self.phases[-1].done))

    def _step(self, message: dict[str, Any]) -> None:
        """A fork goes on in a phase that its parent has begun: to its supervisor it begins with its first step."""
        place = self._place(message)
        if place is None:
            self._begin(message)
        else:
            self.phases[place] = replace(self.phases[place], changed=time.time(), **_numbers(message))

    def _finish(self, message: dict[str, Any]) -> None:
        place = self._place(message)
        if place is not None:
            ended = replace(self.phases[place], **_numbers(message))
            begun = self.begun[place]
            del self.phases[place:], self.begun[place:]
            self.latest = self.latest if self.phases else ended
            self._sum_up(ended, begun, _real(message.get("seconds")) or 0.0)
        name, seconds = _text(message.get("phase")), _real(message.get("seconds"))
        if name is not None and seconds is not None:
            durations = self.seconds.setdefault(name, [])
            durations.append(seconds)
            del durations[:-KEPT_DURATIONS]

    def _sum_up(self, ended: Progress, begun: "Begun", seconds: float) -> None:
        """Add a pass to the phase's sums, and take its time out of those of the phase around it."""
        name = ended.phase or IDLE
        before = self.work.get(name, Work())
        self.work[name] = Work(
            passes=before.passes + 1,
            seconds=before.seconds + max(seconds - begun.within_s, 0.0),
            units=before.units + max(ended.done - begun.first, 0),
            of=ended.of,
            unit=ended.unit,
            epoch=ended.epoch,
        )
        if self.begun:
            self.begun[-1].within_s += seconds

    def _verdict(self, message: dict[str, Any]) -> None:
        self.code, self.error = _whole(message.get("code")), _text(message.get("error"))
        self.kind = _text(message.get("kind"))

    def _place(self, message: dict[str, Any]) -> int | None:
        """Where the phase that a message is about stands among the open ones, the innermost of its name."""
        names = [phase.phase for phase in self.phases]
        name = _text(message.get("phase"))
        return len(names) - 1 - names[::-1].index(name) if name in names else None

    def _ends_interval(self, message: dict[str, Any]) -> bool:
        """A step ends one, and so does the end of a phase that made none: a checkpoint has one for each pass."""
        if not self.phases:
            return False
        last = self.phases[-1]
        return message.get("type") == "step" or (message.get("type") == "end" and last.changed == last.since)


def watched(clients: list[Client]) -> list[Client]:
    """Those whose silence counts; nobody, where nobody has said what it is doing: then the command's counts.

    Every announced stage must go on speaking. Of its ranks, which wait for each other and for the one that validates,
    one is enough: if any of them hangs, all fall silent. Of others, which may be forks that wait or programs that have
    started another one, one in an open phase is enough. That one is the one that may be silent for longest from now.
    """
    announced = [client for client in clients if client.stage]
    ranks = [client for client in announced if client.rank is not None]
    if announced:
        return [client for client in announced if client.rank is None] + _most_patient(ranks)
    return _most_patient([client for client in clients if client.phases])


def _most_patient(clients: list[Client]) -> list[Client]:
    return sorted(clients, key=lambda client: client.silence.heard + client.silence.bound())[-1:]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _real(value: Any) -> float | None:
    """A finite number, else None; true and false are none."""
    return value if type(value) in (int, float) and abs(value) <= sys.float_info.max else None


def _whole(value: Any) -> int | None:
    number = _real(value)
    return None if number is None else int(number)


def _numbers(message: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a message that are as they should be; a loss that is not finite is none, not the one before."""
    bytes_read, epoch = _whole(message.get("bytes")), _real(message.get("epoch"))
    found = {"done": _whole(message.get("done")), "epoch": epoch, "bytes_read": bytes_read}
    loss = {"loss": _real(message["loss"])} if "loss" in message else {}
    return {name: value for name, value in found.items() if value is not None} | loss


class Listener:
    """A socket in local memory that only this user can reach; removed when closed."""

    def __init__(self) -> None:
        self.folder = make_local_memory(os.getppid())
        self.address = self.folder / "socket"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.bind(str(self.address))
        except OSError as error:
            raise AssayError(f"{self.address}: no socket can be made there ({error}); set TMPDIR shorter") from None
        self.socket.listen()
        self.socket.setblocking(False)

    def accept(self, watch: WatchConfig, now: float) -> Client:
        """The next client."""
        connection, _ = self.socket.accept()
        connection.setblocking(False)
        return Client(connection, watch, now)

    def close(self) -> None:
        """Take the socket and the stacks beside it away."""
        self.socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def messages(client: Client) -> Iterator[dict[str, Any] | None]:
    """What a client has sent since the last call; None when it has gone. What is no message is passed over."""
    while True:
        try:
            raw = client.connection.recv(MESSAGE_BYTES)
        except BlockingIOError:
            return
        except ConnectionResetError:  # said once: it left what it was told unread; what it had sent is still there
            continue
        except OSError:
            raw = b""
        if not raw:
            yield None
            return
        with suppress(ValueError, RecursionError):
            message = json.loads(raw, parse_constant=lambda _: None)  # NaN is no JSON, and records are
            if isinstance(message, dict):
                yield message
