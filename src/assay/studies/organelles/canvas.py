"""The volume that objects are painted into: which part of which object each voxel belongs to; open it to add a shape.

A part (a membrane, a lumen) has one label and one grey value, so painting changes whole numbers alone, and grey values
are looked up once at the end. Part 0 is free space: an object takes what it is painted into, so no two overlap.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from assay.studies.organelles.draw import Draw

Box = tuple[slice, slice, slice]
PARTS = 256  # at most, of a crop; later ones are left out


class Canvas:
    """part (Z, Y, X) uint8; label and grey value of each part, those of free space first."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.part = torch.zeros(self.shape, dtype=torch.uint8)
        self.labels, self.greys = [0], [0.0]

    @property
    def whole(self) -> Box:
        """The box of everything."""
        return slice(0, self.shape[0]), slice(0, self.shape[1]), slice(0, self.shape[2])

    def free(self, box: Box) -> Tensor:
        """Which voxels of a box belong to no object."""
        return self.part[box] == 0

    def box(self, centre: Tensor, reach: Sequence[float]) -> Box | None:
        """Voxels within `reach` of a point along every axis; None if there are none."""
        ends = [
            (max(int(at - far), 0), min(int(at + far) + 2, edge))
            for at, far, edge in zip(centre.tolist(), reach, self.shape, strict=True)
        ]
        if any(end - start < 1 for start, end in ends):
            return None
        z, y, x = (slice(start, end) for start, end in ends)
        return z, y, x

    def paint(self, box: Box, where: Tensor, label: int, grey: float, over: int = 0) -> int:
        """Make voxels of a box (bool), all of part `over` now, a new part; returns its number."""
        number = len(self.labels)
        if number == PARTS:
            return over
        self.part[box].add_(where.view(torch.uint8), alpha=number - over)
        self.labels.append(label)
        self.greys.append(grey)
        return number

    def label(self) -> Tensor:
        """Labels (Z, Y, X) uint8."""
        return self._look_up(torch.tensor(self.labels, dtype=torch.uint8))

    def grey(self, background: Tensor) -> Tensor:
        """Grey values (Z, Y, X): those of the parts, and of the background in free space."""
        return torch.where(self.part == 0, background, self._look_up(torch.tensor(self.greys)))

    def _look_up(self, table: Tensor) -> Tensor:
        return table.index_select(0, self.part.flatten().int()).view(self.shape)

    def point(self, draw: Draw) -> Tensor:
        """A point (3,) anywhere in the volume."""
        return draw.uniform(3) * torch.tensor(self.shape)

    def free_point(self, draw: Draw, tries: int = 8) -> Tensor | None:
        """A point in free space, if one is found."""
        for _ in range(tries):
            point = self.point(draw)
            z, y, x = point.long().tolist()
            if self.part[z, y, x] == 0:
                return point
        return None


def offsets(box: Box, centre: Tensor) -> list[Tensor]:
    """Distance from a point along z, y, x of each voxel of a box, shapes (Z, 1, 1), (1, Y, 1), (1, 1, X)."""
    lines = [torch.arange(side.start, side.stop) - at for side, at in zip(box, centre.tolist(), strict=True)]
    return [line.view(*(-1 if axis == own else 1 for axis in range(3))) for own, line in enumerate(lines)]


def extents(box: Box) -> tuple[int, int, int]:
    """Voxels of a box along z, y, x."""
    return box[0].stop - box[0].start, box[1].stop - box[1].start, box[2].stop - box[2].start


def radius(parts: Sequence[Tensor]) -> Tensor:
    """Length of the vectors with these parts, which broadcast."""
    z, y, x = parts
    return (z * z + y * y + x * x).sqrt_()
