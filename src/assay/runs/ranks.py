"""Several processes for one stage: how they are started, heard and ended; open it when one of them is left, or lost.

Each is the same stage with torchrun's variables, so torchrun can start them as well. It is not used here because it
ends with 1 whatever its ranks end with (75 and 76 would be lost), dies of SIGUSR1, and imports torch to do so.
"""

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from assay.errors import ConfigError
from assay.progress import PEER_LOST, STALLED, UNFINISHED
from assay.runs.processes import set_parent_death_signal

PROCESSES = "ASSAY_PROCESSES"
"""Environment variable: how many processes train one network together; a machine file sets it for its jobs."""
RANK = "RANK"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
LOOK_EVERY_S = 0.05
OTHERS_WITHIN_S = 3.0
"""How long the others may take to end by themselves once one has failed: an error that is the cause may come late."""
ELSEWHERE_WITHIN_S = 15.0
"""How long other nodes have to say how their ranks ended, where those here have lost them."""
SAVED_WITHIN_S = 60.0
"""The same after one that has ended as it should."""
TERM_WITHIN_S = 3.0
LOOPBACK = "lo"
"""The network interface of ranks on one computer: a name that does not resolve, or a firewall, cannot part them."""


def processes_wanted(given: int | None, environment: Mapping[str, str]) -> int:
    """How many processes a stage that trains is to have: as given, else as the environment says, else one.

    One, too, for a process that is itself a rank.

    Raises:
        ConfigError: what the environment says is no number of processes.
    """
    if RANK in environment:
        return 1
    if given is not None:
        where, text = "--processes", str(given)
    else:
        where, text = PROCESSES, environment.get(PROCESSES, "1")
    if not (text.isdecimal() and int(text) > 0):
        raise ConfigError(f"{where}: got {text}; allowed: a whole number >= 1, usually one for each GPU")
    return int(text)


def node_name(environment: Mapping[str, str]) -> str:
    """What this computer is called: by Slurm, else by itself."""
    return environment.get("SLURMD_NODENAME") or os.uname().nodename


@dataclass(frozen=True, kw_only=True)
class Place:
    """The ranks of one computer among all: `local` of `world`, from number `first` on; where the first one listens."""

    world: int
    local: int
    first: int = 0
    address: str = "127.0.0.1"
    port: int = 0

    def variables(self, local_rank: int, environment: Mapping[str, str]) -> dict[str, str]:
        """What torchrun would tell a process of this computer; cores are shared out unless somebody has."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shared = {"OMP_NUM_THREADS": str(max(1, cores // self.local))}
        if self.local == self.world:
            shared["GLOO_SOCKET_IFNAME"] = LOOPBACK
        return {
            RANK: str(self.first + local_rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self.local),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
            **{name: value for name, value in shared.items() if name not in environment},
        }


@dataclass(frozen=True)
class Ended:
    """How a rank, or all ranks of another node, ended: exit code, or minus the signal's number. by_us: asked to."""

    who: str
    code: int
    by_us: bool = False
    leads: bool = False


class Elsewhere(Protocol):
    """The other nodes that work on the same stage."""

    def ended(self) -> list[Ended]:
        """Those that have ended, with all their ranks, so far."""
        ...

    def dismiss(self) -> None:
        """Have those end that have not."""
        ...

    @property
    def count(self) -> int:
        """How many there are."""
        ...


def run_ranks(command: Sequence[str], place: Place, elsewhere: Elsewhere | None = None) -> int:
    """Run a command in the processes of this computer, to the end of the last; returns the code that counts.

    A signal is passed on to all. When one has failed the others are ended. 71: the fault is on another node.
    """
    ranks = Ranks(command, place, elsewhere)
    before = {number: signal.signal(number, ranks.forward) for number in FORWARDED}
    try:
        ranks.start()
        return ranks.wait()
    finally:
        if ranks.running:
            ranks.end(0.0)
        for number, handler in before.items():
            signal.signal(number, handler)


