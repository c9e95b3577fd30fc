"""Writing files so that a reader sees the old one or the new one, never half of it; open it to write a table."""

import csv
import errno
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from assay.errors import DataError

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers: NFS 3 with `nolock` or no lock daemon, Lustre without `flock`."""


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Replace a file in one step: temporary name beside it, fsync, rename.

    durable: with fsync, so that a power failure leaves the old file or the new one; it takes most of the time.

    Raises:
        DataError: the disk is full or the folder not writable; what stood there is left as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot be written ({error.strerror}); make room, then run it again") from error


def is_blank(content: bytes) -> bool:
    """Whether a file says nothing, as a crash leaves one that was not flushed: no byte, or zeros in their place."""
    return not content.strip(b"\0")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Write a table; numbers with six digits, NaN as an empty cell.

    Raises:
        DataError: as for `write_bytes`.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    write_bytes(path, text.getvalue().encode())


def write_json(path: Path, document: object) -> None:
    """Write JSON; numbers with six digits, NaN and infinity as null.

    Raises:
        DataError: as for `write_bytes`.
    """
    write_bytes(path, (json.dumps(_plain(document), indent=2) + "\n").encode())


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(document: object) -> object:
    if isinstance(document, Mapping):
        return {key: _plain(value) for key, value in document.items()}
    if isinstance(document, list):
        return [_plain(value) for value in document]
    if isinstance(document, float):
        return float(f"{document:.6g}") if math.isfinite(document) else None
    return document
