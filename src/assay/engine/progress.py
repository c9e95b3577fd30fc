"""What a person sees while a stage works: a bar with ETA on a terminal, a line now and then in a log file.

The supervisor, if there is one, is told the same. Open it to show another phase, or one that can be stopped.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from assay import progress
from assay.engine.stop import StopRequest
from assay.errors import Unfinished

LINE_EVERY_S = 10.0


class Phase:
    """Progress of one phase; `advance` is cheap enough to be called every step."""

    def __init__(self, name: str, total: int, told: progress.Phase, stop: StopRequest | None) -> None:
        self.name, self.total, self.first = name, total, told.done
        self.told, self.stop = told, stop
        self.started = self.printed = time.monotonic()
        self.note = ""
        self.end_if_asked()

    @property
    def done(self) -> int:
        """Units done, those of earlier attempts included."""
        return self.told.done

    def advance(
        self, count: int = 1, note: str | None = None, *, epoch: float | None = None, loss: float | None = None
    ) -> None:
        """`count` more units are done; `note` is shown beside the bar, `epoch` and `loss` go to the supervisor.

        Raises:
            Unfinished: the phase was opened with a stop request, one has come, and there are units left.
        """
        self.told.advance(count, epoch=epoch, loss=loss)
        if note is not None:
            self.note = note
        self.show()
        self.end_if_asked()

    def end_if_asked(self) -> None:
        """Raise Unfinished if `stop` has come before the last unit."""
        if self.stop is not None and self.done < self.total and self.stop.requested:
            where = f"{self.name}: stopped at {self.done} of {self.total} {self.told.unit}"
            raise Unfinished(f"{where}; it starts anew next time")

    def show(self) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        if now - self.printed >= LINE_EVERY_S:
            self.printed = now
            left = (now - self.started) / max(self.done - self.first, 1) * (self.total - self.done)
            print(
                f"{self.name} {self.done}/{self.total} {self.note} about {left:.0f} s left", file=sys.stderr, flush=True
            )


class QuietPhase(Phase):
    """The same in a process beside the one that shows it."""

    def show(self) -> None:
        """Nothing."""


class BarPhase(Phase):
    """The same on a terminal."""

    def __init__(self, name: str, total: int, told: progress.Phase, stop: StopRequest | None) -> None:
        super().__init__(name, total, told, stop)
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        self.bar = Progress(*columns, console=Console(stderr=True))
        self.bar_task = self.bar.add_task(name, total=total, completed=self.done, note="")

    def show(self) -> None:
        """Move the bar."""
        self.bar.update(self.bar_task, completed=self.done, note=self.note)


@contextmanager
def phase(
    name: str, total: int, done: int = 0, unit: str = "steps", stop: StopRequest | None = None, quiet: bool = False
) -> Iterator[Phase]:
    """Show the progress of a phase of `total` units, `done` of them from an earlier attempt; `quiet`: not here.

    Raises:
        Unfinished: here or in `advance`, once `stop` asks for it; for stages that keep no checkpoint.
    """
    with progress.phase(name, total, done, unit) as told:
        if quiet:
            yield QuietPhase(name, total, told, stop)
            return
        if not Console(stderr=True).is_terminal:
            yield Phase(name, total, told, stop)
            return
        shown = BarPhase(name, total, told, stop)
        with shown.bar:
            yield shown
