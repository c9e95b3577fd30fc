"""Scores pooled over everything that was annotated; open it for what a number in metrics.json means.

Counts are added up over all batches, crops and ranks before anything is divided, so the order and the size of batches
change nothing. A class that was never annotated has no score (NaN); one that was, but is in neither truth nor
prediction, has none by default. Precision and recall need a prediction or a positive of their own. Means are over the
classes that occur in the truth, whatever is predicted, so that two networks are judged by the same ones; that of
precision is over those of them that are predicted.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.organelles.classes import CLASSES

BINS = 1024
LIMIT = 16.0  # logits beyond it share the last bin
UNKNOWN = 2  # beside 0 and 1


class PooledScores(NamedTuple):
    """Scores per class (C,) float64, NaN where there is none, voxels, and the confusion matrix.

    average_precision: area under precision against recall over all thresholds, from a histogram of logits with steps of
    1/32. confusion (C + 1, C + 1): rows are the truth, other first, of voxels where every class is annotated.
    """

    dice: Tensor
    iou: Tensor
    precision: Tensor
    recall: Tensor
    average_precision: Tensor
    annotated: Tensor
    positive: Tensor
    confusion: Tensor

    @property
    def mean_dice(self) -> float:
        """Say `classes` beside it."""
        return self.mean(self.dice)

    @property
    def classes(self) -> int:
        """Number of classes that occur in the truth."""
        return int((self.positive > 0).sum())

    def mean(self, values: Tensor, among: Sequence[int] | None = None) -> float:
        """Of values per class (C,), over the classes that occur in the truth, all or `among` some; NaN if none does."""
        there = (self.positive > 0).nonzero().flatten().tolist()
        return float(values[[k for k in there if among is None or k in among]].nanmean())


class PooledCounts:
    """Counts of a validation; `update` with every batch, `state` to add up over ranks, then `compute`."""

    def __init__(
        self, classes: int = len(CLASSES), empty: float = math.nan, device: torch.device | str = "cpu"
    ) -> None:
        """empty: score of a class that is annotated and in neither truth nor prediction."""
        self.classes, self.empty = classes, empty
        self.histogram = torch.zeros(classes, 2, BINS, dtype=torch.int64, device=device)
        self.confusion = torch.zeros(classes + 1, classes + 1, dtype=torch.int64, device=device)

    def update(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch: the logits that decide and the target (B, C, *spatial), NaN where nothing is known.

        The classes of a voxel exclude each other, as those of an integer label do.
        """
        logits = logits.detach().float()
        per_class = (-1, *(1,) * (logits.ndim - 2))
        # a bin's number in float32, which is exact so far; 0 is the upper edge of its bin: only above it is positive
        place = (logits * (BINS / (2 * LIMIT))).ceil_().clamp_(1 - BINS // 2, BINS // 2)
        channel = torch.arange(self.classes, device=logits.device).view(per_class)
        place.add_(target.nan_to_num(nan=UNKNOWN), alpha=BINS).add_(channel * (3 * BINS) + BINS // 2 - 1)
        counts = torch.bincount(place.int().flatten(), minlength=self.classes * 3 * BINS)
        self.histogram += counts.view(self.classes, 3, BINS)[:, :UNKNOWN].to(self.histogram.device)
        truth = (target * (channel + 1)).sum(1)
        whole = ~truth.isnan()
        best, predicted = logits.max(1)
        pairs = truth[whole].long() * (self.classes + 1) + torch.where(best > 0, predicted + 1, 0)[whole]
        table = torch.bincount(pairs, minlength=self.confusion.numel())
        self.confusion += table.view(self.confusion.shape).to(self.confusion.device)

    def state(self) -> Tensor:
        """All counts as one int64 vector, which may be summed over ranks."""
        return torch.cat([self.histogram.flatten(), self.confusion.flatten()])

    def load(self, state: Tensor) -> "PooledCounts":
        """Replace the counts by those of a vector."""
        size = self.histogram.numel()
        self.histogram = state[:size].view(self.histogram.shape).clone()
        self.confusion = state[size:].view(self.confusion.shape).clone()
        return self

    def compute(self) -> PooledScores:
        """The scores of what was counted."""
        negatives, positives = self.histogram.double().cpu().unbind(1)
        found = slice(BINS // 2, None)
        tp, fp, positive = positives[:, found].sum(1), negatives[:, found].sum(1), positives.sum(1)
        annotated = positive + negatives.sum(1)
        empty = torch.where(annotated > 0, self.empty, math.nan)
        return PooledScores(
            dice=_ratio(2 * tp, tp + fp + positive, empty),
            iou=_ratio(tp, fp + positive, empty),
            precision=_ratio(tp, tp + fp, torch.full_like(tp, math.nan)),
            recall=_ratio(tp, positive, torch.full_like(tp, math.nan)),
            average_precision=_average_precision(positives, negatives),
            annotated=annotated,
            positive=positive,
            confusion=self.confusion.cpu(),
        )


def _ratio(part: Tensor, whole: Tensor, empty: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, empty)


def _average_precision(positives: Tensor, negatives: Tensor) -> Tensor:
    """sum_k (R_k - R_k-1) P_k from the highest bin down (C,), of counts (C, bins); NaN without positives."""
    hits, wrong = positives.flip(1).cumsum(1), negatives.flip(1).cumsum(1)
    precision = hits / (hits + wrong).clamp_min(1.0)
    area = (positives.flip(1) * precision).sum(1)
    total = positives.sum(1)
    return torch.where(total > 0, area / total.clamp_min(1.0), math.nan)
