"""Intervals by resampling whole phantoms; open it when an interval looks too narrow.

Voxels of one phantom share its anatomy and neighbours share noise, so phantoms are what is independent, not voxels.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.random import generator
from assay.studies.asl.metrics import Sums

TAIL = 0.025  # on each side of a 95 % interval


class Estimate(NamedTuple):
    """A score (...) and the ends of its 95 % percentile interval, NaN where fewer than two phantoms have a say."""

    value: Tensor
    low: Tensor
    high: Tensor


def resamples(phantoms: int, count: int) -> Tensor:
    """How often each phantom is drawn in each resample, (count, phantoms) float64; the same at every call."""
    drawn = torch.randint(phantoms, (count, phantoms), generator=generator("bootstrap", phantoms, count))
    times = torch.zeros(count, phantoms, dtype=torch.float64)
    return times.scatter_add_(1, drawn, torch.ones_like(times))


class Bootstrap:
    """Sums (..., P) of P phantoms, pooled once as they are and once for each of `resamples` (R, P)."""

    def __init__(self, sums: Sums, weights: Tensor) -> None:
        pooled = torch.stack(list(sums)) @ weights.T
        self.resampled = Sums(*pooled)
        self.pooled = sums.map(lambda value: value.sum(-1))
        self.phantoms = (sums.voxels > 0).sum(-1)

    def estimate(self, score: Callable[[Sums], Tensor]) -> Estimate:
        """A score of the pool and its interval; numerator and denominator of a ratio are resampled together."""
        low, high = percentiles(score(self.resampled))
        alone = self.phantoms < 2
        return Estimate(score(self.pooled), low.masked_fill(alone, torch.nan), high.masked_fill(alone, torch.nan))


def percentiles(values: Tensor) -> tuple[Tensor, Tensor]:
    """The 2.5th and 97.5th percentile over the resamples, the last dimension, of those that are numbers."""
    ends = torch.tensor([TAIL, 1 - TAIL], dtype=values.dtype, device=values.device)
    low, high = torch.nanquantile(values, ends, dim=-1)
    return low, high
