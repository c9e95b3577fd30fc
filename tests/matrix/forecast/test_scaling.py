"""How sure an estimate is: intervals that hold what comes next, and sums over arms."""

import math
import random

import pytest

from assay.matrix.forecast.scaling import Estimate, Law, Sample, Target, total


def test_sums_over_arms_are_relatively_surer_than_one_arm():
    one = Estimate(value=10, low=8, high=13)
    assert total([one] * 4, together=True) == one.times(4)
    apart = total([one] * 4, together=False)
    assert (apart.value, apart.low, apart.high) == (40, pytest.approx(36), pytest.approx(46))


def simulated(chance: random.Random, spread: float, shapes: int, replicates: int) -> list[Sample]:
    """Amounts 3 w^1.4 of shapes w, log-normal with a spread by shape and one by run."""
    samples = []
    for number in range(shapes):
        width, own = chance.randint(8, 256), chance.gauss(0, spread)
        target = Target(shape=number, form=number, leaves={"width": width, "name": "a"}, counts={"all": 1.0})
        for _ in range(replicates):
            amount = 3 * width**1.4 * math.exp(own + chance.gauss(0, spread))
            samples.append(Sample(target=target, amount=amount, rates={"all": amount}))
    return samples


@pytest.mark.parametrize("spread", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("left_out", ["a replicate", "a shape"])
def test_nine_of_ten_intervals_hold_what_comes_next(spread, left_out):
    """Over simulated log-normal records; the interval is not allowed to be infinitely wide instead."""
    chance, held, factors = random.Random(7), 0, []
    for _ in range(200):
        samples = simulated(chance, spread, shapes=8, replicates=3)
        last = samples[-1]
        known = samples[:-1] if left_out == "a replicate" else samples[:-3]
        found = Law(known).expect(last.target)
        assert found is not None
        held += found.low <= last.amount <= found.high
        factors.append(found.high / found.value)
    assert held >= 0.85 * 200
    assert sorted(factors)[100] < math.exp(4 * spread + 0.5)
