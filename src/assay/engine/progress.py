"""What a person sees while a stage works: a bar with ETA on a terminal, a line now and then in a log file."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


class Phase:
    """Progress of one phase; `advance` is cheap enough to be called every step."""

    def __init__(self, name: str, total: int, done: int) -> None:
        self.name, self.total, self.done, self.first = name, total, done, done
        self.started = self.printed = time.monotonic()
        self.note = ""

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """`count` more units are done; `note` is shown beside the bar, e.g. the loss."""
        self.done += count
        if note is not None:
            self.note = note
        self.show()

    def show(self) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        if now - self.printed >= LINE_EVERY_S:
            self.printed = now
            left = (now - self.started) / max(self.done - self.first, 1) * (self.total - self.done)
            print(
                f"{self.name} {self.done}/{self.total} {self.note} about {left:.0f} s left", file=sys.stderr, flush=True
            )


class BarPhase(Phase):
    """The same on a terminal."""

    def __init__(self, name: str, total: int, done: int, bar: Progress) -> None:
        super().__init__(name, total, done)
        self.bar = bar
        self.bar_task = bar.add_task(name, total=total, completed=done, note="")

    def show(self) -> None:
        """Move the bar."""
        self.bar.update(self.bar_task, completed=self.done, note=self.note)


@contextmanager
def phase(name: str, total: int, done: int = 0) -> Iterator[Phase]:
    """Show the progress of a phase of `total` units, `done` of them from an earlier attempt."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Phase(name, total, done)
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        yield BarPhase(name, total, done, bar)
