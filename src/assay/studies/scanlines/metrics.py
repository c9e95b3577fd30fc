"""Scores of class probabilities, always over all samples at once; open it for what a number in metrics.json means."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)


class Scores(NamedTuple):
    """Of n samples: shares and areas in 0 to 1, loss in nat; per class (K,), NaN for a class that is absent."""

    accuracy: float
    balanced_accuracy: float
    auroc: float
    calibration_error: float
    cross_entropy: float
    recall: Tensor
    precision: Tensor
    f1: Tensor
    auroc_by_class: Tensor
    confusion: Tensor
    """(K, K), rows are the truth."""


def score(probabilities: Tensor, labels: Tensor, bins: int = 15) -> Scores:
    """All of them from probabilities (n, K) and labels (n,)."""
    classes = probabilities.shape[1]
    table = confusion(probabilities.argmax(1), labels, classes)
    recall, precision = recall_by_class(table), _ratio(table.diagonal(), table.sum(0))
    areas = auroc_by_class(probabilities, labels)
    nll = -probabilities.gather(1, labels[:, None]).clamp_min(1e-12).log()
    error = multiclass_calibration_error(probabilities, labels, classes, n_bins=bins, norm="l1")
    return Scores(
        accuracy=float(table.diagonal().sum() / table.sum()),
        balanced_accuracy=float(recall.nanmean()),
        auroc=float(areas.nanmean()),
        calibration_error=float(error),
        cross_entropy=float(nll.mean()),
        recall=recall,
        precision=precision,
        f1=_ratio(2 * table.diagonal(), table.sum(0) + table.sum(1)),
        auroc_by_class=areas,
        confusion=table,
    )


def confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Counts (K, K), rows are the truth."""
    return multiclass_confusion_matrix(predicted, labels, classes)


def recall_by_class(table: Tensor) -> Tensor:
    """Share of each class's samples that are found, (..., K) of confusion tables (..., K, K); NaN without samples."""
    return _ratio(table.diagonal(dim1=-2, dim2=-1), table.sum(-1))


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole, torch.nan)


def auroc_by_class(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Area under the curve of each class against the others, ties counting half, (K,); NaN where one side is empty."""
    areas = torch.full((probabilities.shape[1],), math.nan)
    for label in range(probabilities.shape[1]):
        positive = (labels == label).long()
        if 0 < int(positive.sum()) < len(labels):
            areas[label] = binary_auroc(probabilities[:, label], positive)
    return areas


def balanced_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """Mean recall over the classes that are present."""
    classes = probabilities.shape[1]
    return float(recall_by_class(confusion(probabilities.argmax(1), labels, classes)).nanmean())


def interval(predicted: Tensor, labels: Tensor, group: Tensor, classes: int, resamples: int) -> tuple[float, float]:
    """95 % interval of the balanced accuracy, from resamples of whole groups with a fixed seed."""
    _, place = torch.unique(group, return_inverse=True)
    groups = int(place.max()) + 1
    tables = torch.zeros(groups, classes * classes, dtype=torch.float64)
    tables.index_put_((place, labels * classes + predicted), torch.ones(len(place), dtype=torch.float64), True)
    drawn = torch.randint(groups, (resamples, groups), generator=torch.Generator().manual_seed(0))
    times = torch.zeros(resamples, groups, dtype=torch.float64).scatter_add_(1, drawn, torch.ones_like(drawn).double())
    recalls = recall_by_class((times @ tables).view(-1, classes, classes)).nanmean(1)
    low, high = recalls.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
