"""What was run, from which code and data, on which machine; open it to change what run.json says.

Nothing here may keep a run from starting: what cannot be found out in time stays None or empty. Environment variables
are not recorded. A changed working tree goes into source.diff, untracked files by name only.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Timer
from typing import Any

import assay
from assay.containers import IMAGE_DIGEST
from assay.files import write_bytes
from assay.runs.gpus import DRIVERS
from assay.runs.inputs import digest, lock_digest, read_yaml, stages
from assay.runs.masking import HIDDEN, masked, masked_facts, masked_patch
from assay.runs.record import Run
from assay.runs.store import names

GIT_WITHIN_S = 30.0
"""A status of a large tree on a cold network file system takes seconds; what takes longer than this hangs."""
STATUS_LIMIT = 2**20
DIFF_LIMIT = 10 * 2**20
"""Bytes kept of source.diff: a change to code is far smaller, so what is cut is data."""
PACKAGES = ("torch", "numpy", "dvc", "jsonargparse")
IMAGE_CONTENT = Path("/opt/assay/content.txt")
"""A line for each file that an image adds to its base, with the file's digest; scripts/image.sh writes it."""


def describe(folder: Path, command: Sequence[str], cwd: Path) -> Run:
    """What `command`, given in `cwd`, is as the run in `folder`; writes source.diff there if the tree is dirty.

    Raises:
        DataError: source.diff cannot be written.
    """
    study, arm, seed = names(folder)
    root = _repository(cwd)
    commit, dirty = _record_source(root, folder) if root else (None, False)
    return Run(
        study=study,
        arm=arm,
        seed=seed,
        command=masked(command),
        created=time.time(),
        stages=stages(cwd) if command and Path(command[0]).name == "dvc" else [],
        params=masked_facts(read_yaml(cwd / "params.yaml")),
        commit=commit,
        dirty=dirty,
        lock=lock_digest(cwd) or (lock_digest(root) if root else None),
        data=digest([cwd / "dvc.lock"]),
        image=os.environ.get(IMAGE_DIGEST) or None,
        hardware=hardware(),
        versions=_versions(),
    )


def hardware() -> dict[str, Any]:
    """This machine: memory in bytes, cores that this process may use, GPUs as NVML lists them."""
    system = os.uname()
    return {
        "host": system.nodename,
        "kernel": system.release,
        "architecture": system.machine,
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "gpus": _gpus() if any(path.exists() for path in DRIVERS) else [],
    }


def _repository(cwd: Path) -> Path | None:
    return next((path for path in (cwd, *cwd.absolute().parents) if (path / ".git").exists()), None)


def _record_source(root: Path, folder: Path) -> tuple[str | None, bool]:
    """Commit and whether the tree has more than it; the records of runs are no part of the tree."""
    status = _git(root, STATUS_LIMIT, "status", "--porcelain=v2", "--branch", "--", ".", *_apart(root, folder))
    if status is None:
        return None, False
    lines = status.decode(errors="replace").splitlines()
    commits = [line.removeprefix("# branch.oid ") for line in lines if line.startswith("# branch.oid ")]
    commit = next((commit for commit in commits if commit != "(initial)"), None)
    changed = [line for line in lines if not line.startswith("# ")]
    if commit and changed:
        write_bytes(folder / "source.diff", _diff(root, folder, changed))
    else:
        (folder / "source.diff").unlink(missing_ok=True)
    return commit, bool(changed)


def _diff(root: Path, folder: Path, changed: list[str]) -> bytes:
    """A patch for `git apply`, which skips the notes before it."""
    notes = [f"untracked, not in this patch: {line[2:]}" for line in changed if line.startswith("? ")]
    options = ("--binary", "--no-ext-diff", "--no-textconv", "--no-color")
    patch = _git(root, DIFF_LIMIT, "diff", "HEAD", *options, "--", ".", *_apart(root, folder))
    if patch is None:
        notes.append("git diff failed, or did not end in time")
    elif len(patch) > DIFF_LIMIT:
        notes.append(f"cut after {DIFF_LIMIT} bytes: it does not apply")
    patch = (patch or b"")[:DIFF_LIMIT]
    shown = masked_patch(patch)
    if shown != patch:
        notes.append(f"secrets in added lines are {HIDDEN}")
    return "".join(f"# {note}\n" for note in notes).encode() + shown


def _apart(root: Path, folder: Path) -> list[str]:
    """Pathspecs that leave out the folder of all runs (RUNS/study/arm/seed) or, where that is the root, this run."""
    root, folder = root.resolve(), folder.resolve()
    runs = next((path for path in (*folder.parents[2:3], folder) if root in path.parents), None)
    return [f":(top,exclude,literal){runs.relative_to(root)}"] if runs else []


def _git(root: Path, limit: int, *arguments: str) -> bytes | None:
    """Up to limit + 1 bytes of what git says; None: it is not there, failed, or did not end in time.

    It takes no lock that a git command of the user could meet, and starts no monitor.
    """
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", *arguments]
    none = subprocess.DEVNULL
    try:
        git = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=none, stdin=none, process_group=0)
    except OSError:
        return None
    timer = Timer(GIT_WITHIN_S, _kill, [git.pid])
    timer.start()
    with git:
        said = git.stdout.read(limit + 1) if git.stdout else b""
        if len(said) > limit:
            _kill(git.pid)
    timer.cancel()
    return said if git.returncode == 0 or len(said) > limit else None


def _kill(group: int) -> None:
    """git and the filters it started, one of which may hold the pipe."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _cpu_model() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return os.uname().machine


def _gpus() -> list[dict[str, Any]]:
    import pynvml

    found = []
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            gpu = {"name": pynvml.nvmlDeviceGetName(handle), "driver": driver}
            with suppress(pynvml.NVMLError):  # not told where it is the host's memory
                gpu["memory"] = pynvml.nvmlDeviceGetMemoryInfo(handle).total
            found.append(gpu)
    return found


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0], "assay": assay.__version__}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    with suppress(OSError):
        found["image"] = f"sha256:{hashlib.sha256(IMAGE_CONTENT.read_bytes()).hexdigest()}"
    return found
