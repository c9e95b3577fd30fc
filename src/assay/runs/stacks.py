"""Python stacks of other processes: how they are had, and how a culprit is read from them.

A process that has said hello, and its forks, write their own on SIGUSR2 (faulthandler); py-spy reads those of others,
also of stopped ones. py-spy needs the right to trace: the same user, and no kernel.yama.ptrace_scope above 0.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from assay.progress import STACKS_SIGNAL
from assay.runs.processes import entry, state

DUMP_WITHIN_S = 1.0
SETTLED_S = 0.03
"""A file of stacks that has not grown for so long is complete."""
SPY_WITHIN_S = 3.0
STACKS_LIMIT = 8000
"""Characters kept of one process: the end with the main thread, or py-spy's beginning with it."""
_POLL_S = 0.01
_FRAMES = (
    re.compile(r'^ +File "(?P<file>.*)", line (?P<line>\d+) in (?P<function>.*)$', re.M),  # faulthandler
    re.compile(r"^ +(?P<function>.*) \((?P<file>.*):(?P<line>\d+)\)$", re.M),  # py-spy
)
_LIBRARY = re.compile(r"/lib(?:64)?/python3[\d.]*/(?!(?:site|dist)-packages/)|^<frozen ")
_PACKAGES = re.compile(r"/(?:site|dist)-packages/(?!assay/)")
_WAITS_FOR_OTHERS = re.compile(
    r"/(?:multiprocessing|concurrent|asyncio)/|/(?:threading|queue|selectors|subprocess)\.py$"
    r"|/torch/(?:distributed|nn/parallel|autograd)/"  # a backward pass may end with an exchange of gradients
)
_WORKER_BEGINS = "/multiprocessing/process.py"


def python_stacks(pids: Collection[int], files: Collection[Path], end: float) -> Iterator[tuple[int, str]]:
    """The stacks of those of the processes that are Python's, until `end` (monotonic s).

    files: to which those that said hello, and their forks, write. Nobody else is sent a signal: it would end them.
    Half of the time is for these; py-spy has the rest, and those that did not answer.
    """
    told = {}
    half = (time.monotonic() + end) / 2
    for pid in pids:
        own = next((file for file in files if str(file) in open_files(pid).values()), None)
        if own is not None and _catches(pid, STACKS_SIGNAL) and state(pid) in ("R", "S"):
            told[pid] = _tell(pid, own, min(half, time.monotonic() + DUMP_WITHIN_S))
    yield from ((pid, text[-STACKS_LIMIT:]) for pid, text in told.items() if text)
    yield from _spy([pid for pid in pids if not told.get(pid) and _is_python(pid)], end)


def open_files(pid: int) -> dict[int, str]:
    """Descriptor -> what it is open on. The links are read, never followed: what they lead to may hang."""
    found = {}
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
            if target := link(pid, f"fd/{name}"):
                found[int(name)] = target
    return found


def link(pid: int, name: str) -> str | None:
    """Where a link in /proc/PID leads; None if the process has ended or is another user's."""
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        return os.readlink(f"/proc/{pid}/{name}")
    return None


def culprit_line(stacks: Collection[str]) -> str | None:
    """ "file:line function" from the stacks of several processes, likeliest first.

    The innermost line of a main thread that belongs to neither the standard library nor an installed package, if it
    does not wait for another thread or process; else one that does; else a package's.
    """
    threads = [_main_thread(text) for text in stacks]
    own = [found for frames in threads if (found := _innermost(frames, _LIBRARY, _PACKAGES))]
    busy = [found for found in own if not found[1]]
    packages = [found for frames in threads if (found := _innermost(frames, _LIBRARY))]
    return next((line for line, _ in (*busy, *own, *packages)), None)


def waits_for_others(stacks: str) -> bool:
    """Whether what the main thread of a process called waits for another thread, process or rank."""
    found = _innermost(_main_thread(stacks), _LIBRARY, _PACKAGES)
    return found is None or found[1]


def _innermost(frames: list[tuple[str, str, str]], *foreign: re.Pattern[str]) -> tuple[str, bool] | None:
    """The first frame that is not foreign, and whether what it called waits for others."""
    waits = False
    for file, line, function in frames:
        if not any(pattern.search(file) for pattern in foreign):
            return f"{file}:{line} {function}", waits
        waits = waits or _WAITS_FOR_OTHERS.search(file) is not None
    return None


def _main_thread(text: str) -> list[tuple[str, str, str]]:
    """Innermost first, without what a worker has inherited from the parent that forked it.

    py-spy names the main thread or gives it the process's number; faulthandler lists it last.
    """
    process = re.match(r"Process (\d+):", text)
    threads = re.split(r"^(?=Thread |Current thread )", text, flags=re.M)
    marks = ['"MainThread"', *([f"Thread {process[1]} ("] if process else [])]
    main = next((thread for mark in marks for thread in threads if mark in thread), threads[-1])
    syntax = _FRAMES[0] if _FRAMES[0].search(main) else _FRAMES[1]
    frames = [(frame["file"], frame["line"], frame["function"]) for frame in syntax.finditer(main)]
    return list(takewhile(lambda frame: not frame[0].endswith(_WORKER_BEGINS), frames))


def _catches(pid: int, number: int) -> bool:
    mask = re.search(r"^SigCgt:\s*([0-9a-f]+)$", entry(pid, "status") or "", re.M)
    return mask is not None and bool(int(mask[1], 16) >> (number - 1) & 1)


def _is_python(pid: int) -> bool:
    return Path(link(pid, "exe") or "").name.startswith("python")


def _tell(pid: int, file: Path, end: float) -> str:
    """Ask a process for its stacks; what it has written by `end`, mostly a few ms later."""
    before = size = file.stat().st_size
    with suppress(ProcessLookupError):
        os.kill(pid, STACKS_SIGNAL)
    grown = time.monotonic()
    while (now := time.monotonic()) < end and (size == before or now - grown < SETTLED_S):
        time.sleep(_POLL_S)
        if file.stat().st_size > size:
            size, grown = file.stat().st_size, time.monotonic()
    with file.open(errors="replace") as stacks:
        stacks.seek(before)
        return stacks.read()


def _spy(pids: Collection[int], end: float) -> Iterator[tuple[int, str]]:
    """All at once; one that fails or hangs says so instead."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        yield from ((pid, "py-spy is not installed") for pid in pids)
        return
    options = ["dump", "--nonblocking", "--full-filenames", "--pid"]
    spies = [(pid, ask([program, *options, str(pid)])) for pid in pids]
    end = min(end, time.monotonic() + SPY_WITHIN_S)
    for pid, spy in spies:
        yield pid, answer(spy, end)[:STACKS_LIMIT]


def ask(arguments: list[str]) -> "subprocess.Popen[str]":
    """Start a program whose words are wanted, with its complaints among them."""
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")


def answer(asked: "subprocess.Popen[str]", end: float) -> str:
    """What it says until `end` (monotonic s); killed then and not waited for, as it may hang in the kernel."""
    try:
        return asked.communicate(timeout=max(end - time.monotonic(), 0))[0]
    except subprocess.TimeoutExpired:
        asked.kill()
        return "no answer in time"
