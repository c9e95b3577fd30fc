"""Tests and intervals over seeds, plain arrays in, numbers out; open it to see how a p value or an interval is made.

Every claim is one or two statements "the mean of these per-seed excesses is below 0" (`excesses`), so superiority,
equivalence (two one-sided tests) and non-inferiority, with margins relative or absolute, share one t test and one sign
test. Arrays have shape (..., seeds): leading axes are independent studies, which is what makes simulations fast.
docs/hypotheses.md says why Student's t decides, and not a permutation or a bootstrap. Distribution functions come from
scipy.special, which is imported in a third of the time of scipy.stats; the tests compare the two.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from assay.matrix.study import HypothesisConfig

Array = npt.NDArray[np.float64]
Interval = tuple[float, float]

EXACT_SEEDS = 12
"""Up to so many seeds every sign pattern is tried (4,096 at most); above, RESAMPLES random ones."""
RESAMPLES = 9999


def sides(hypothesis: HypothesisConfig) -> int:
    """2 where the claim and its opposite share the level (superior), 1 for tests against a margin (TOST, ICH E9)."""
    return 2 if hypothesis.test == "superior" else 1


def interval_level(hypothesis: HypothesisConfig) -> float:
    """Level of the interval that excludes the margin exactly when the test passes: 0.95, or 0.90 if one-sided."""
    return 1 - 2 * (1 - hypothesis.confidence) / sides(hypothesis)


def excesses(
    hypothesis: HypothesisConfig, direction: Literal["min", "max"], arm: Array, versus: Array | float
) -> list[Array]:
    """Per-seed excesses over the bounds of the claim; the claim is that the mean of each is below 0.

    A relative bound is linear in both values, arm - factor * versus, so that testing it is Fieller's test of the ratio
    of the means (doi:10.1111/j.2517-6161.1954.tb00159.x). NaN where both failed (infinite).
    """
    worse = 1.0 if direction == "min" else -1.0
    below, above = -worse * hypothesis.margin, worse * hypothesis.margin

    def over(margin: float) -> Array:
        bound = (1 + margin) * np.asarray(versus) if hypothesis.margin_is == "relative" else versus + margin
        with np.errstate(invalid="ignore"):
            return worse * (arm - bound)

    if hypothesis.test == "superior":
        return [over(below)]
    if hypothesis.test == "non_inferior":
        return [over(above)]
    return [over(above), -over(below)]


def t_below(x: Array) -> Array:
    """One-sided p of Student's t for "the mean is below 0". Without any spread: 0 if it is below, else 1."""
    n = x.shape[-1]
    mean, error = x.mean(axis=-1), x.std(axis=-1, ddof=1) / math.sqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = special.stdtr(n - 1, mean / error)
    return np.asarray(np.where(error > 0, p, np.where(mean < 0, 0.0, 1.0)))


def sign_below(x: Array) -> Array:
    """One-sided p of the exact sign test for "over half of all seeds are below 0"; NaN and 0 are not below."""
    return np.asarray(special.bdtr((x >= 0).sum(axis=-1) + np.isnan(x).sum(axis=-1), x.shape[-1], 0.5))


def flip_below(x: Array) -> float:
    """One-sided p of the sign-flip permutation test of one study's mean; exact up to EXACT_SEEDS seeds."""
    n = x.shape[-1]
    if n <= EXACT_SEEDS:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = np.random.default_rng(0).choice([-1, 1], size=(RESAMPLES, n))
        signs = np.concatenate([np.ones((1, n), dtype=int), drawn])
    rounding = 1e-12 * float(np.abs(x).sum())
    return float((signs @ x <= x.sum() + rounding).mean())


def t_claim(parts: Sequence[Array], sides: int) -> tuple[Array, Array]:
    """p values (for the claim, for its opposite) by Student's t; all parts must hold, one that fails refutes."""
    return _both([t_below(x) for x in parts], [t_below(-x) for x in parts], sides)


def sign_claim(parts: Sequence[Array], sides: int) -> tuple[Array, Array]:
    """The same by sign tests, which allow infinite values: the claim is then about more than half of all seeds."""
    return _both([sign_below(x) for x in parts], [sign_below(-x) for x in parts], sides)


def _both(below: Sequence[Array], above: Sequence[Array], sides: int) -> tuple[Array, Array]:
    """To refute a claim of two parts there are two chances, which share the level."""
    chances = max(sides, len(above))
    return np.minimum(1, sides * np.stack(below).max(axis=0)), np.minimum(1, chances * np.stack(above).min(axis=0))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979, Scand. J. Statist. 6:65-70): compare each with the level as it is."""
    order = sorted(range(len(p)), key=lambda index: p[index])
    adjusted, largest = [1.0] * len(p), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def mean_interval(x: Array, level: float) -> Interval:
    """Student's t interval of the mean; unbounded for a single value."""
    if x.size < 2:
        return -math.inf, math.inf
    mean, error = float(x.mean()), float(x.std(ddof=1)) / math.sqrt(x.size)
    half = float(special.stdtrit(x.size - 1, (1 + level) / 2)) * error
    return mean - half, mean + half


def ratio_interval(a: Array, b: Array, level: float) -> Interval:
    """Fieller's interval of mean(a) / mean(b) from pairs; unbounded where mean(b) may be 0."""
    if a.size < 2:
        return -math.inf, math.inf
    scale = float(special.stdtrit(a.size - 1, (1 + level) / 2)) ** 2 / a.size
    (aa, ab), (_, bb) = np.cov(a, b)
    quadratic = float(b.mean() ** 2 - scale * bb)
    linear = float(a.mean() * b.mean() - scale * ab)
    constant = float(a.mean() ** 2 - scale * aa)
    if quadratic <= 0:
        return -math.inf, math.inf
    root = math.sqrt(max(0.0, linear**2 - quadratic * constant))
    return (linear - root) / quadratic, (linear + root) / quadratic


def median_interval(x: Array, level: float) -> Interval:
    """Interval of the median from order statistics, the one that belongs to the sign test; may be infinite."""
    n = x.size
    outside = int((special.bdtr(np.arange(n), n, 0.5) <= (1 - level) / 2).sum()) - 1
    if outside < 0:
        return -math.inf, math.inf
    ordered = np.sort(x)
    return float(ordered[outside]), float(ordered[n - 1 - outside])


def wilson(failed: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a rate (1927, doi:10.1080/01621459.1927.10502953)."""
    z = float(special.ndtri((1 + level) / 2))
    rate, scale = failed / n, 1 + z**2 / n
    centre = (rate + z**2 / (2 * n)) / scale
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)
