"""A metric's values over the seeds of an arm, with failed and missing ones apart; open it to change what counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from assay.matrix.cells import COMPLETE, CellResult
from assay.matrix.verdicts.statistics import Array, wilson

FAILED: Final = "failed"


@dataclass(frozen=True, kw_only=True)
class FailureRate:
    """How many of an arm's seeds failed. Seeds without a run yet are in neither number."""

    failed: int
    n: int
    rate: float
    low: float
    """Lower end of Wilson's 95 % interval."""
    high: float


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """One metric of one arm, by seed."""

    values: Mapping[int, float]
    """Finite values."""
    failed: tuple[int, ...] = ()
    """Seeds whose run failed, or ended with a NaN or infinite value."""
    missing: tuple[int, ...] = ()
    """Seeds whose run is not there, not at its end, or was ended by its surroundings."""
    unwritten: tuple[int, ...] = ()
    """Seeds whose run is complete and has no such metric."""

    @property
    def failures(self) -> FailureRate | None:
        """None where no run has come to an end."""
        return failure_rate(len(self.failed), len(self.failed) + len(self.values))


def failure_rate(failed: int, n: int) -> FailureRate | None:
    """With Wilson's 95 % interval; None for no runs."""
    if n == 0:
        return None
    low, high = wilson(failed, n)
    return FailureRate(failed=failed, n=n, rate=failed / n, low=low, high=high)


def replicates(cells: Sequence[CellResult], arm: str, metric: str) -> Replicates:
    """What the cells of an arm say about a metric."""
    values: dict[int, float] = {}
    failed, missing, unwritten = [], [], []
    for cell in (each for each in cells if each.arm == arm):
        if cell.state == FAILED and not cell.outside:
            failed.append(cell.seed)
        elif cell.state != COMPLETE:
            missing.append(cell.seed)
        elif metric not in cell.metrics:
            unwritten.append(cell.seed)
        elif not math.isfinite(cell.metrics[metric]):
            failed.append(cell.seed)
        else:
            values[cell.seed] = cell.metrics[metric]
    return Replicates(values=values, failed=tuple(failed), missing=tuple(missing), unwritten=tuple(unwritten))


def in_order(found: Replicates, seeds: Sequence[int], direction: Literal["min", "max"]) -> Array:
    """Values of these seeds, shape (seeds,); a failed one is infinitely bad."""
    worst = math.inf if direction == "min" else -math.inf
    return np.array([found.values.get(seed, worst) for seed in seeds], dtype=float)
