"""Every arm in numbers: mean, interval, seeds, difference from the baseline, cost; open it for how a number is made.

The interval of a mean is Student's t over the seeds that have the metric, 95 %, two-sided. The difference from the
baseline is taken seed by seed over the seeds that both have, and its interval is that of the mean of those differences.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev

import numpy as np

from assay.matrix.cells import COMPLETE, MISSING, CellResult
from assay.matrix.verdicts.statistics import mean_interval

CONFIDENCE = 0.95
WAITING = frozenset({MISSING, "queued", "running"})
"""Neither complete nor ended: such a seed is no failure."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds. low and high are None for one seed; seeds names them, planned counts those asked for."""

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]
    planned: int

    @property
    def n(self) -> int:
        """Seeds that the number comes from."""
        return len(self.seeds)


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """One arm over its seeds. cells: every seed asked for, in order."""

    arm: str
    cells: tuple[CellResult, ...]
    metrics: Mapping[str, Estimate]
    """By name; a metric that no seed has is left out."""
    differences: Mapping[str, Estimate]
    """Arm minus baseline by metric, paired by seed; empty for the baseline."""
    seconds: Mapping[str, float]
    """Stage to the mean of its wall seconds."""
    wall_s: float
    """All attempts of all seeds together, as gpu_s."""
    gpu_s: float
    rss_peak: int
    """Bytes, the largest of the seeds."""

    @property
    def is_begun(self) -> bool:
        """Whether any of its seeds has a record."""
        return any(cell.state != MISSING for cell in self.cells)

    @property
    def complete(self) -> int:
        """Seeds that are complete."""
        return sum(cell.state == COMPLETE for cell in self.cells)

    @property
    def ended_short(self) -> int:
        """Seeds that ended, or were lost, short of complete."""
        return sum(cell.state != COMPLETE and cell.state not in WAITING for cell in self.cells)

    @property
    def run_s(self) -> float | None:
        """Mean wall seconds of a complete run, all its attempts; None where none is complete."""
        return self._mean([cell.wall_s for cell in self.cells if cell.state == COMPLETE])

    @property
    def gpu_run_s(self) -> float | None:
        """The part of `run_s` with a GPU."""
        return self._mean([cell.gpu_s for cell in self.cells if cell.state == COMPLETE])

    @staticmethod
    def _mean(seconds: Sequence[float]) -> float | None:
        return fmean(seconds) if seconds else None

    @property
    def state(self) -> str:
        """Complete, or the states of its seeds with their counts."""
        counts: dict[str, int] = {}
        for cell in self.cells:
            counts[cell.state] = counts.get(cell.state, 0) + 1
        if len(counts) == 1:
            return next(iter(counts))
        return ", ".join(f"{count} {state}" for state, count in counts.items())


def value(cell: CellResult, metric: str) -> float | None:
    """A metric of a complete run; None if it has none, or one that is not finite."""
    found = cell.metrics.get(metric)
    usable = isinstance(found, int | float) and cell.state == COMPLETE and math.isfinite(found)
    return float(found) if usable and found is not None else None


def values(cells: Iterable[CellResult], metric: str) -> dict[int, float]:
    """Seed to value, for the seeds that have it."""
    found = ((cell.seed, value(cell, metric)) for cell in cells)
    return {seed: number for seed, number in found if number is not None}


def estimate(by_seed: Mapping[int, float], planned: int) -> Estimate | None:
    """Mean with Student's t interval; None without a value."""
    if not by_seed:
        return None
    numbers = np.array(list(by_seed.values()))
    low, high = mean_interval(numbers, CONFIDENCE) if numbers.size > 1 else (None, None)
    return Estimate(mean=float(numbers.mean()), low=low, high=high, seeds=tuple(by_seed), planned=planned)


def summarise(arms: Sequence[str], baseline: str, cells: Iterable[CellResult]) -> dict[str, ArmSummary]:
    """Every arm by name, in the order of `arms`."""
    by_arm: dict[str, list[CellResult]] = {arm: [] for arm in arms}
    for cell in cells:
        by_arm[cell.arm].append(cell)
    return {arm: _summary(arm, own, [] if arm == baseline else by_arm.get(baseline, [])) for arm, own in by_arm.items()}


def _summary(arm: str, cells: list[CellResult], baseline: list[CellResult]) -> ArmSummary:
    names = dict.fromkeys(name for cell in cells for name in cell.metrics)
    found = {name: values(cells, name) for name in names}
    metrics = {name: estimate(by_seed, len(cells)) for name, by_seed in found.items()}
    gaps = {name: _gaps(by_seed, values(baseline, name)) for name, by_seed in found.items()}
    differences = {name: estimate(by_seed, len(cells)) for name, by_seed in gaps.items()}
    stages = dict.fromkeys(stage for cell in cells for stage in cell.seconds)
    return ArmSummary(
        arm=arm,
        cells=tuple(cells),
        metrics={name: each for name, each in metrics.items() if each},
        differences={name: each for name, each in differences.items() if each},
        seconds={stage: fmean(c.seconds[stage] for c in cells if stage in c.seconds) for stage in stages},
        wall_s=sum(cell.wall_s for cell in cells),
        gpu_s=sum(cell.gpu_s for cell in cells),
        rss_peak=max((cell.rss_peak for cell in cells), default=0),
    )


def _gaps(arm: Mapping[int, float], baseline: Mapping[int, float]) -> dict[int, float]:
    return {seed: number - baseline[seed] for seed, number in arm.items() if seed in baseline}


def ranked(arms: Iterable[ArmSummary], metric: str, direction: str) -> list[ArmSummary]:
    """The arms that have the metric, best mean first."""
    having = [arm for arm in arms if metric in arm.metrics]
    return sorted(having, key=lambda arm: arm.metrics[metric].mean, reverse=direction == "max")


def replicate_spread(arms: Iterable[ArmSummary], metric: str) -> float | None:
    """Standard deviation between seeds of one arm, the median of the arms with at least two."""
    found = [list(values(arm.cells, metric).values()) for arm in arms]
    spreads = [stdev(numbers) for numbers in found if len(numbers) > 1]
    return median(spreads) if spreads else None
