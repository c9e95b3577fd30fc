"""What shows why a run is stuck, gathered while it is; open it when a stall's culprit is not in the record.

    process PID   program, state, wait channel, memory, system call, kernel stack, threads, open files; command line
    stacks PID    Python stacks, by the process itself or by py-spy
    mounts        the file systems that the open files are on
    gpu           what the driver says of each device

Nothing here touches a file that a process has open. A forked process does the reading, with what may hang last: a
command line lies in the other's memory. So the caller never waits longer than it said.
"""

import json
import os
import select
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from assay.runs import gpus
from assay.runs.masking import masked
from assay.runs.processes import descendants, entry, stat
from assay.runs.ranks import node_name
from assay.runs.scribe import close_others
from assay.runs.stacks import answer, ask, culprit_line, link, open_files, python_stacks, waits_for_others

MAX_PROCESSES = 64
"""The command and the deepest. With the limits below, in characters, a record stays under 1 MB."""
PROCESS_LIMIT, COMMAND_LIMIT, OTHER_LIMIT = 3000, 500, 4000
MAX_THREADS = 16
ENDED = "has ended"
GPU_WITHIN_S = 2.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_THREADS, _RESIDENT = 17, 21  # of /proc/PID/stat from the state on

Send = Callable[[str, str], None]


def collect(root: int, stacks: Mapping[int, Path], within_s: float, apart: Collection[int] = ()) -> dict[str, str]:
    """Everything that names the culprit, from a process and its descendants, and those of `stacks`; parents first.

    stacks: process -> the file to which it and its forks write their stacks on SIGUSR2, from its hello.
    apart: processes left out, as is the one that calls. Takes `within_s` seconds at most, whatever hangs.
    """
    end = time.monotonic() + within_s
    source, sink = os.pipe()
    gatherer = os.fork()
    if gatherer == 0:
        try:
            close_others(sink)
            tree = _tree([root, *stacks], {*apart, os.getpid(), os.getppid()})
            _gather(tree, list(stacks.values()), end, lambda name, text: _send(sink, name, text))
        except OSError as error:
            _send(sink, "error", str(error))
        finally:
            os._exit(0)
    os.close(sink)
    received = _receive(source, end)
    for pid in (*descendants(gatherer), gatherer):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(gatherer, os.WNOHANG)  # one that hangs is left to whoever collects orphans
    return received


def culprit(evidence: Mapping[str, str]) -> str | None:
    """Where it hangs: "file:line function" in the deepest Python process, else "program in wait channel"; or None."""
    pids = [key.removeprefix("process ") for key in evidence if key.startswith("process ")]
    found = culprit_line([evidence[f"stacks {pid}"] for pid in reversed(pids) if f"stacks {pid}" in evidence])
    living = [evidence[f"process {pid}"] for pid in pids if not evidence[f"process {pid}"].startswith(ENDED)]
    return found or (living[-1].partition(",")[0] if living else None)


def rank(evidence: Mapping[str, str], ranks: Mapping[int, str]) -> dict[str, str]:
    """Which of several ranks, process to words, is or started the one that hangs, and where: more evidence.

    One that merely waits is not it: that may be on another node.
    """
    if not ranks:
        return {}
    line = culprit(evidence)
    pids = [int(key.removeprefix("stacks ")) for key in evidence if key.startswith("stacks ")]
    hangs = next((pid for pid in reversed(pids) if culprit_line([evidence[f"stacks {pid}"]]) == line), None)
    words = next((words for pid, words in ranks.items() if hangs in (pid, *descendants(pid))), None)
    node = node_name(os.environ)
    if words is None or waits_for_others(evidence[f"stacks {hangs}"]):
        return {"rank": f"some rank, for all on {node} wait"}
    return {"rank": f"{words} on {node}"}


def _tree(roots: Collection[int], apart: Collection[int]) -> list[int]:
    """Without repetitions; too many are cut in the middle."""
    found = [pid for root in roots for pid in (root, *descendants(root, apart)) if pid not in apart]
    found = list(dict.fromkeys(found))
    return found if len(found) <= MAX_PROCESSES else [found[0], *found[1 - MAX_PROCESSES :]]


def _gather(tree: list[int], files: Collection[Path], end: float, send: Send) -> None:
    """In the forked process; surest first."""
    for pid in tree:
        send(f"process {pid}", "\n".join(_describe(pid))[:PROCESS_LIMIT])
    send("mounts", "\n".join(_mounts(tree))[:OTHER_LIMIT])
    for pid, text in python_stacks(tree, files, end):
        send(f"stacks {pid}", text)
    if any(driver.exists() for driver in gpus.DRIVERS):
        said = answer(ask([*gpus.COMMAND, "once"]), min(end, time.monotonic() + GPU_WITHIN_S))
        send("gpu", said[:OTHER_LIMIT])
    for pid in tree:
        words = " ".join(masked((entry(pid, "cmdline") or "").split("\0"))).strip()
        send(f"process {pid}", f"command: {words[:COMMAND_LIMIT]}")


def _describe(pid: int) -> Iterator[str]:
    """One process, from what the kernel tells without asking the process's memory or any file system."""
    fields = stat(pid)
    if fields is None or fields[0] == "Z":
        yield ENDED
        return
    memory = int(fields[_RESIDENT]) * _PAGE / 2**20
    facts = f"state {fields[0]}, child of {fields[1]}, {fields[_THREADS]} threads, RSS {memory:.0f} MiB"
    yield f"{_waiting(pid)}, {facts}"
    yield f"folder: {link(pid, 'cwd')}"
    yield f"system call: {(entry(pid, 'syscall') or 'not told').strip()}"
    yield from (f"kernel: {line}" for line in (entry(pid, "stack") or "").splitlines())
    with suppress(FileNotFoundError, ProcessLookupError):
        others = [name for name in os.listdir(f"/proc/{pid}/task") if int(name) != pid]
        yield from (f"thread {name}: {_waiting(pid, f'task/{name}/')}" for name in others[:MAX_THREADS])
    yield from (f"file {number}: {target}" for number, target in open_files(pid).items())


def _waiting(pid: int, task: str = "") -> str:
    """ "program in wait channel" of a process, or of one of its threads; no channel: it runs, or it is not told."""
    name, channel = ((entry(pid, f"{task}{file}") or "").strip() for file in ("comm", "wchan"))
    return f"{name} in {channel}" if channel not in ("", "0") else name


def _mounts(tree: Collection[int]) -> Iterator[str]:
    """Lines of /proc/self/mountinfo of the mount points that hold an open file or a process's folder."""
    lines = {line.split(" ")[4]: line for line in (entry(os.getpid(), "mountinfo") or "").splitlines()}
    targets = {target for pid in tree for target in (link(pid, "cwd"), *open_files(pid).values()) if target}
    above = [[target, *map(str, Path(target).parents)] for target in sorted(targets)]
    points = [next((folder for folder in folders if folder in lines), None) for folders in above]
    return (lines[point] for point in dict.fromkeys(points) if point is not None)


def _send(sink: int, name: str, text: str) -> None:
    os.write(sink, f"{json.dumps([name, text])}\n".encode())


def _receive(source: int, end: float) -> dict[str, str]:
    """What arrives until the sender has ended or time is over; a torn last line is left out."""
    received = b""
    while select.select([source], [], [], max(end - time.monotonic(), 0))[0] and (part := os.read(source, 65536)):
        received += part
    os.close(source)
    found: dict[str, str] = {}
    for line in received.split(b"\n")[:-1]:
        name, text = json.loads(line)
        found[name] = f"{found[name]}\n{text}" if name in found else text
    return found
