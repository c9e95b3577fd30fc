"""Whether a number of seeds can answer a question, and how many would; open it for the forecast of a hypothesis."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from assay.matrix.study import HypothesisConfig
from assay.matrix.verdicts.statistics import Array, sides

POWER = 0.8
"""Probability of an answer that counts as enough."""
MOST_SEEDS = 10_000
"""Beyond it, `seeds_for` gives no number."""

Exact = Literal["sign", "unpaired"]


def power(distances: Sequence[float], spread: float, seeds: int, level: float) -> float:
    """Probability that every one-sided t test of a claim passes at `level`.

    distances: how far the true mean lies inside each bound (negative: outside). spread: standard deviation of the
    per-seed excesses. Averages the normal power over the estimated spread, P(T < t) = E[phi(d sqrt(n) / s - t q)],
    q^2 ~ chi^2 / df; for two bounds it is the exact power of
    Schuirmann's two one-sided tests (1987, doi:10.1007/BF01068419).
    """
    if seeds < 2:
        return 0.0
    estimated = _estimated_spreads(seeds - 1)
    critical = special.stdtrit(seeds - 1, 1 - level)
    inside = [special.ndtr(d * math.sqrt(seeds) / spread - critical * estimated) for d in distances]
    return float(np.maximum(0, sum(inside) - (len(inside) - 1)).mean())


@functools.lru_cache(maxsize=1000)
def _estimated_spreads(freedom: int) -> Array:
    """Quantiles of the estimated spread over the true one, 400 of equal probability."""
    quantiles = (np.arange(400) + 0.5) / 400
    return np.asarray(np.sqrt(special.chdtri(freedom, 1 - quantiles) / freedom))


def fewest(enough: Callable[[int], bool], first: int = 2) -> int | None:
    """The smallest number of seeds for which `enough` holds and stays; None beyond MOST_SEEDS."""
    high = first
    while not enough(high):
        high *= 2
        if high > MOST_SEEDS:
            return None
    low = max(first, high // 2)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def seeds_for(distances: Sequence[float], spread: float, level: float) -> int | None:
    """Seeds that settle a claim with probability POWER if the truth lies at `distances` (negative: refute it)."""
    outside = [-d for d in distances if d < 0]
    aim = [max(outside)] if outside else list(distances)
    if spread <= 0 or min(aim) <= 0:
        return None
    return fewest(lambda n: power(aim, spread, n, level) >= POWER)


def sign_seeds_for(share: float, level: float) -> int | None:
    """Seeds for which the sign test settles a claim that holds at this share of seeds (below 1/2: refutes it)."""
    aim = max(share, 1 - share)
    seeds = np.arange(2, 1001)
    most = np.ceil(special.bdtrik(1 - level, seeds, 0.5))  # successes that are not yet significant
    enough = seeds[special.bdtrc(most, seeds, aim) >= POWER]
    return int(enough[0]) if aim > 0.5 and enough.size else None


def smallest_p(test: Exact, seeds: int) -> float:
    """The smallest two-sided p that an exact test can give.

    sign: sign, Wilcoxon signed-rank and sign-flip permutation tests of paired seeds; unpaired: permutation or rank
    test of two groups of `seeds` each.
    """
    return min(1.0, 2 / (2**seeds if test == "sign" else math.comb(2 * seeds, seeds)))


def seeds_to_reach(test: Exact, level: float) -> int:
    """The fewest seeds with which an exact test can reach a two-sided level at all."""
    return next(n for n in range(1, 100) if smallest_p(test, n) <= level)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a number of seeds can say about a hypothesis. Effects are in the margin's own measure."""

    seeds: int
    can: bool | None
    """None where no replicates have been seen yet, so that the spread is unknown."""
    detectable: float | None
    """superior: the smallest true improvement shown with probability POWER; else the smallest margin so shown."""
    seeds_needed: int | None
    """Seeds with which the registered margin would do; for `superior`, seeds with which the test works at all."""
    sign_reaches: bool
    """Whether the sign test, which decides once a seed fails, can reach the level with so many seeds."""
    sign_seeds: int
    text: str


def answer(hypothesis: HypothesisConfig, seeds: int, *, spread: float | None, hypotheses: int = 1) -> Answer:
    """What `seeds` seeds can say.

    spread: standard deviation of the per-seed difference in the margin's own measure (relative: a share of versus);
    null if unknown. hypotheses: how many share the level under Holm's correction; the first is tested at level / n.
    """
    level = (1 - hypothesis.confidence) / hypotheses / sides(hypothesis)
    detectable = None if spread is None or seeds < 2 else _detectable(hypothesis, seeds, spread, level)
    needed = 2 if hypothesis.test == "superior" else None
    if spread and hypothesis.test != "superior":
        needed = seeds_for(_centred(hypothesis, hypothesis.margin), spread, level)
    can: bool | None = None if detectable is None else True
    if seeds < 2:
        can = False
    elif detectable is not None and hypothesis.test != "superior":
        can = detectable <= hypothesis.margin
    sign_seeds = seeds_to_reach("sign", 2 * level)
    found = Answer(
        seeds=seeds,
        can=can,
        detectable=detectable,
        seeds_needed=needed,
        sign_reaches=seeds >= sign_seeds,
        sign_seeds=sign_seeds,
        text="",
    )
    return Answer(**{**vars(found), "text": _describe(hypothesis, found, level * sides(hypothesis))})


def _centred(hypothesis: HypothesisConfig, margin: float) -> list[float]:
    """Distances of no difference at all from the bounds of an equivalence or non-inferiority test."""
    return [margin, margin] if hypothesis.test == "equivalent" else [margin]


def _detectable(hypothesis: HypothesisConfig, seeds: int, spread: float, level: float) -> float:
    if spread <= 0:
        return hypothesis.margin if hypothesis.test == "superior" else 0.0
    low, high = 0.0, spread
    while power(_centred(hypothesis, high), spread, seeds, level) < POWER:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        enough = power(_centred(hypothesis, middle), spread, seeds, level) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high + (hypothesis.margin if hypothesis.test == "superior" else 0.0)


def _describe(hypothesis: HypothesisConfig, found: Answer, level: float) -> str:
    def size(value: float) -> str:
        return f"{value:.3g}" if hypothesis.margin_is == "absolute" else f"{100 * value:.3g} %"

    seeds = f"{found.seeds} seed" + ("" if found.seeds == 1 else "s")
    if found.seeds < 2:
        return f"{seeds} has no spread, so no test is possible; run at least 3"
    if found.detectable is None:
        words = f"{seeds}: no replicates have been seen yet, so what they can show is unknown"
    elif hypothesis.test == "superior":
        words = f"{seeds} show an improvement of {size(found.detectable)} or more with probability {100 * POWER:.0f} %"
        if hypothesis.margin_is == "relative" and found.detectable >= 1:
            words += ", which a metric that is to fall cannot reach"
    else:
        words = f"{seeds} show a margin of {size(found.detectable)} or more with probability {100 * POWER:.0f} %"
        if not found.can:
            enough = f"{found.seeds_needed} seeds" if found.seeds_needed else f"more than {MOST_SEEDS} seeds"
            words += f"; the registered margin, {size(hypothesis.margin)}, needs {enough}"
    if not found.sign_reaches:
        words += (
            f"; if a seed fails the sign test decides, which cannot reach {level:.3g} with {seeds}"
            f" (p >= {smallest_p('sign', found.seeds) * sides(hypothesis) / 2:.3g}): {found.sign_seeds} would"
        )
    return words
