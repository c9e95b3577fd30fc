"""Reads the published layouts of a recording: an array (T, N, 9), or a Zarr store with its columns split.

Columns: 0 index, 1 x, 2 y, 3 voltage, 4 stimulus, 5 group of types, 6 cell type, 7 calcium, 8 fluorescence. The Zarr
store keeps those that never change in metadata.zarr (N, 5) and the others in timeseries.zarr (T, N, 4), or each in an
array of its own. Rows are read by chunks, and of a Zarr store only the chunks of the columns that are needed.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from assay.errors import DataError
from assay.studies.latents.dataset import CHUNK, Source
from assay.studies.latents.simulator import Rows
from assay.studies.latents.zarr import ZarrArray

COLUMNS = {"voltage": 3, "stimulus": 4, "calcium": 7, "fluorescence": 8}
DYNAMIC = ("voltage", "stimulus", "calcium", "fluorescence")  # order of timeseries.zarr
TYPE, STATIC_TYPE = 6, 4  # column of the cell type in (T, N, 9) and in metadata.zarr
ALL_COLUMNS = 9


class Published(NamedTuple):
    """A recording of `steps` time steps: `read(name, first, end)` gives a column (n, N); types (N,)."""

    steps: int
    read: Callable[[str, int, int], NDArray[np.float32]]
    types: NDArray[np.int64]


def open_published(place: str, column: str, steps: int) -> Source:
    """The first `steps` rows of a published recording, with `column` as activity.

    The stimulus is zero but for the input neurons: the channels kept are those that are not zero in the first chunk.

    Raises:
        DataError: there is no such recording, or it has another rank, too few columns or too few time steps.
    """
    path = Path(place)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give data.published as x_list_0.npy or a Zarr folder")
    opened = _zarr(path) if path.is_dir() else _array(path)
    if opened.steps < steps:
        raise DataError(f"{path}: got {opened.steps} time steps; allowed: data.steps {steps} or more; lower data.steps")
    return Source(_rows(path, opened, column, steps), opened.types, None)


def _rows(path: Path, opened: Published, column: str, steps: int) -> Iterator[Rows]:
    channels: NDArray[np.bool_] | None = None
    for first in range(0, steps, CHUNK):
        end = min(first + CHUNK, steps)
        shown = opened.read("stimulus", first, end)
        used = (shown != 0).any(axis=0)
        channels = used if channels is None else channels
        if not channels.any():
            what = f"no neuron has a stimulus in the first {end} time steps"
            raise DataError(f"{path}: {what}; allowed: one that begins there; leave out the first steps")
        if (used & ~channels).any():
            what = f"stimulus of neuron {int((used & ~channels).argmax())} begins after time step {first}"
            raise DataError(f"{path}: {what}; allowed: the same input neurons throughout; leave out the first steps")
        activity = torch.from_numpy(opened.read(column, first, end))
        yield Rows(activity, torch.from_numpy(np.ascontiguousarray(shown[:, channels])), None)


def _array(path: Path) -> Published:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: truncated or no array ({error}); give an x_list_0.npy") from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: got several arrays; allowed: one; give an x_list_0.npy")
    if array.ndim != 3 or array.shape[2] != ALL_COLUMNS:
        raise DataError(f"{path}: got shape {array.shape}; allowed: (T, N, {ALL_COLUMNS}); give an x_list_0.npy")

    def read(name: str, first: int, end: int) -> NDArray[np.float32]:
        return np.ascontiguousarray(array[first:end, :, COLUMNS[name]], dtype=np.float32)

    return Published(len(array), read, np.asarray(array[0, :, TYPE], dtype=np.int64))


def _zarr(path: Path) -> Published:
    """A store of two arrays, or of one for each column."""
    if (path / "timeseries.zarr").is_dir():
        series, static = ZarrArray(path / "timeseries.zarr"), ZarrArray(path / "metadata.zarr")
        if len(series.shape) != 3 or series.shape[2] != len(DYNAMIC):
            raise DataError(f"{series.path}: got shape {series.shape}; allowed: (T, N, {len(DYNAMIC)})")

        def read(name: str, first: int, end: int) -> NDArray[np.float32]:
            return series.read(first, end, DYNAMIC.index(name))

        types = static.read(0, static.shape[0], STATIC_TYPE)
        return Published(series.shape[0], read, types.astype(np.int64))
    arrays = {name: ZarrArray(path / f"{name}.zarr") for name in ("voltage", "stimulus")}

    def read_own(name: str, first: int, end: int) -> NDArray[np.float32]:
        array = arrays.setdefault(name, ZarrArray(path / f"{name}.zarr"))
        return array.read(first, end)

    kinds = ZarrArray(path / "neuron_type.zarr")
    return Published(arrays["voltage"].shape[0], read_own, kinds.read(0, kinds.shape[0]).astype(np.int64))
