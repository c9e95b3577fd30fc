"""A crop: image, labels, which classes are annotated, where labels are known; open it for how a patch is cut.

A label volume holds 0 (other), the labels of CLASSES, and OUTSIDE (255) where nothing is known. Three states of a class
are kept apart: annotated and absent (0), not annotated (not in `annotated`), outside (255, or beyond the label box).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Volume = NDArray[np.uint8]
Flags = NDArray[np.bool_]
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and one past the last, along z, y, x."""
Size = tuple[float, float, float]


class NewCrop(NamedTuple):
    """A crop to be kept. annotated (C,): what may be seen; labelled (C,): classes of which `label` is right.

    box: where labels are known, inside of the image; None for everywhere.
    """

    name: str
    dataset: str
    image: Volume
    label: Volume
    annotated: Flags
    labelled: Flags
    box: Box | None
    voxel_nm: Size


class Crop(NamedTuple):
    """A kept crop: image and label (Z, Y, X) uint8 by memory map, label box, and what a view shows of its classes.

    annotated (C,): in the view. shown (256,) uint8: what each label becomes in it; hidden classes become other.
    positives (C,): voxels of each class that the view shows. known_voxels: of the label box, without unknown ones.
    """

    name: str
    dataset: str
    image: Volume
    label: Volume
    annotated: Flags
    known: Box | None
    voxel_nm: Size
    shown: Volume
    positives: NDArray[np.int64]
    known_voxels: int

    @property
    def box(self) -> Box:
        """The label box."""
        z, y, x = self.image.shape
        return self.known or ((0, z), (0, y), (0, x))

    def cut(self, start: Sequence[int], edges: Sequence[int]) -> tuple[Volume, Volume, Flags]:
        """Image, label, and what lies in the label box, of a patch that may reach out of the crop: 0 there."""
        image, label = np.zeros(edges, np.uint8), np.zeros(edges, np.uint8)
        inside = np.zeros(edges, np.bool_)
        source, into = _common(start, edges, [(0, edge) for edge in self.image.shape])
        image[into] = self.image[source]
        label[into] = self.shown[self.label[source]]
        inside[_common(start, edges, self.box)[1]] = True
        return image, label, inside


def _common(
    start: Sequence[int], edges: Sequence[int], bounds: Sequence[tuple[int, int]]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a patch and bounds meet, as a place in the crop and in the patch."""
    source = []
    for first, edge, (low, high) in zip(start, edges, bounds, strict=True):
        at = min(max(first, low), high)
        source.append(slice(at, max(at, min(first + edge, high))))
    into = [
        slice(min(side.start - first, edge), min(side.stop - first, edge)) if side.stop > side.start else slice(0, 0)
        for side, first, edge in zip(source, start, edges, strict=True)
    ]
    return tuple(source), tuple(into)
