"""What a process tree uses of the machine, and whether memory was what ended it; open it to read a sample's fields.

RSS is summed over the tree, so that pages that processes share count once for each; where a cgroup limits the memory,
its own account (without the page cache that the kernel drops first) bounds the sum. PSS would be exact, but walks every
page under a lock of the process and may hang with it.

CPU time and I/O include ended processes, as their parents inherit the counts by waiting for them. What counts as read
is what system calls returned (rchar of /proc/PID/io): NFS, FUSE and page cache too. Reads through mapped files are only
in `activity`, and only when a device was touched (read_bytes).
"""

import os
import re
from collections.abc import Collection, MutableSet
from dataclasses import dataclass

from assay.runs.gpus import Meter
from assay.runs.limits import ADDRESS_SPACE, Group, address_space, group_of
from assay.runs.processes import descendants, entry, stat
from assay.runs.record import Resources

NEAR_LIMIT = 0.9
"""Fraction of the memory limit from which on a run is warned, and a SIGKILL is taken for the kernel's."""
HOST_OOM = re.compile(
    r"\b(?:_Array)?MemoryError\b|Cannot allocate memory|std::bad_alloc|can't allocate memory|\boom[-_]kill", re.I
)
GPU_OOM = re.compile(r"CUDA out of memory|torch(?:\.cuda)?\.OutOfMemoryError|CUDA error: out of memory")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_CPU, _CHILDREN_CPU, _VIRTUAL, _RESIDENT = slice(11, 13), slice(13, 15), 20, 21  # of /proc/PID/stat from the state on


class Sampler:
    """Measures a process and its descendants; the process that measures is never one of them."""

    def __init__(self, root: int, apart: Collection[int] = ()) -> None:
        """apart: processes left out with all that descends from them; if it is a set, a GPU meter's pid is added."""
        self.root, self.apart = root, apart
        self.address_space = 0
        """The largest virtual size of one process, in bytes: what RLIMIT_AS limits."""
        self._latest = Resources()
        self._adopted_before = _adopted_cpu(root)
        self._cpu, self._read, self._written, self._device = Total(), Total(), Total(), Total()
        self._kills_before: dict[Group, int] = {}
        if (group := group_of(root)) is not None:
            self._kills_before[group] = group.oom_kills()
        self._meter = Meter()
        if self._meter.pid is not None and isinstance(apart, MutableSet):
            apart.add(self._meter.pid)

    def sample(self) -> Resources:
        """Measure now. Takes about 0.1 ms for each process; never waits for one."""
        tree = descendants(self.root, self.apart)
        tree += [self.root] if self.root not in (os.getpid(), *self.apart) else []
        fields = {pid: found for pid in tree if (found := stat(pid))}
        self._count(fields)
        self.address_space = max((int(found[_VIRTUAL]) for found in fields.values()), default=0)
        groups = {group for pid in fields if (group := group_of(pid)) is not None}
        rss = sum(int(found[_RESIDENT]) for found in fields.values()) * _PAGE
        limit, source, rss = self._limited(fields, groups, rss)
        gpus = self._meter.latest()
        before, used = self._latest, gpus.used if gpus else None
        self._latest = Resources(
            rss=rss,
            rss_peak=max(rss, before.rss_peak),
            cpu_s=self._cpu.value,
            read_bytes=int(self._read.value),
            write_bytes=int(self._written.value),
            processes=len(fields),
            memory_limit=limit,
            memory_limit_source=source,
            oom_kills=max(before.oom_kills, self._kills(groups)),
            gpu_utilisation=gpus.utilisation if gpus else None,
            gpu_memory=used,
            gpu_memory_peak=max(filter(None, (used, before.gpu_memory_peak)), default=None),
            gpu_memory_limit=gpus.total if gpus else before.gpu_memory_limit,
        )
        return self._latest

    def activity(self) -> tuple[float, int]:
        """CPU seconds and bytes moved up to the latest sample; neither ever decreases."""
        return self._cpu.value, int(self._read.value + self._written.value + self._device.value)

    def _count(self, fields: dict[int, list[str]]) -> None:
        """Bring the counters up to date. A process that vanishes between two files counts at its parent."""
        own = sum(_cpu(found, _CPU) + _cpu(found, _CHILDREN_CPU) for found in fields.values())
        self._cpu.reach(own + _adopted_cpu(self.root) - self._adopted_before)
        moved = [_io(pid) for pid in fields]
        for total, name in ((self._read, "rchar"), (self._written, "wchar"), (self._device, "read_bytes")):
            total.reach(sum(found[name] for found in moved if found))

    def _limited(
        self, pids: Collection[int], groups: Collection[Group], rss: int
    ) -> tuple[int | None, str | None, int]:
        """The tightest limit and its source, the latest known when all have ended; and RSS by the group's account."""
        if not pids:
            return self._latest.memory_limit, self._latest.memory_limit_source, 0
        limits = [found for group in groups if (found := group.limit())]
        limit, group = min(limits, key=lambda found: found[0], default=(None, None))
        one = min(filter(None, map(address_space, pids)), default=None)
        if group is not None and all(group.folder in (each.folder, *each.folder.parents) for each in groups):
            rss = min(rss, group.usage() or rss)
        if one is not None and (limit is None or one < limit):
            return one, ADDRESS_SPACE, rss
        return limit, str(group) if group else None, rss

    def _kills(self, groups: Collection[Group]) -> int:
        for group in groups:
            self._kills_before.setdefault(group, group.oom_kills())
        return sum(max(group.oom_kills() - before, 0) for group, before in self._kills_before.items())


