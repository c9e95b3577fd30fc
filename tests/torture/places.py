"""Places where runs fail: full disks, file systems that hang, too little memory. Needs root, and bindfs for FUSE."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import psutil

MEMORY_V1, UNIFIED = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
READY_WITHIN_S = 10.0
ROOT = Path(__file__).parents[2]


def stage(*options: str) -> list[str]:
    """The command that trains a tiny task, see stage.py."""
    return ["env", f"PYTHONPATH={ROOT / 'src'}:{ROOT}", sys.executable, str(ROOT / "tests/torture/stage.py"), *options]


@contextmanager
def memory_cgroup(limit: int) -> Iterator[list[str]]:
    """A memory cgroup of `limit` bytes, version 1 or 2; gives what to put before a command to run it there."""
    one = MEMORY_V1.is_dir()
    group = (MEMORY_V1 if one else UNIFIED) / f"assay-test-{os.getpid()}-{time.monotonic_ns()}"
    if not one:
        (UNIFIED / "cgroup.subtree_control").write_text("+memory")
    group.mkdir()
    (group / ("memory.limit_in_bytes" if one else "memory.max")).write_text(str(limit))
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"]
    finally:
        _until(lambda: not (group / "cgroup.procs").read_text().strip(), "the cgroup to be empty")
        group.rmdir()


@contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory of a few KiB or MiB."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "assay-test", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free; returns the file to delete."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        for size in (4096, 1):
            with suppress(OSError):
                while file.write(b"0" * size):
                    pass
    return filler


class Hanging:
    """A folder on FUSE that stops answering on demand.

    deep: its own process still takes each request, and hangs itself: whoever waits for it cannot even be killed.
    Otherwise requests stay queued, and SIGKILL ends those who wait.
    """

    def __init__(self, top: Path, deep: bool) -> None:
        layers = [top / name for name in ("disk", "inner", "outer")[: 3 if deep else 2]]
        for layer in layers:
            layer.mkdir()
        self.folder, self.mounts = layers[-1], layers[1:]
        self.daemons = [self._mount(below, above) for below, above in pairwise(layers)]

    def hang(self) -> None:
        """From now on nothing is answered."""
        self.daemons[0].send_signal(signal.SIGSTOP)

    def answer(self) -> None:
        """From now on everything is, also what was asked meanwhile."""
        self.daemons[0].send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Answer and unmount."""
        self.answer()
        for mount in reversed(self.mounts):
            subprocess.run(["umount", "-l", str(mount)], check=True)
        for daemon in self.daemons:
            daemon.wait(READY_WITHIN_S)

    @staticmethod
    def _mount(below: Path, above: Path) -> "subprocess.Popen[bytes]":
        assert shutil.which("bindfs"), "bindfs is needed: apt-get install bindfs"
        daemon = subprocess.Popen(["bindfs", "-f", str(below), str(above)])
        _until(lambda: os.path.ismount(above), f"the mount of {above}")
        return daemon


@contextmanager
def hanging(top: Path, deep: bool) -> Iterator[Hanging]:
    """A folder that hangs on demand, and is gone afterwards."""
    made = Hanging(top, deep)
    try:
        yield made
    finally:
        made.close()


def unkillable(process: psutil.Process) -> bool:
    """Whether a process waits uninterruptibly."""
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() == psutil.STATUS_DISK_SLEEP)
    return False


def _until(holds: Callable[[], object], what: str) -> None:
    end = time.monotonic() + READY_WITHIN_S
    while not holds():
        assert time.monotonic() < end, f"waited {READY_WITHIN_S} s for {what}"
        time.sleep(0.02)
