"""Requests to stop, by a signal or by the supervisor; the loop asks between two steps.

Open it when a job ends too hard.
"""

import os
import signal
import time
from types import FrameType, TracebackType

from assay import progress

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
WAY_OUT_S = 4.0
"""From the last checkpoint to the end of the job: the stage's own end, the pipeline tool's, the record."""


SAME_SIGNAL_S = 1.0
"""A rank may be told twice, by whoever started it and by the supervisor or scheduler: within this time it is once."""


class StopRequest:
    """Within its context the first SIGTERM, SIGINT or SIGUSR1 asks the loop to stop; a second one ends at once.

    In a job of LSF only the same one again does: by itself bkill sends SIGINT, and SIGTERM ten seconds later.
    """

    def __init__(self) -> None:
        self._signals: set[int] = set()
        self._short = False
        self._same_until = 0.0
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in SIGNALS:
            self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @property
    def requested(self) -> bool:
        """Whether a signal has come or the supervisor has asked; cheap enough to be read every step."""
        return bool(self._signals) or self._short or progress.stop_requested()

    def before(self, seconds: float) -> bool:
        """Whether to stop rather than begin what takes `seconds`: asked to, or the job's limit would come first."""
        left = progress.seconds_left()
        self._short |= left is not None and left < seconds + WAY_OUT_S
        return self.requested

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        again = number in self._signals if "LSB_JOBID" in os.environ else bool(self._signals)
        if again and now >= self._same_until:
            raise SystemExit(128 + number)
        if not self._signals and "RANK" in os.environ:
            self._same_until = now + SAME_SIGNAL_S
        self._signals.add(number)
