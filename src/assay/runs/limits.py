"""Memory limits that bind a process: cgroups of both versions and RLIMIT_AS; open it when a limit is not recognised."""

import os
import resource
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from assay.runs.processes import entry

ADDRESS_SPACE = "RLIMIT_AS"
NO_LIMIT = 2**60
"""cgroup v1 says "none" as the largest multiple of the page size; no machine has an exbibyte."""
_LIMIT_FILE = {1: "memory.limit_in_bytes", 2: "memory.max"}
_USAGE_FILE = {1: "memory.usage_in_bytes", 2: "memory.current"}
_RECLAIMABLE = {1: "total_inactive_file", 2: "inactive_file"}
_KILLS_FILES = {1: ("memory.oom_control",), 2: ("memory.events.local", "memory.events")}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The memory cgroup a process is in; `top` is the outermost folder that can be seen from here."""

    version: int
    folder: Path
    top: Path

    def limit(self) -> tuple[int, "Group"] | None:
        """The tightest limit in bytes of this group and those around it, and the group that sets it."""
        around = [self.folder, *self.folder.parents]
        groups = [Group(version=self.version, folder=folder, top=self.top) for folder in around]
        groups = groups[: around.index(self.top) + 1]
        limits = [(limit, group) for group in groups if (limit := group._number(_LIMIT_FILE)) is not None]
        return min((found for found in limits if found[0] < NO_LIMIT), key=lambda found: found[0], default=None)

    def usage(self) -> int | None:
        """What counts against the limit, in bytes: without the page cache that the kernel would drop first."""
        used = self._number(_USAGE_FILE)
        return None if used is None else max(used - _field(self.folder / "memory.stat", _RECLAIMABLE[self.version]), 0)

    def oom_kills(self) -> int:
        """How many processes of this very group the kernel has killed for memory, since the group was made."""
        files = [self.folder / name for name in _KILLS_FILES[self.version]]
        return next((_field(file, "oom_kill") for file in files if file.exists()), 0)

    def __str__(self) -> str:
        inside = self.folder.relative_to(self.top)
        return f"cgroup v{self.version} /{'' if inside == Path() else inside}"

    def _number(self, files: dict[int, str]) -> int | None:
        text = _text(self.folder / files[self.version]).strip()
        return int(text) if text.isdecimal() else None


def group_of(pid: int) -> Group | None:
    """The memory cgroup of a process; None if it has ended or no cgroup file system shows it."""
    return _resolve(entry(pid, "cgroup") or "")


def address_space(pid: int) -> int | None:
    """The soft RLIMIT_AS of a process in bytes: of it alone, not of its children."""
    with suppress(ProcessLookupError, PermissionError):
        soft, _ = resource.prlimit(pid, resource.RLIMIT_AS)
        return None if soft == resource.RLIM_INFINITY else soft
    return None


@lru_cache(maxsize=256)
def _resolve(cgroups: str) -> Group | None:
    """From the text of /proc/PID/cgroup. A version 1 memory controller, where there is one, is what limits."""
    paths = {}
    for line in cgroups.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            paths[1 if controllers else 2] = path
    for version in (1, 2):
        mounted = _mounts().get(version)
        if mounted is not None and version in paths:
            root, top = mounted
            inside = os.path.relpath(paths[version], root)
            folder = top if inside.startswith("..") else top / inside
            return Group(version=version, folder=folder if folder.exists() else top, top=top)
    return None


@lru_cache(maxsize=1)
def _mounts() -> dict[int, tuple[str, Path]]:
    """cgroup version -> (the path in the hierarchy that is mounted, where), see proc_pid_mountinfo(5)."""
    found: dict[int, tuple[str, Path]] = {}
    for line in (entry(os.getpid(), "mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, where = before.split(" ")[3:5]
        if kind == "cgroup2":
            found[2] = root, Path(where)
        elif kind == "cgroup" and "memory" in options.split(","):
            found[1] = root, Path(where)
    return found


def _field(file: Path, name: str) -> int:
    """The number beside a name in a file of lines `name number`; 0 if there is none."""
    lines = (line.split() for line in _text(file).splitlines())
    return next((int(line[1]) for line in lines if line[0] == name), 0)


def _text(file: Path) -> str:
    """A group may vanish while it is read."""
    with suppress(OSError):
        return file.read_text()
    return ""
