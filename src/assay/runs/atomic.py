"""Creating a file once, and appending whole lines; open it when two have claimed one attempt, or a line is torn."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.errors import DataError
from assay.files import write_bytes

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What link(2) says on a file system without hard links."""
WRITE = "cannot be written ({}); make room, then run it again"
READ = "cannot be read ({}); restore it or move it away"


def create(path: Path, content: bytes) -> bool:
    """Create a file with its content; False: somebody else has. Linking is atomic on NFS, where O_EXCL once was not."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    write_bytes(temporary, content)
    try:
        with named(path):
            return _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        return temporary.stat().st_nlink == 2  # the answer to our own link was lost, and NFS asked again
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        return _create_exclusively(path, temporary.read_bytes())
    return True


def _create_exclusively(path: Path, content: bytes) -> bool:
    try:
        file = path.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()
        raise
    return True


def append(path: Path, content: bytes) -> None:
    """Append in one write, on a line of its own; what the disk has no room for is taken back."""
    with named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            content = b"\n" * torn + content
            if os.write(descriptor, content) < len(content):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


@contextmanager
def named(path: Path, failure: str = WRITE) -> Iterator[None]:
    """Turn an OSError into one line, for writing that of `write_bytes`."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: {failure.format(error.strerror)}") from error
