"""The process that outlives a supervisor so that no orphan does; open it when something keeps running after a kill.

`assay exec` is two processes. The guardian, whose number the scheduler knows, starts the supervisor and waits. Both
adopt orphans (subreapers), so every process of the command has one of them as its ancestor, always. If the supervisor
dies, even by SIGKILL, the guardian kills what is left; if the guardian dies, the kernel tells the supervisor.
"""

import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType

from assay.runs.local_memory import remove_local_memory
from assay.runs.processes import kill_tree, set_parent_death_signal, set_subreaper

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2, signal.SIGXCPU)
"""Requests to stop: of people, of Slurm (TERM, USR1), of LSF (USR2, XCPU), of a closed terminal."""
ORPHANED = signal.SIGPWR
"""What the supervisor receives when its guardian is gone."""
RECEIVED: list[tuple[int, float]] = []
"""Signals that the supervisor has received, with their monotonic times; it looks between two waits."""
KILL_WITHIN_S = 5.0
LEFT_WITHIN_S = 0.2
"""The same after a supervisor that ended by itself: what it has left is uninterruptible, or about to end."""


def guard() -> None:
    """Fork: returns in the child, the supervisor; the parent ends the process with the child's exit code.

    A signal that was ignored when the process began, as under nohup, stays ignored.
    """
    set_subreaper()
    sys.stdout.flush()
    sys.stderr.flush()
    guardian = os.getpid()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    supervisor = os.fork()
    if supervisor == 0:
        for number in (*FORWARDED, ORPHANED):
            signal.signal(number, _note)
        set_parent_death_signal(ORPHANED)
        os.setpgid(0, 0)  # Ctrl-C reaches the guardian alone, which passes it on
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # and `stty tostop` does not stop who prints from here
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        if os.getppid() != guardian:
            os._exit(128 + ORPHANED)
        set_subreaper()
        return
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: _forward(supervisor, received))
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)  # Ctrl-Z would stop the guardian alone
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    code = _wait(supervisor)
    _clear_up(guardian, KILL_WITHIN_S if code < 0 else LEFT_WITHIN_S)
    os._exit(code if code >= 0 else 128 - code)


def _note(number: int, frame: FrameType | None) -> None:
    RECEIVED.append((number, time.monotonic()))


def _forward(supervisor: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(supervisor, number)


def _wait(supervisor: int) -> int:
    """The supervisor's exit code or -signal; ended children that were handed on meanwhile are collected too."""
    while True:
        pid, status = os.wait()
        if pid == supervisor:
            return os.waitstatus_to_exitcode(status)


def _clear_up(guardian: int, within_s: float) -> None:
    """End, collect and remove what is left; whatever fails here, the exit code is the supervisor's."""
    for clear in (lambda: kill_tree(guardian, within_s), _collect, lambda: remove_local_memory(guardian)):
        with suppress(Exception):
            clear()


def _collect() -> None:
    """Zombies too: DVC's lock names its process, and whoever adopts a dead one may be slow to collect it."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
