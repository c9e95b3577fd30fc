"""Writing files and folders so that a reader sees the old or the new, never half of it; open it to write a table."""

import csv
import errno
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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


@contextmanager
def replaced_folder(
    folder: Path, content: str, names: Sequence[str], remedy: str = "choose another folder"
) -> Iterator[Path]:
    """A new folder that replaces a data set at the end of the context; on any exception what stood there stays.

    A process that is killed between the two renames leaves both whole, as `old` and `new` in the hidden folder beside
    it that begins with its name: rename one by hand, or write the data set again. What cannot be deleted is left there.

    content: what the folder holds, in words. names: patterns of its files; others are never deleted.

    Raises:
        DataError: the folder holds other files or the working folder, or cannot be written.
    """
    folder = folder.resolve()
    _refuse_other_content(folder, content, names, remedy)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        new, old = work / "new", work / "old"
        try:
            new.mkdir()
            yield new
            if folder.exists():
                folder.rename(old)
            new.rename(folder)
        finally:
            if old.exists() and not folder.exists():
                old.rename(folder)
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error}); make room or {remedy}") from error


def _refuse_other_content(folder: Path, content: str, names: Sequence[str], remedy: str) -> None:
    if Path.cwd().is_relative_to(folder):
        raise DataError(f"{folder}: holds the working folder; allowed: a folder of its own; {remedy}")
    if folder.exists() and not (
        folder.is_dir() and all(any(path.match(name) for name in names) for path in folder.iterdir())
    ):
        raise DataError(f"{folder}: holds other files than {content}; allowed: a new folder; {remedy}")


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
