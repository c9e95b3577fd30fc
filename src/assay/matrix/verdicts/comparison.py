"""Two sides of a hypothesis, seed by seed, and the effect between them; open it to see what makes one inadmissible."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from assay.matrix.cells import CellResult
from assay.matrix.study import HypothesisConfig, MetricConfig
from assay.matrix.verdicts.replicates import Replicates, in_order, replicates
from assay.matrix.verdicts.statistics import Array, Interval, mean_interval, median_interval, ratio_interval

End = float | None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """How far an arm is from what it is compared with. An end of an interval is None where there is no bound."""

    of: Literal["mean", "median"]
    """median where a failed seed counts as the worst."""
    difference: End
    """Arm minus versus, in the metric's unit. None where it is not finite."""
    difference_interval: tuple[End, End]
    ratio: End
    """Arm over versus; None for a median."""
    ratio_interval: tuple[End, End]
    level: float
    """Level of the intervals, before any correction."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Both sides of a comparison, seed by seed."""

    seeds: tuple[int, ...]
    arm: Array
    versus: Array | float
    failed: bool
    """Whether a failed seed is among them, as an infinite value."""


def gaps(hypothesis: HypothesisConfig, found: Mapping[str, Replicates]) -> str | None:
    """Why the runs there are not all that the hypothesis needs."""
    for arm, each in found.items():
        if each.unwritten:
            return f"complete runs of {arm} have no metric {hypothesis.metric} (seeds {listed(each.unwritten)})"
    missing = [f"{arm} seeds {listed(each.missing)}" for arm, each in found.items() if each.missing]
    missing += [
        f"{arm}, every seed"
        for arm, each in found.items()
        if not (each.values or each.failed or each.missing or each.unwritten)
    ]
    if missing:
        return f"runs are missing or not at their end: {'; '.join(missing)}"
    known = [{*each.values, *each.failed} for each in found.values()]
    if len(known) == 2 and known[0] != known[1]:
        return f"{' and '.join(found)} did not run the same seeds (differ in {listed(sorted(known[0] ^ known[1]))})"
    return None


def pair(hypothesis: HypothesisConfig, metric: MetricConfig, found: Mapping[str, Replicates]) -> Paired:
    """Both sides over the same seeds; the metric's rule says what a failed one counts as."""
    arm = found[hypothesis.arm]
    versus = found[hypothesis.versus] if isinstance(hypothesis.versus, str) else None
    failed = {seed for each in found.values() for seed in each.failed}
    seeds = sorted({*arm.values, *arm.failed})
    if metric.failed == "exclude":
        seeds = [seed for seed in seeds if seed not in failed]
    return Paired(
        seeds=tuple(seeds),
        arm=in_order(arm, seeds, metric.direction),
        versus=float(hypothesis.versus) if versus is None else in_order(versus, seeds, metric.direction),
        failed=bool(failed & set(seeds)),
    )


def unusable(hypothesis: HypothesisConfig, paired: Paired) -> str | None:
    """Why these numbers cannot be tested."""
    if not paired.seeds:
        return "no seed is left: every one failed on one side or the other, and failed seeds are excluded"
    versus = np.asarray(paired.versus)
    if np.isinf(paired.arm).all() and np.isinf(versus).all():
        return f"every seed of {hypothesis.arm} and of {hypothesis.versus} failed"
    finite = versus[np.isfinite(versus)]
    if hypothesis.margin_is == "relative" and finite.size and finite.mean() <= 0:
        return (
            f"a relative margin needs a positive {hypothesis.versus}, which is {finite.mean():.4g}; use an absolute one"
        )
    if len(paired.seeds) > 1 and versus.ndim and np.array_equal(paired.arm, versus):
        return f"{hypothesis.arm} gives exactly the numbers of {hypothesis.versus} at every seed: it changed nothing"
    if len(paired.seeds) > 1 and not paired.failed and np.ptp(paired.arm) == 0 and np.ptp(versus) == 0:
        return "every seed gives exactly the same number, so these are no replicates"
    return None


def spread_so_far(hypothesis: HypothesisConfig, cells: Sequence[CellResult]) -> float | None:
    """Standard deviation of the per-seed difference in the margin's own measure, from the runs there are.

    Of the pairs where there are two or more; else of one side's replicates, times sqrt(2) for two independent arms.
    None where neither is known.
    """
    arm = replicates(cells, hypothesis.arm, hypothesis.metric).values
    if isinstance(hypothesis.versus, str):
        versus = replicates(cells, hypothesis.versus, hypothesis.metric).values
        differences = [arm[seed] - versus[seed] for seed in arm if seed in versus]
        single, factor = max(arm, versus, key=len), math.sqrt(2)
        level = float(np.mean([*(versus or arm).values()])) if versus or arm else 0.0
    else:
        differences, single, factor, level = [*arm.values()], arm, 1.0, hypothesis.versus
    known = differences if len(differences) > 1 else [factor * value for value in single.values()]
    if len(known) < 2 or (hypothesis.margin_is == "relative" and level <= 0):
        return None
    return float(np.std(known, ddof=1)) / (level if hypothesis.margin_is == "relative" else 1.0)


def effect(paired: Paired, level: float) -> Effect:
    """Difference and ratio, with intervals: of means (Student, Fieller), or of the median (order statistics)."""
    versus = np.broadcast_to(np.asarray(paired.versus, dtype=float), paired.arm.shape)
    with np.errstate(invalid="ignore"):
        differences = paired.arm - versus
    if paired.failed:
        return _median_effect(differences, level)
    ratio = float(paired.arm.mean() / versus.mean()) if versus.mean() else math.inf
    return Effect(
        of="mean",
        difference=float(differences.mean()),
        difference_interval=_ends(mean_interval(differences, level)),
        ratio=_finite(ratio),
        ratio_interval=_ends(ratio_interval(paired.arm, versus, level)),
        level=level,
    )


def _median_effect(differences: Array, level: float) -> Effect:
    """Where both sides failed the difference is unknown: no interval then."""
    known = np.sort(differences[~np.isnan(differences)])
    low, high = known[(known.size - 1) // 2], known[known.size // 2]
    bounds = median_interval(differences, level) if known.size == differences.size else (-math.inf, math.inf)
    return Effect(
        of="median",
        difference=float(low + high) / 2 if math.isfinite(low) and math.isfinite(high) else None,
        difference_interval=_ends(bounds),
        ratio=None,
        ratio_interval=(None, None),
        level=level,
    )


def _finite(value: float) -> End:
    return value if math.isfinite(value) else None


def _ends(bounds: Interval) -> tuple[End, End]:
    return _finite(bounds[0]), _finite(bounds[1])


def listed(seeds: Sequence[int]) -> str:
    """Seeds for a sentence."""
    return ", ".join(map(str, seeds))
