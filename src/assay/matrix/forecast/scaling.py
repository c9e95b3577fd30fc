"""From recorded amounts to an expected one with a 90 % interval; open it when forecasts are off, or too sure.

An amount (seconds of a stage, bytes of a run) is taken as log-normal. Where the same shape has been seen it is expected
to be the median; else it is put together from what its parts took for each unit, and a part whose rate has not been
seen in this shape is scaled from other shapes, log-linearly in the parameters that differ. How wrong each of these is,
is measured by leaving records out. Those residuals make the interval, with a prior for where there are few.
"""

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any, Literal

from scipy import special

from assay.matrix.forecast.regression import extrapolate

LEVEL = 0.9
"""Of the interval."""
WIDEST = 10.0
"""An interval that reaches further than this factor from its middle is no forecast."""
LEFT_OUT = 40
"""Most shapes that are left out in turn."""
Basis = Literal["replicates", "same shape", "other shapes"]
PRIOR: dict[Basis, float] = {"replicates": 0.1, "same shape": 0.15, "other shapes": 0.2}
"""Standard deviation of the logarithm before anything is measured; it counts as PRIOR_WEIGHT residuals."""
PRIOR_WEIGHT = 2.0
Leaves = Mapping[str, Any]
"""Dotted parameter keys and their values."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """An expected amount, the ends of its 90 % interval, and what it is known from."""

    value: float
    low: float
    high: float
    basis: Basis = "replicates"

    def times(self, factor: float) -> "Estimate":
        """In another unit, or so many of them that err alike."""
        return Estimate(value=factor * self.value, low=factor * self.low, high=factor * self.high, basis=self.basis)


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is to be expected. shape: all that the amount depends on; form: the same without the training budget."""

    shape: Hashable
    form: Hashable
    leaves: Leaves
    counts: Mapping[str, float]
    """Part to its number of units."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was recorded once, and what it would have been expected as."""

    target: Target
    amount: float | None
    """None: it did not come to its end, and its rates are all that is known."""
    fixed: float = 0.0
    """The share of it that no part explains."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Part to its amount for each unit."""
    units: frozenset[str] = frozenset()
    """Parameters that were equal to a number of units."""


@dataclass(frozen=True)
class Centre:
    """An expectation without its interval. variance: of its logarithm, by how far it was scaled."""

    value: float
    basis: Basis
    variance: float = 0.0


class Law:
    """What is known about one amount from samples of it."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.amounts: dict[Hashable, list[float]] = defaultdict(list)
        self.rates: dict[str, dict[Hashable, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.leaves: dict[Hashable, Leaves] = {}
        for sample in samples:
            self.leaves[sample.target.form] = sample.target.leaves
            if sample.amount:
                self.amounts[sample.target.shape].append(sample.amount)
            for name, rate in sample.rates.items():
                if rate > 0:
                    self.rates[name][sample.target.form].append(rate)
        self.fixed = median([sample.fixed for sample in samples] or [0.0])
        shared = [sample.units for sample in samples]
        self.units = frozenset.intersection(*shared) if shared else frozenset()

    def knows(self, target: Target) -> bool:
        """Whether it has been seen in this form, so that nothing is scaled from another."""
        centre = self.centre(target)
        return centre is not None and centre.basis != "other shapes"

    def expect(self, target: Target) -> Estimate | None:
        """The amount with its interval; None where nothing is known, or next to nothing."""
        centre = self.centre(target)
        if centre is None:
            return None
        factor = math.exp(self._quantile[centre.basis] * math.sqrt(PRIOR[centre.basis] ** 2 + centre.variance))
        if factor > WIDEST:
            return None
        value = centre.value
        return Estimate(value=value, low=value / factor, high=value * factor, basis=centre.basis)

    def centre(self, target: Target) -> Centre | None:
        """The amount, and how far it had to be scaled."""
        if target.shape in self.amounts:
            return Centre(_middle(self.amounts[target.shape]), "replicates")
        known = {name: count for name, count in target.counts.items() if name in self.rates}
        if not known:
            return None
        parts = [(count, *self._rate(name, target)) for name, count in known.items()]
        value = self.fixed + sum(count * rate for count, rate, _ in parts)
        spread = sum(count * rate * math.sqrt(variance) for count, rate, variance in parts) / value if value else 0.0
        scaled = any(target.form not in self.rates[name] for name in known)
        return Centre(value, "other shapes" if scaled else "same shape", spread**2)

    def _rate(self, name: str, target: Target) -> tuple[float, float]:
        """The rate of a part and the variance of its logarithm."""
        seen = self.rates[name]
        if target.form in seen:
            return _middle(seen[target.form]), 0.0
        known = [(self.leaves[form], math.log(_middle(rates))) for form, rates in seen.items()]
        mean, variance = extrapolate(target.leaves, known, self.units)
        return math.exp(mean), variance

    @cached_property
    def _quantile(self) -> dict[Basis, float]:
        """By how many of the prior's standard deviations the interval reaches out, from what leaving out shows."""
        residuals: dict[Basis, list[float]] = defaultdict(list)
        for basis, residual in [*self._of_replicates(), *self._of_shapes()]:
            residuals[basis].append(residual)
        found: dict[Basis, float] = {}
        for basis in PRIOR:
            freedom = PRIOR_WEIGHT + len(residuals[basis])
            squares = PRIOR_WEIGHT + sum(each**2 for each in residuals[basis])
            found[basis] = float(special.stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(squares / freedom)
        return found

    def _of_replicates(self) -> Iterator[tuple[Basis, float]]:
        """Each amount against the median of the others of its shape, in standard deviations of the prior."""
        for amounts in self.amounts.values():
            for place in range(len(amounts) if len(amounts) > 1 else 0):
                others = amounts[:place] + amounts[place + 1 :]
                yield "replicates", math.log(amounts[place] / _middle(others)) / PRIOR["replicates"]

    def _of_shapes(self) -> Iterator[tuple[Basis, float]]:
        """Each shape against what the others make of it."""
        shapes = list(self.amounts)
        for shape in shapes[:: max(1, math.ceil(len(shapes) / LEFT_OUT))]:
            target = next(sample.target for sample in self.samples if sample.target.shape == shape)
            law = Law([sample for sample in self.samples if sample.target.shape != shape])
            centre = law.centre(target)
            if centre is not None and centre.value > 0:
                # of one run, not of their median, for one run is what is asked for
                squares = [math.log(each / centre.value) ** 2 for each in self.amounts[shape]]
                residual = math.sqrt(sum(squares) / len(squares))
                yield centre.basis, residual / math.sqrt(PRIOR[centre.basis] ** 2 + centre.variance)


def _middle(amounts: Sequence[float]) -> float:
    """The median of positive amounts, of two the geometric mean."""
    return math.exp(median(map(math.log, amounts)))


def total(parts: Sequence[Estimate], together: bool) -> Estimate:
    """The sum. together: all err alike, as the stages of one run do; else each by itself."""
    value = sum(part.value for part in parts)
    below, above = [part.value - part.low for part in parts], [part.high - part.value for part in parts]
    under, over = (sum(below), sum(above)) if together else (math.hypot(*below), math.hypot(*above))
    order: list[Basis] = list(PRIOR)
    basis: Basis = max((part.basis for part in parts), key=order.index, default="replicates")
    return Estimate(value=value, low=value - under, high=value + over, basis=basis)
