"""Reads arrays of a Zarr store, format 2, as far as published recordings need it; open it when a store is refused.

An array is a folder: `.zarray` describes it, a file per chunk holds values (https://zarr-specs.readthedocs.io, v2).
Chunks compressed by Blosc need the package numcodecs.
"""

import gzip
import json
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError

ALLOWED = "null, zlib, gzip, blosc"


class ZarrArray:
    """An array on disk.

    Raises:
        DataError: there is none, or it is of a kind that is not read here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            about = json.loads((path / ".zarray").read_text())
            self.shape, self.chunks = tuple(about["shape"]), tuple(about["chunks"])
            self.dtype, self.compressor = np.dtype(about["dtype"]), about["compressor"]
        except FileNotFoundError:
            raise DataError(
                f"{path}: no .zarray; allowed: an array of Zarr format 2; give the folder of a store"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path / '.zarray'}: not a description of an array ({error}); get the store anew"
            ) from None
        if about.get("order", "C") != "C" or about.get("filters") or len(self.shape) != len(self.chunks):
            raise DataError(f"{path}: got filters or order F; allowed: neither; write the store anew")
        self.separator = about.get("dimension_separator", ".")

    def read(self, first: int, end: int, column: int | None = None) -> NDArray[np.float32]:
        """Rows [first, end), of a 2- or 3-dimensional array one `column` of the last dimension; float32.

        Raises:
            DataError: there are fewer rows, or a chunk is missing or damaged.
        """
        if end > self.shape[0]:
            raise DataError(f"{self.path}: got {self.shape[0]} time steps; allowed: {end} or more; get the store anew")
        every = [range(-(-size // chunk)) for size, chunk in zip(self.shape, self.chunks, strict=True)]
        every[0] = range(first // self.chunks[0], -(-end // self.chunks[0]))
        inner = self.shape[1:]
        if column is not None:
            every[-1] = range(column // self.chunks[-1], column // self.chunks[-1] + 1)
            inner = self.shape[1:-1]
        out = np.empty((end - first, *inner), dtype=np.float32)
        for place in np.ndindex(*(len(part) for part in every)):
            index = tuple(part[at] for part, at in zip(every, place, strict=True))
            values = self._chunk(index)
            if column is not None:
                values, index = values[..., column % self.chunks[-1]], index[:-1]
            into, taken = [], []
            for axis, at in enumerate(index):
                start = at * self.chunks[axis]
                low, high = (first, end) if axis == 0 else (0, self.shape[axis])
                into.append(slice(max(start, low) - low, min(start + self.chunks[axis], high) - low))
                taken.append(slice(max(start, low) - start, min(start + self.chunks[axis], high) - start))
            out[tuple(into)] = values[tuple(taken)]
        return out

    def _chunk(self, index: tuple[int, ...]) -> NDArray[Any]:
        path = self.path / self.separator.join(map(str, index))
        try:
            raw = self._decompressed(path.read_bytes())
            return np.frombuffer(raw, dtype=self.dtype).reshape(self.chunks)
        except FileNotFoundError:
            raise DataError(f"{path}: no such chunk; the store is incomplete; get it anew") from None
        except (OSError, ValueError, RuntimeError, zlib.error, EOFError) as error:
            raise DataError(f"{path}: truncated or damaged ({error}); get the store anew") from None

    def _decompressed(self, raw: bytes) -> bytes:
        name = None if self.compressor is None else self.compressor.get("id")
        if name is None:
            return raw
        if name == "zlib":
            return zlib.decompress(raw)
        if name == "gzip":
            return gzip.decompress(raw)
        if name != "blosc":
            raise DataError(f"{self.path}: got compressor {name}; allowed: {ALLOWED}; write the store anew")
        try:
            blosc = import_module("numcodecs.blosc")
        except ImportError:
            raise DataError(f"{self.path}: compressed by blosc; this needs numcodecs; pip install numcodecs") from None
        content: bytes = blosc.decompress(raw)
        return content
