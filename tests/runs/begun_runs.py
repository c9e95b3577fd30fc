"""Attempts that begin now."""

import time

from assay.runs.record import Attempt, Holder
from assay.runs.store import this_process


def attempt(holder: Holder | None = None, **changes) -> Attempt:
    """An attempt that this process, or another holder, begins now."""
    now = time.time()
    return Attempt(
        **{
            "number": 0,
            "holder": holder or this_process(),
            "command": ["x"],
            "started": now,
            "heartbeat": now,
            **changes,
        }
    )
