"""A folder in memory for the socket and the stacks: no file system that a run uses can make it hang."""

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")


def make_local_memory(guardian: int) -> Path:
    """A new folder that only this user can enter, in shared memory where that has room, else where TMPDIR says."""
    try:
        return Path(tempfile.mkdtemp(prefix=_prefix(guardian), dir=SHARED_MEMORY))
    except OSError:
        return Path(tempfile.mkdtemp(prefix=_prefix(guardian)))


def remove_local_memory(guardian: int) -> None:
    """Remove the folders of a guardian's supervisors, also of those that were killed."""
    roots = [SHARED_MEMORY]
    with suppress(OSError):  # on a full disk there is no such place
        roots.append(Path(tempfile.gettempdir()))
    for root in roots:
        for folder in root.glob(f"{_prefix(guardian)}*"):
            shutil.rmtree(folder, ignore_errors=True)


def _prefix(guardian: int) -> str:
    return f"assay-{os.getuid()}-{guardian}-"
