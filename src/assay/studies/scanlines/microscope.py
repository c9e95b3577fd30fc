"""Scans as microscopes write them, through readers that others keep; open it to read another format.

A csv table with the columns file, label and group lists the scans. Every file gives its traces and retraces, all in
the table's group; those that a reader gives from the last acquired line on are turned.
"""

import csv
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.studies.scanlines.archive import Labelled, check

COLUMNS = ("file", "label", "group")


class Scan(NamedTuple):
    """A topograph (lines, points), as its reader gives it, and whether its line 0 is the last acquired one."""

    image: NDArray[np.float64]
    backwards: bool

    @property
    def acquired(self) -> NDArray[np.float64]:
        """Line 0 is the first acquired one."""
        return self.image[::-1] if self.backwards else self.image


def read_scans(table: Path, lines: int, points: int, classes: int, transpose: bool) -> Labelled:
    """Every scan of a table, averaged down to lines x points.

    Raises:
        DataError: table or scan is missing or unreadable, a group or label is missing, or its reader is not installed.
    """
    images, labels, groups = [], [], []
    for row in _rows(table):
        for scan in read_file(table.parent / row["file"]):
            image = scan.image.T if transpose else scan.image
            images.append(average_down(Scan(image, scan.backwards).acquired, lines, points, row["file"]))
            labels.append(_label(table, row))
            groups.append(row["group"])
    if not images:
        raise DataError(f"{table}: got no scans; allowed: one or more rows; list files in it")
    _, parents = np.unique(groups, return_inverse=True)
    stacked = np.stack(images).astype(np.float32)
    return check(Labelled(stacked, np.array(labels), parents.astype(np.int64)), table, lines, classes)


def _label(table: Path, row: dict[str, str]) -> int:
    try:
        return int(row["label"])
    except ValueError:
        raise DataError(f"{table}: got label {row['label']!r} of {row['file']}; allowed: a whole number") from None


def _rows(table: Path) -> Iterator[dict[str, str]]:
    if not table.is_file():
        raise DataError(f"{table}: no such file; allowed: a csv table with columns {', '.join(COLUMNS)}; set data.file")
    with table.open(newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{table}: got no column {missing[0]}; allowed: {', '.join(COLUMNS)}; add it")
        for number, row in enumerate(reader, start=2):
            empty = [name for name in COLUMNS if not row[name]]
            if empty:
                why = "trace and retrace must not be parted" if empty[0] == "group" else "every scan needs one"
                raise DataError(f"{table}: line {number} has no {empty[0]}; allowed: a value; {why}")
            yield row


def average_down(image: NDArray[np.float64], lines: int, points: int, name: str) -> NDArray[np.float64]:
    """Means of blocks, (lines, points).

    Raises:
        DataError: the scan's size is no multiple of that.
    """
    n, p = image.shape
    if n % lines or p % points or not n or not p:
        allowed = f"multiples of {lines} x {points}; crop it, or change data.lines and data.points"
        raise DataError(f"{name}: got {n} x {p} points; allowed: {allowed}")
    blocks: NDArray[np.float64] = image.reshape(lines, n // lines, points, p // points)
    return np.asarray(blocks.mean((1, 3)))


def read_file(path: Path) -> list[Scan]:
    """The topographs of a file by its ending.

    Raises:
        DataError: the ending is not known, the file missing or damaged, or the package that reads it not installed.
    """
    if path.suffix not in READERS:
        allowed = ", ".join(sorted(READERS))
        raise DataError(f"{path}: got a file ending in {path.suffix or 'nothing'}; allowed: {allowed}; convert it")
    if not path.is_file():
        raise DataError(f"{path}: no such file; allowed: paths relative to the table; correct it")
    package, read = READERS[path.suffix]
    try:
        module = importlib.import_module(package)
    except ImportError:
        name = package.partition(".")[0]
        raise DataError(f"{path}: read by {name}, which is not installed; pip install {name}") from None
    try:
        return read(module, path)
    except (ValueError, KeyError, OSError, IndexError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: cannot be read ({reason}); allowed: a complete {path.suffix} file") from error


def _nanonis(module: Any, path: Path) -> list[Scan]:
    """Nanonis .sxm: lines in the order of acquisition, upwards and downwards alike; the backward image is mirrored."""
    z = module.Scan(str(path)).signals["Z"]
    images = [np.asarray(z["forward"]), np.asarray(z["backward"])[:, ::-1]]
    return [Scan(image.astype(np.float64), False) for image in images if np.isfinite(image).any()]


def _matrix(module: Any, path: Path) -> list[Scan]:
    """Omicron Matrix: up to four traces, forward and backward, upwards and downwards.

    The reader gives all of them as they lie on the surface, from the bottom: those downwards begin with the last line.
    """
    file = module.MtrxData()
    traces, message = file.open(str(path))
    if not traces:
        raise ValueError(message)
    scans = []
    for number, name in traces.items():
        image, _ = file.select_image(traces[number])
        scans.append(Scan(np.asarray(image.data, dtype=np.float64), name.endswith("/down")))
    return scans


def _gwyddion(module: Any, path: Path) -> list[Scan]:
    """Gwyddion .gwy: every data field of the container; it does not keep the direction, downwards is taken."""
    fields = module.util.get_datafields(module.load(str(path)))
    return [Scan(np.asarray(field.data, dtype=np.float64), False) for field in fields.values()]


READERS: dict[str, tuple[str, Callable[[Any, Path], list[Scan]]]] = {
    ".sxm": ("nanonispy2.read", _nanonis),
    ".Z_mtrx": ("access2thematrix", _matrix),
    ".gwy": ("gwyfile", _gwyddion),
}
"""Package that reads a file of an ending, and how its answer becomes topographs."""
