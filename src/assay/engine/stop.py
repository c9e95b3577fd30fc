"""Requests to stop, by a signal or by the supervisor; the loop asks between two steps.

Open it when a job ends too hard.
"""

import signal
from types import FrameType, TracebackType

from assay import progress

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
WAY_OUT_S = 4.0
"""From the last checkpoint to the end of the job: the stage's own end, the pipeline tool's, the record."""


class StopRequest:
    """Within its context the first SIGTERM, SIGINT or SIGUSR1 asks the loop to stop; a second one ends at once."""

    def __init__(self) -> None:
        self._signalled = self._short = False
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
        return self._signalled or self._short or progress.stop_requested()

    def before(self, seconds: float) -> bool:
        """Whether to stop rather than begin what takes `seconds`: asked to, or the job's limit would come first."""
        left = progress.seconds_left()
        self._short |= left is not None and left < seconds + WAY_OUT_S
        return self.requested

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise SystemExit(128 + number)
        self._signalled = True
