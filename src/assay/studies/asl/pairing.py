"""Values at keyed voxels: estimates meet the truth by (phantom, row, column), never by position.

Open it when a comparison is refused. The published study compared least squares at every tenth voxel with the truth
of other voxels, and won; here two tables whose keys differ cannot be compared at all.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from assay.errors import DataError

EDGE = 1 << 16  # rows and columns are below this, so that a key fits one integer


class Voxels(NamedTuple):
    """Values (V,) float64 and their keys (V,) int64; `phantom`, `row` and `column` are packed into the key."""

    key: Tensor
    value: Tensor

    @property
    def phantom(self) -> Tensor:
        """The phantom of each voxel, (V,)."""
        return self.key // EDGE**2


def voxels(maps: Tensor, phantoms: Tensor, mask: Tensor) -> Voxels:
    """The values of `maps` (N, H, W) where `mask` (N, H, W) is true, keyed by phantom number (N,), row and column."""
    index, row, column = mask.nonzero(as_tuple=True)
    key = (phantoms[index] * EDGE + row) * EDGE + column
    return Voxels(key, maps[mask].double())


def require_same_keys(first: Voxels, second: Voxels) -> None:
    """Refuse to compare two tables that are not about the same voxels in the same order.

    Raises:
        DataError: the keys differ in number, or somewhere.
    """
    if len(first.key) != len(second.key):
        raise DataError(
            f"pairing: got {len(first.key)} and {len(second.key)} voxels; allowed: the same keys; "
            "select both with one mask"
        )
    differing = (first.key != second.key).nonzero()
    if len(differing):
        place = int(differing[0])
        raise DataError(
            f"pairing: voxel {place} is {describe(first.key[place])} in one table and {describe(second.key[place])} "
            "in the other; allowed: the same keys in the same order; select both with one mask"
        )


def describe(key: Tensor) -> str:
    """A key as text."""
    phantom, place = divmod(int(key), EDGE**2)
    row, column = divmod(place, EDGE)
    return f"(phantom {phantom}, row {row}, column {column})"


def every(table: Voxels, step: int) -> Voxels:
    """Every `step`-th voxel of each phantom, in raster order from its first on."""
    _, counts = torch.unique_consecutive(table.phantom, return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    kept = (torch.arange(len(table.key)) - starts) % step == 0
    return Voxels(table.key[kept], table.value[kept])