class Ranks:
    """The processes of one stage on this computer."""

    def __init__(self, command: Sequence[str], place: Place, elsewhere: Elsewhere | None) -> None:
        self.command, self.place, self.elsewhere = command, place, elsewhere
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.here: list[Ended] = []
        self.there: list[Ended] = []
        self.ending = False
        self.failed_at = self.saved_at = math.inf
        self.asked: int | None = None
        self.pause = threading.Event()  # its stack says that it waits for others, which that of time.sleep does not

    def start(self) -> None:
        """All of them, each in a session of its own, so that Ctrl-C reaches it once: from here."""
        for local in range(self.place.local):
            self.running[self.place.first + local] = subprocess.Popen(
                self.command,
                env={**os.environ, **self.place.variables(local, os.environ)},
                start_new_session=True,
                preexec_fn=lambda: set_parent_death_signal(signal.SIGKILL),
            )
        if self.asked is not None:  # it came while they were being started
            self.forward(self.asked, None)

    def forward(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on."""
        self.asked = number
        for process in self.running.values():
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def wait(self) -> int:
        """Until all have ended; the code that counts."""
        while self.running or self._asks_elsewhere():
            self._look()
            if time.monotonic() > self._until():
                self.end(TERM_WITHIN_S)
                break
            self.pause.wait(LOOK_EVERY_S)
        return self._verdict()

    def end(self, patience_s: float) -> None:
        """End what still runs, here and elsewhere: asked first, then killed."""
        self.ending = True
        if self.elsewhere is not None:
            self.elsewhere.dismiss()
        for number, within_s in ((signal.SIGTERM, patience_s), (signal.SIGKILL, TERM_WITHIN_S)):
            self.forward(number, None)
            until = time.monotonic() + within_s
            while self.running and time.monotonic() < until:
                self._look()
                self.pause.wait(LOOK_EVERY_S)

    def _asks_elsewhere(self) -> bool:
        """Whether the other nodes have to say what was at fault; what ends well here does so there, for ranks agree."""
        missing = 0 if self.elsewhere is None else self.elsewhere.count - len(self.there)
        return missing > 0 and any(each.code not in (0, UNFINISHED) for each in self.here)

    def _look(self) -> None:
        for rank, process in list(self.running.items()):
            code = process.poll()
            if code is not None:
                del self.running[rank]
                who = f"rank {rank} of {self.place.world} on {node_name(os.environ)}"
                self.here.append(Ended(who, code, self.ending, leads=rank == 0))
        if self.elsewhere is not None and not self.ending:
            self.there = self.elsewhere.ended()

    def _until(self) -> float:
        """When whoever still runs, or owes an answer, has had time enough; never while nobody has ended."""
        ended = [*self.here, *self.there]
        if any(each.code not in (0, UNFINISHED) for each in ended):
            self.failed_at = min(self.failed_at, time.monotonic())
        elif any(each.code == UNFINISHED or each.leads for each in ended):
            self.saved_at = min(self.saved_at, time.monotonic())
        return min(
            self.failed_at + (OTHERS_WITHIN_S if self.running else ELSEWHERE_WITHIN_S), self.saved_at + SAVED_WITHIN_S
        )

    def _verdict(self) -> int:
        """That of the rank at fault: one that a signal ended, else the first that failed by itself."""
        own = [each for each in (*self.here, *self.there) if not each.by_us]
        killed = [each for each in own if each.code < 0]
        failed = [each for each in own if each.code not in (0, UNFINISHED, STALLED, PEER_LOST)]
        for each in [*killed, *failed][:1]:
            _say(f"{each.who} {_how(each.code)}")
            return each.code if each.code > 0 else 128 - each.code
        for each in own:
            if each.code == STALLED:
                _say(f"{each.who} stalled")
                return STALLED
        if any(each.code == PEER_LOST for each in own) or any(each.by_us and each.code < 0 for each in self.here):
            _say("a rank did not answer the others; all were ended")
            return 1 if self.place.first == 0 else PEER_LOST
        return max((each.code for each in own), default=1)


def _how(code: int) -> str:
    if code > 0:
        return f"ended with {code}"
    known = set(signal.Signals)
    return f"was killed by {signal.Signals(-code).name if -code in known else -code}"


def _say(text: str) -> None:
    print(f"assay: {text}", file=sys.stderr, flush=True)


def free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
