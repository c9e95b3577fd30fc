"""Training patches as bytes, cut from the crops; open it for where a patch lies and what a rank gets.

Batch k is a function of (seed, k) alone. Of the global batch of world x B samples, rank r has samples r B to (r + 1) B.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from assay.engine.distributed import Share
from assay.engine.random import derive
from assay.errors import DataError
from assay.studies.organelles.cache import Crops
from assay.studies.organelles.crop import Crop
from assay.studies.organelles.data_section import SamplingConfig
from assay.studies.organelles.sampler import CropOrder


class RawBatch(NamedTuple):
    """Patches before anything is done to them, as bytes.

    image (B, 1, *spatial) uint8; label (B, *spatial) uint8; inside (B, *spatial) bool: in the label box; annotated
    (B, C) bool.
    """

    image: Tensor
    label: Tensor
    inside: Tensor
    annotated: Tensor

    def pinned(self) -> "RawBatch":
        """The same in memory from which a GPU copies without waiting."""
        return RawBatch(*(part.pin_memory() for part in self))


class PatchBatches:
    """Batches of patches, of slices (sampling.patch with two edges) or of volumes (three)."""

    def __init__(
        self,
        crops: Crops,
        ids: Sequence[int],
        section: SamplingConfig,
        seed: int,
        batch_size: int,
        share: Share | None = None,
    ) -> None:
        """batch_size: patches of one rank.

        Raises:
            DataError: no crop is as large as a patch.
        """
        self.crops, self.section, self.seed, self.batch_size = crops, section, seed, batch_size
        self.share = share or Share()
        self.order = CropOrder(crops, ids, section, seed)
        refuse_too_large([crops[number] for number in ids], section)

    def batch(self, number: int) -> RawBatch:
        """Batch `number` of this rank, on the CPU."""
        first = (number * self.share.world + self.share.rank) * self.batch_size
        chosen = [self.order.at(sample) for sample in range(first, first + self.batch_size)]
        cuts = [self.patch(first + place, crop) for place, crop in enumerate(chosen)]
        image, label, inside = (torch.from_numpy(np.stack(parts)) for parts in zip(*cuts, strict=True))
        if len(self.section.patch) == 2:
            image, label, inside = image[:, 0], label[:, 0], inside[:, 0]
        annotated = torch.from_numpy(np.stack([self.crops[crop].annotated for crop in chosen]))
        self.crops.release()
        return RawBatch(image[:, None], label, inside, annotated)

    def patch(self, sample: int, crop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image, label, inside (z, y, x) of a sample from a crop."""
        rng = np.random.default_rng(derive(self.seed, "patch", sample))
        chosen = self.crops[crop]
        edges = self.section.edges
        start = [int(rng.integers(low, high + 1)) for low, high in first_voxels(chosen, edges)]
        return chosen.cut(start, edges)


def first_voxels(crop: Crop, edges: Sequence[int]) -> list[tuple[int, int]]:
    """First and last place along each axis at which a patch may begin: as much of it annotated as can be.

    A patch that is larger than the label box covers all of it, and does not leave the image if it fits into it.
    """
    ranges = []
    for edge, whole, (start, end) in zip(edges, crop.image.shape, crop.box, strict=True):
        low, high = sorted((start, end - edge))
        limits = (0, whole - edge) if edge <= whole else (low, high)
        ranges.append((min(max(low, limits[0]), limits[1]), min(max(high, limits[0]), limits[1])))
    return ranges


def refuse_too_large(crops: Sequence[Crop], section: SamplingConfig) -> None:
    """Raise DataError if a patch is larger along an axis than every crop: all of them would be padded."""
    for axis, edge in zip("zyx", section.edges, strict=True):
        largest = max(crops, key=lambda crop: crop.image.shape["zyx".index(axis)])
        whole = largest.image.shape["zyx".index(axis)]
        if edge > whole:
            got = f"{edge} voxels along {axis}, more than any crop has (crop {largest.name}: {whole})"
            raise DataError(f"sampling.patch: got {got}; allowed: {whole} or less; choose a smaller patch")
