"""Validation crops, whole, against their labels: a network's counts, and the controls beside it.

Open it to add a control. Counts are pooled over all crops before anything is divided; see metrics.py.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from assay.errors import DataError
from assay.studies.organelles.augmentation import channels
from assay.studies.organelles.cache import Crops, View
from assay.studies.organelles.classes import CLASSES, OUTSIDE
from assay.studies.organelles.crop import Crop
from assay.studies.organelles.metrics import PooledCounts
from assay.studies.organelles.windows import Piece

NETWORK, NULL, EVERYTHING, NOTHING, INTENSITY = "network", "untrained", "everything", "nothing", "intensity"
Pieces = Callable[[Tensor], Iterable[Piece]]
"""Of a volume (Z, Y, X) uint8: logits that decide, piece by piece."""
GREYS = 256


def truth_view(crops: Crops) -> View:
    """full where every label is known, as of simulated crops; else masked."""
    try:
        crops.seen_as("full")
    except DataError:
        return "masked"
    return "full"


def volume(crop: Crop) -> Tensor:
    """Image (Z, Y, X) uint8, a copy: a memory map cannot be written to."""
    return torch.from_numpy(crop.image.copy())


def code(crop: Crop) -> Tensor:
    """Labels (Z, Y, X) uint8 as the crop's view shows them, OUTSIDE where nothing is known."""
    _, label, inside = crop.cut((0, 0, 0), crop.image.shape)
    return torch.from_numpy(np.where(inside, label, OUTSIDE))


def target_of(piece: Piece, labels: Tensor, annotated: Tensor) -> Tensor:
    """Targets (B, C, *spatial) of a piece; NaN where nothing is known."""
    some = labels[piece.places]
    some = some[None] if piece.logits.ndim == 5 else some
    device = piece.logits.device
    return channels(some.to(device), annotated.to(device).expand(len(some), -1))


def count(crop: Crop, pieces: Pieces, counts: Sequence[PooledCounts], views: Sequence[Crop]) -> None:
    """Add a crop's voxels to `counts`, one for each view of the same crop."""
    labels = [(code(view), torch.from_numpy(view.annotated.copy())) for view in views]
    for piece in pieces(volume(crop)):
        for one, (known, annotated) in zip(counts, labels, strict=True):
            one.update(piece.logits, target_of(piece, known, annotated))


def merged(every: Iterable[PooledCounts]) -> PooledCounts:
    """The counts of all together."""
    return PooledCounts().load(torch.stack([each.state() for each in every]).sum(0))


class Shades(NamedTuple):
    """What a grey value alone says: per class and grey value (C, 256) whether it counts as the class."""

    chosen: Tensor

    def pieces(self, image: Tensor, first: int, every: int) -> Iterator[Piece]:
        """Of every so many slices of a volume: logits 1 and -1."""
        for place in range(first, len(image), every):
            found = self.chosen[:, image[place].long()].float() * 2 - 1
            yield Piece(slice(place, place + 1), found[None])


def shades(crops: Crops, ids: Sequence[int]) -> Shades:
    """Of training crops: for each class the grey values whose share of it is so high that Dice is highest there."""
    table = torch.zeros(len(CLASSES), 2, GREYS, dtype=torch.int64)
    for crop in (crops[number] for number in ids):
        grey, labels = volume(crop).flatten().long(), code(crop).flatten().long()
        both = torch.bincount(labels * GREYS + grey, minlength=GREYS * GREYS).view(GREYS, GREYS)
        known = both.sum(0) - both[OUTSIDE]
        positive = both[1 : len(CLASSES) + 1]
        annotated = torch.from_numpy(crop.annotated.astype(np.int64))[:, None]
        table += torch.stack([known - positive, positive], 1) * annotated[:, :, None]
    return Shades(torch.stack([_best(*of_class.double()) for of_class in table]))


def _best(negative: Tensor, positive: Tensor) -> Tensor:
    """Grey values (256,) bool that together have the highest Dice."""
    order = (positive / (positive + negative).clamp_min(1)).argsort(descending=True)
    hits, wrong = positive[order].cumsum(0), negative[order].cumsum(0)
    dice = 2 * hits / (hits + wrong + positive.sum()).clamp_min(1)
    chosen = torch.zeros(GREYS, dtype=torch.bool)
    chosen[order[: int(dice.argmax()) + 1]] = True
    return chosen


def constant_dice(positive: Tensor, annotated: Tensor, everything: bool) -> Tensor:
    """Dice per class (C,) of predicting every class everywhere, or none; NaN where none is in truth or prediction."""
    if everything:
        return torch.where(annotated > 0, 2 * positive / (annotated + positive), torch.nan)
    return torch.where(positive > 0, 0.0, torch.nan)
