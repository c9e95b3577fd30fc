"""What a killed DVC leaves locked; open it when `dvc repro` is refused after a kill ("is busy", "RWLock-file").

DVC notes who reads and writes what in .dvc/tmp/rwlock. It rewrites that file in place, so a kill can leave it torn, and
it takes any living process of a noted number for the holder. Either refuses every later attempt.
"""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from assay.runs.processes import entry

LOCK = Path(".dvc/tmp/rwlock")
TORN_FOR_S = 0.5
"""A file that cannot be read for so long is not just being written."""


def drop_dead_lock(folder: Path) -> bool:
    """Remove the lock of the DVC project around a folder if nobody who is noted in it lives; whether it was removed."""
    path = next((root / LOCK for root in (folder, *folder.parents) if (root / LOCK).is_file()), None)
    if path is None or any(_lives(*holder) for holder in _holders(path)):
        return False
    with suppress(OSError):  # DVC will say so, too
        path.unlink()
        return True
    return False


def _holders(path: Path) -> list[tuple[int, str]]:
    """Number and command of everybody who is noted; nobody in a file that stays torn."""
    end = time.monotonic() + TORN_FOR_S
    while True:
        with suppress(ValueError, TypeError, KeyError, AttributeError, OSError):
            noted = json.loads(path.read_bytes())
            readers = [reader for readers in noted.get("read", {}).values() for reader in readers]
            return [(int(one["pid"]), str(one["cmd"])) for one in [*readers, *noted.get("write", {}).values()]]
        if time.monotonic() >= end:
            return []
        time.sleep(TORN_FOR_S / 10)


def _lives(pid: int, noted: str) -> bool:
    """Whether the process of that number is the one that was noted."""
    words = (entry(pid, "cmdline") or "").removesuffix("\0").split("\0")
    return any(words) and (" ".join(words).endswith(noted) or any(noted.endswith(end) for end in _told(words)))


def _told(words: list[str]) -> Iterator[str]:
    """How the note of a command line may end where Python tells its program something else: -c CODE, -m MODULE."""
    for place, (option, value) in enumerate(pairwise(words)):
        given = "".join(f" {word}" for word in words[place + 2 :])
        if option == "-c":
            yield f"-c{given}"
        elif option == "-m":
            yield from (f"/{value.replace('.', '/')}{file}{given}" for file in (".py", "/__main__.py"))
