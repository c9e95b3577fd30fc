"""What a process does with memory it has freed; open it when a stage seems to hold more than it needs.

Each step of a training frees its activations and takes as much again. glibc hands large pieces back to the kernel,
which clears every page before the next step has it: up to a third of a step on a CPU, as its heuristics will have it.
"""

import ctypes
import os

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # parameters of mallopt(3)
KEPT = 2**31 - 1  # bytes that may lie free at the end of the heap; the most that an int of mallopt can say
MAPPED = 2**30  # bytes from which on a piece is the kernel's again when it is freed


def keep_freed_memory() -> None:
    """Let this process use freed memory again. A no-op without glibc, or where MALLOC_ variables say what to do."""
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    adjust = getattr(ctypes.CDLL(None), "mallopt", None)
    if adjust is not None:
        adjust(MMAP_THRESHOLD, MAPPED)
        adjust(TRIM_THRESHOLD, KEPT)