@dataclass
class Total:
    """A sum over processes that must not decrease.

    A process that has been waited for leaves the sum a moment before or after its parent takes its count over, which is
    one low reading; one that nobody waits for takes its count away for good, and the sum goes on from where it was.
    """

    value: float = 0.0
    _offset: float = 0.0
    _low: bool = False

    def reach(self, level: float) -> None:
        if self._low and level + self._offset < self.value:
            self._offset = self.value - level
        self._low = level + self._offset < self.value
        self.value = max(self.value, level + self._offset)


def warning(resources: Resources, address_space: int = 0) -> str | None:
    """One line if memory is at 90 % of its limit or more.

    address_space: `Sampler.address_space`, which is what counts where the limit is RLIMIT_AS.
    """
    limit, source = resources.memory_limit, resources.memory_limit_source
    used = address_space if source == ADDRESS_SPACE else resources.rss
    if limit is None or used < NEAR_LIMIT * limit:
        return None
    amounts = f"memory: {used / 2**30:.1f} GiB of {limit / 2**30:.1f} GiB ({source})"
    return f"{amounts}: ask for more, or use a smaller batch or fewer loader workers"


def looks_like_oom(code: int | None, resources: Resources, text: str) -> str | None:
    """Evidence that memory ended a process, or None. code: exit code or -signal; text: what it printed last."""
    if found := GPU_OOM.search(text):
        return f"GPU out of memory: {found[0]!r} in the output"
    if resources.oom_kills > 0:
        return f"the kernel killed {resources.oom_kills} process(es) of its memory cgroup (oom_kill)"
    limit, source = resources.memory_limit, resources.memory_limit_source
    killed = code in (-9, 137) and limit is not None and source != ADDRESS_SPACE
    if killed and limit and resources.rss_peak >= NEAR_LIMIT * limit:
        return f"SIGKILL with memory at {resources.rss_peak / 2**30:.1f} GiB of {limit / 2**30:.1f} GiB ({source})"
    if found := HOST_OOM.search(text):
        return f"out of memory: {found[0]!r} in the output"
    return None


def _cpu(fields: list[str], which: slice) -> float:
    return sum(map(int, fields[which])) / _TICKS_PER_S


def _adopted_cpu(root: int) -> float:
    """CPU seconds of children that the measuring process has itself waited for."""
    fields = stat(root) if root == os.getpid() else None
    return _cpu(fields, _CHILDREN_CPU) if fields else 0.0


def _io(pid: int) -> dict[str, int] | None:
    """Counters of /proc/PID/io; None if the process has ended or is another user's."""
    text = entry(pid, "io")
    return (
        {name: int(value) for name, _, value in (line.partition(": ") for line in text.splitlines())} if text else None
    )
