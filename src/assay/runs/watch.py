"""When silence is a stall: pure bookkeeping, told the time by its caller; open it when a stall is called wrongly."""

from collections import deque
from statistics import median

from assay.runs.config import WatchConfig

REMEMBERED = 100
IDLE_CPU = 0.02
"""Cores: a plain command that uses less is idle. A Python process with waiting threads uses about 0.001."""
IDLE_BYTES = 4096
"""Bytes read or written between two samples that count as progress; wake-ups through pipes move fewer."""
COMMAND = "command"
"""What stands for a phase where a command says nothing of itself."""
SAME_FLOOR = {"import": "load"}


class Silence:
    """The silence of one speaker. Times are monotonic seconds."""

    def __init__(self, config: WatchConfig, phase: str, now: float) -> None:
        self.config = config
        self.phase = phase
        self.heard = now
        self.intervals: dict[str, deque[float]] = {}

    def moved(self, now: float, phase: str) -> None:
        """Progress was made; an interval counts for a phase only if both its ends lie in it."""
        if phase == self.phase:
            self.intervals.setdefault(phase, deque(maxlen=REMEMBERED)).append(now - self.heard)
        self.enter(now, phase)

    def enter(self, now: float, phase: str) -> None:
        """A phase begins, or goes on after another one: no interval."""
        self.phase, self.heard = phase, now

    def alive(self, now: float) -> None:
        """There is a sign of life, at no time of its own: no interval."""
        self.heard = now

    def interval(self) -> float:
        """The median interval of the present phase in s, 0 before there is one."""
        return median(self.intervals[self.phase]) if self.phase in self.intervals else 0.0

    def bound(self) -> float:
        """How long the present phase may be silent, in s.

        Before its first interval the largest floor of all phases: a first step may compile, a first read open much.
        """
        floors: dict[str, float] = vars(self.config.floors)
        if self.phase != COMMAND and self.phase not in self.intervals:
            return max(floor for name, floor in floors.items() if name != COMMAND)
        name = SAME_FLOOR.get(self.phase, self.phase)
        return max(floors[name if name in floors else "other"], self.config.factor * self.interval())

    def silent(self, now: float) -> float:
        """For how long nothing has been heard, in s."""
        return now - self.heard

    def stalled(self, now: float) -> bool:
        """Whether the silence is longer than its bound."""
        return self.silent(now) > self.bound()

    def excuse(self, seconds: float) -> None:
        """Time in which the watcher itself stood still (a stopped process, a sleeping laptop) is nobody's silence."""
        self.heard += seconds


class Activity:
    """Progress of a plain command between two samples: CPU time or bytes moved."""

    def __init__(self, now: float) -> None:
        self.sampled, self.cpu_s, self.moved_bytes = now, 0.0, 0

    def active(self, now: float, cpu_s: float, moved_bytes: int) -> bool:
        """Whether the process tree has done anything worth the name since the last call."""
        busy = cpu_s - self.cpu_s > IDLE_CPU * (now - self.sampled)
        moving = moved_bytes - self.moved_bytes > IDLE_BYTES
        self.sampled, self.cpu_s, self.moved_bytes = now, cpu_s, moved_bytes
        return busy or moving
