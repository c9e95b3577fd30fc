"""Where the voxels of a volume lie in space, and resampling from one grid to another; open it for scales and shifts.

OME-NGFF 0.4 (https://ngff.openmicroscopy.org/0.4): `scale` is the size of a voxel and `translation` the centre of the
first one, both in nm and in the order of the axes, z, y, x.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]


class Grid(NamedTuple):
    """Size of a voxel and centre of the first one, nm, and number of voxels along z, y, x."""

    scale: Triple
    translation: Triple
    shape: tuple[int, int, int]

    @property
    def start(self) -> NDArray[np.float64]:
        """Outer face of the first voxel along each axis, nm."""
        return np.array([at - edge / 2 for at, edge in zip(self.translation, self.scale, strict=True)])

    @property
    def end(self) -> NDArray[np.float64]:
        """Outer face of the last voxel along each axis, nm."""
        triples = zip(self.start.tolist(), self.scale, self.shape, strict=True)
        return np.array([first + edge * count for first, edge, count in triples])

    def centres(self, axis: int) -> NDArray[np.float64]:
        """Of the voxels along an axis, nm."""
        return np.array([self.translation[axis] + self.scale[axis] * place for place in range(self.shape[axis])])


def grid_over(start: Sequence[float], end: Sequence[float], scale: Triple) -> Grid:
    """The grid of a voxel size that begins at `start` and has as many voxels as come closest to `end`."""
    counts = [max(1, round((high - low) / edge)) for low, high, edge in zip(start, end, scale, strict=True)]
    z, y, x = (float(low + edge / 2) for low, edge in zip(start, scale, strict=True))
    return Grid(scale, (z, y, x), (counts[0], counts[1], counts[2]))


def nearest(array: Any, source: Grid, wanted: Grid) -> NDArray[Any]:
    """Values of `array`, which lies on `source`, at the voxels of `wanted`; at the ends the last voxel is repeated."""
    places = [
        np.floor((wanted.centres(axis) - source.start[axis]) / source.scale[axis]).astype(int).clip(0, edge - 1)
        for axis, edge in enumerate(source.shape)
    ]
    block = np.asarray(array[tuple(slice(int(place.min()), int(place.max()) + 1) for place in places)])
    return block[np.ix_(*(place - place.min() for place in places))]


def linear(array: Any, source: Grid, wanted: Grid) -> NDArray[np.float32]:
    """The same by linear interpolation; only the part of `array` that is needed is read."""
    lows, parts = [], []
    for axis, edge in enumerate(source.shape):
        place = ((wanted.centres(axis) - source.translation[axis]) / source.scale[axis]).clip(0, edge - 1)
        low = np.floor(place).astype(int)
        lows.append(low)
        parts.append((place - low).astype(np.float32))
    sides = [slice(int(low.min()), int(low.max()) + 2) for low in lows]
    volume = np.asarray(array[tuple(sides)]).astype(np.float32)
    for axis, (low, part) in enumerate(zip(lows, parts, strict=True)):
        first = low - low.min()
        below = volume.take(first, axis)
        if part.any():
            above = volume.take((first + 1).clip(max=volume.shape[axis] - 1), axis)
            below += (above - below) * part.reshape(*(-1 if axis == own else 1 for own in range(3)))
        volume = below
    return volume
