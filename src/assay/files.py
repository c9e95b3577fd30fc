"""Writing files so that a reader sees the old one or the new one, never half of it."""

import os
from contextlib import suppress
from pathlib import Path

from assay.errors import DataError


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step: temporary name beside it, fsync, rename.

    Raises:
        DataError: the disk is full or the folder not writable; what stood there is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror}); make room, then run it again") from error
