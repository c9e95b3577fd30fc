"""The process tree as the kernel sees it; open it to find, end or adopt the descendants of a process.

Every function copes with processes that vanish while it looks. The answers come from Linux's /proc; another system
has no descendants, and subreaper and death signal do nothing there.
"""

import ctypes
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
GONE = (FileNotFoundError, ProcessLookupError)
"""What a /proc file of a process that has ended raises: on opening, and on reading."""
START_TICKS = 19  # field 22 of proc(5), counted as `stat` does
_POLL_S = 0.005
_SET_PARENT_DEATH_SIGNAL, _SET_SUBREAPER = 1, 36  # prctl(2)


def descendants(pid: int, apart: Collection[int] = ()) -> list[int]:
    """All living and zombie descendants of a process, parents before children and the deepest last.

    apart: processes left out with all that descends from them.
    """
    if not PROC.exists():
        return []
    if not (PROC / f"self/task/{os.getpid()}/children").exists():
        return _descendants_by_scan(pid, apart)
    return _breadth_first(pid, apart, _children)


def kill_tree(pid: int, within_s: float, apart: Collection[int] = ()) -> list[int]:
    """SIGKILL the descendants of a process, but not itself, until only zombies are left or `within_s` seconds are over.

    Returns those that still live: uninterruptible ones, mostly. Orphans are found if `pid` is a subreaper. Zombies are
    left to whoever waits for them. apart: processes spared with all that descends from them.
    """
    end = time.monotonic() + within_s
    pause, clean = _POLL_S, 0
    while True:
        left = [one for one in descendants(pid, apart) if not has_ended(one)]
        clean = 0 if left else clean + 1
        if clean == 2 or time.monotonic() >= end:  # an orphan on its way to its new parent can escape one look
            return left
        for one in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(one, signal.SIGKILL)
        if left:
            time.sleep(min(pause, max(end - time.monotonic(), 0)))
            pause = min(2 * pause, 20 * _POLL_S)


def state(pid: int) -> str | None:
    """R running, S sleeping, D uninterruptible, T stopped or traced, Z zombie; None: there is no such process."""
    fields = stat(pid)
    return None if fields is None or fields[0] in "Xx" else fields[0].upper()


def has_ended(pid: int) -> bool:
    """Whether nothing of a process runs: one whose first thread has ended is called a zombie while others go on."""
    if state(pid) not in ("Z", None):
        return False
    with suppress(*GONE):
        return len(os.listdir(PROC / f"{pid}/task")) <= 1
    return True


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on: field n of proc(5) is item n - 3. None: it has ended."""
    text = entry(pid, "stat")
    return text.rpartition(")")[2].split() if text else None


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None: it has ended, reaped or not."""
    fields = stat(pid)
    return None if fields is None or fields[0] in "ZXx" else int(fields[START_TICKS])


def entry(pid: int, name: str) -> str | None:
    """The text of a file in /proc/PID; None if the process has ended or this user may not read it."""
    with suppress(*GONE, PermissionError), open(f"/proc/{pid}/{name}", errors="replace") as file:
        return file.read()
    return None


def set_subreaper() -> bool:
    """Let orphaned descendants become children of this process. False: this platform cannot.

    Raises:
        OSError: the kernel refused.
    """
    return _prctl(_SET_SUBREAPER, 1)


def set_parent_death_signal(number: int) -> bool:
    """Send this process a signal when its parent's thread that forked it ends. False: this platform cannot.

    A parent that has already ended sends none: look at os.getppid() afterwards.

    Raises:
        OSError: the kernel refused.
    """
    return _prctl(_SET_PARENT_DEATH_SIGNAL, number)


def _prctl(option: int, value: int) -> bool:
    if sys.platform != "linux":
        return False
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}): {os.strerror(ctypes.get_errno())}")
    return True


def _breadth_first(pid: int, apart: Collection[int], children: Callable[[int], list[int]]) -> list[int]:
    found: list[int] = []
    ahead = deque([pid])
    while ahead:
        new = [child for child in children(ahead.popleft()) if child not in apart]
        found += new
        ahead += new
    return found


def _children(pid: int) -> list[int]:
    """A child belongs to the thread that forked it, so that every thread is asked."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except GONE:
        return found
    for thread in threads:
        found += map(int, (entry(pid, f"task/{thread}/children") or "").split())
    return found


def _descendants_by_scan(pid: int, apart: Collection[int]) -> list[int]:
    """Where the kernel keeps no list of children (CONFIG_PROC_CHILDREN): from the parents of all processes."""
    children: dict[int, list[int]] = {}
    for name in os.listdir(PROC):
        if name.isdecimal() and (fields := stat(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    return _breadth_first(pid, apart, lambda parent: children.get(parent, []))
