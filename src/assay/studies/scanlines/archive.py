"""The published study's npz layout, and its refusals; open it to bring a labelled file of your own.

`images` (n, lines, points) float, `labels` (n,) whole numbers from 0, and an array that names each image's parent
scan. Its origin, a MATLAB array with a label for each column, suggests that a scan line is a *column* of an image;
the published code read rows. Here axis -2 is the line; `transpose` turns a file whose lines are columns.
"""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.studies.scanlines.sections import FEWEST_POINTS

REMEDY = "set data.transpose to true if its lines are columns"


class Labelled(NamedTuple):
    """Images (n, N, P) float32, labels (n,) of the file, and their parent scans (n,)."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]


def read_archive(path: Path, lines: int, classes: int, groups: str, transpose: bool) -> Labelled:
    """Images of `lines` lines with labels below `classes`.

    Raises:
        DataError: the file is missing, lacks an array, or fails `check`; without parent scans copies would leak.
    """
    arrays = _arrays(path)
    for name in ("images", "labels", groups):
        if name not in arrays:
            remedy = "without parent scans copies of one would be on both sides; " if name == groups else ""
            got = f"got the arrays {', '.join(sorted(arrays)) or 'none'}"
            raise DataError(f"{path}: {got}; allowed: one named {name}; {remedy}add it, or name another one")
    images = np.asarray(arrays["images"])
    if transpose and images.ndim == 3:
        images = images.swapaxes(1, 2)
    if not np.issubdtype(images.dtype, np.floating) and not np.issubdtype(images.dtype, np.integer):
        raise DataError(f"{path}: got images of type {images.dtype}; allowed: real numbers; convert them")
    parents = _parents(arrays[groups], path, groups)
    return check(Labelled(images.astype(np.float32), np.asarray(arrays["labels"]), parents), path, lines, classes)


def _parents(named: NDArray[np.generic], path: Path, groups: str) -> NDArray[np.int64]:
    """A number for each parent scan. Those that are not known cannot be told from each other, so they are refused."""
    empty = np.char.strip(named.astype(str)) == "" if named.dtype.kind in "US" else named != named
    unknown = np.flatnonzero(empty)
    if len(unknown):
        got = f"no parent scan of image {unknown[0]} in {groups}"
        raise DataError(
            f"{path}: got {got}; allowed: one for each; give every image of an unknown one a name of its own"
        )
    numbers: NDArray[np.int64] = np.unique(named, return_inverse=True)[1].reshape(named.shape).astype(np.int64)
    return numbers


def _arrays(path: Path) -> dict[str, NDArray[np.generic]]:
    try:
        with path.open("rb") as content, np.load(content, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; allowed: an npz file; set data.file to one") from None
    except (ValueError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or ["it is empty"])[0]
        raise DataError(f"{path}: cannot be read ({reason}); allowed: an npz file without objects") from error


def check(found: Labelled, path: Path, lines: int, classes: int) -> Labelled:
    """The same, if it is what it should be.

    Raises:
        DataError: shapes differ, an image has another number of lines, a value is NaN or infinite, a label is outside
            the list of classes, or a class has no image.
    """
    images, labels, groups = found
    if images.ndim != 3 or not labels.shape == groups.shape == (len(images),) or not len(images):
        got = f"images {images.shape}, labels {labels.shape}, groups {groups.shape}"
        raise DataError(f"{path}: got {got}; allowed: images (n, lines, points), a label and a group for each")
    if images.shape[1] != lines:
        raise DataError(f"{path}: got images of {images.shape[1]} lines; allowed: data.lines {lines}; {REMEDY}")
    if images.shape[2] < FEWEST_POINTS:
        raise DataError(f"{path}: got images of {images.shape[2]} points; allowed: >= {FEWEST_POINTS}; {REMEDY}")
    bad = np.argwhere(~np.isfinite(images).all(2))
    if len(bad):
        got = f"{len(bad)} lines with NaN or infinite values, the first is line {bad[0, 1]} of image {bad[0, 0]}"
        raise DataError(f"{path}: got {got}; allowed: numbers; leave these scans out or cut them")
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: got labels of type {labels.dtype}; allowed: whole numbers from 0 to {classes - 1}")
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        got = f"label {labels[outside[0]]} at image {outside[0]}"
        raise DataError(f"{path}: {got}; allowed: 0 to {classes - 1}, an entry of data.merge for each; change merge")
    empty = np.flatnonzero(np.bincount(labels.astype(np.int64), minlength=classes) == 0)
    if len(empty):
        got = f"no image with label {empty[0]}"
        raise DataError(f"{path}: {got}; allowed: one or more of each of {classes}; give data.merge without it")
    return Labelled(images, labels.astype(np.int64), groups)


def looks_transposed(images: NDArray[np.float32]) -> bool:
    """Whether neighbouring columns differ more than neighbouring rows do, as where the lines are columns.

    Offsets and noise change from line to line; a scan has more of that across its lines than along them.
    """
    sample = images[:: max(len(images) // 200, 1)].astype(np.float64)
    between = [np.square(np.diff(sample.mean(axis), axis=1)).mean() for axis in (2, 1)]
    return bool(between[1] > between[0])
