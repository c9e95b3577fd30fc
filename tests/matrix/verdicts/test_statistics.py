"""Tests and intervals over seeds: against scipy, against their definitions, and by their false PASS rates."""

import math

import numpy as np
import pytest
from scipy import stats

from assay.matrix.study import HypothesisConfig
from assay.matrix.verdicts.statistics import (
    excesses,
    flip_below,
    holm,
    interval_level,
    mean_interval,
    median_interval,
    ratio_interval,
    sides,
    sign_below,
    sign_claim,
    t_below,
    t_claim,
    wilson,
)

STUDIES = 2000
LIMIT = stats.binom.ppf(0.999, STUDIES, 0.05) / STUDIES


def claim(test: str, margin: float = 0.0, margin_is: str = "absolute") -> HypothesisConfig:
    return HypothesisConfig(claim="", metric="m", arm="a", versus="b", test=test, margin=margin, margin_is=margin_is)


def pass_rate(hypothesis: HypothesisConfig, arm: np.ndarray, versus: np.ndarray | float) -> float:
    return float((t_claim(excesses(hypothesis, "min", arm, versus), sides(hypothesis))[0] <= 0.05).mean())


# what is tested


@pytest.mark.parametrize(
    ("test", "margin_is", "direction", "inside", "outside"),
    [
        ("superior", "relative", "min", 0.89, 0.91),
        ("superior", "relative", "max", 1.11, 1.09),
        ("superior", "absolute", "min", 0.89, 0.91),
        ("superior", "absolute", "max", 1.11, 1.09),
        ("non_inferior", "relative", "min", 1.09, 1.11),
        ("non_inferior", "absolute", "max", 0.91, 0.89),
        ("equivalent", "relative", "min", 1.09, 1.11),
        ("equivalent", "relative", "max", 0.91, 0.89),
        ("equivalent", "absolute", "min", 0.91, 0.89),
    ],
)
def test_each_claim_holds_on_its_side_of_the_margin(test, margin_is, direction, inside, outside):
    hypothesis = claim(test, 0.1, margin_is)
    holds = [
        all(float(x[0]) < 0 for x in excesses(hypothesis, direction, np.array([value]), np.array([1.0])))
        for value in (inside, outside)
    ]
    assert holds == [True, False]


def test_a_relative_margin_scales_with_what_is_compared_and_an_absolute_one_does_not():
    arm, versus = np.array([1.7]), np.array([2.0])
    assert excesses(claim("superior", 0.1, "relative"), "min", arm, versus)[0][0] < 0
    assert excesses(claim("superior", 0.4, "absolute"), "min", arm, versus)[0][0] > 0


# p values


def test_the_t_test_is_scipys():
    x = np.random.default_rng(1).normal(0.3, 1, (4, 6))
    assert np.allclose(t_below(x), stats.ttest_1samp(x, 0, axis=-1, alternative="less").pvalue)


def test_without_spread_the_mean_alone_decides():
    assert list(t_below(np.array([[-1.0, -1.0], [1.0, 1.0], [0.0, 0.0]]))) == [0.0, 1.0, 1.0]


def test_the_sign_test_is_scipys_and_takes_infinite_values():
    x = np.array([-1.0, -math.inf, -3.0, math.inf, -2.0, -4.0])
    assert sign_below(x) == pytest.approx(stats.binomtest(5, 6, alternative="greater").pvalue)


def test_a_seed_that_failed_on_both_sides_supports_neither_claim():
    part = excesses(claim("superior"), "min", np.array([math.inf, 1.0, 1.0]), np.array([math.inf, 2.0, 2.0]))[0]
    assert math.isnan(part[0])
    below, above = sign_claim([part], 2)
    assert below == pytest.approx(1.0) and above == pytest.approx(1.0)
    assert sign_below(part) == pytest.approx(4 / 8)


@pytest.mark.parametrize("n", [4, 7])
def test_the_flip_test_is_scipys_exact_permutation_test(n):
    x = np.random.default_rng(2).normal(-0.5, 1, n)
    scipys = stats.permutation_test((x,), np.mean, permutation_type="samples", alternative="less", n_resamples=np.inf)
    assert flip_below(x) == pytest.approx(scipys.pvalue)


def test_many_seeds_are_flipped_at_random_the_same_way_every_time():
    x = np.random.default_rng(3).normal(-0.4, 1, 20)
    assert flip_below(x) == flip_below(x) == pytest.approx(float(t_below(x)), abs=0.01)


def test_equivalence_is_two_one_sided_tests():
    rng = np.random.default_rng(4)
    a, b = 1 + 0.1 * rng.standard_normal(6), 1 + 0.1 * rng.standard_normal(6)
    p, against = t_claim(excesses(claim("equivalent", 0.2), "min", a, b), 1)
    low = stats.ttest_1samp(a - b, -0.2, alternative="greater").pvalue
    high = stats.ttest_1samp(a - b, 0.2, alternative="less").pvalue
    assert p == pytest.approx(max(low, high)) and against == pytest.approx(min(1, 2 * (1 - max(low, high))))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_a_true_equivalence_is_refuted_no_more_often_than_its_level_says(seeds):
    """The margin is small beside the spread, so that either end may refute by chance."""
    x = 1 + 0.2 * np.random.default_rng(seeds).standard_normal((20_000, seeds))
    _, against = t_claim(excesses(claim("equivalent", 0.01, margin_is="absolute"), "min", x, np.ones_like(x)), 1)
    assert (against <= 0.05).mean() < 0.055


def test_holm_compares_the_smallest_with_all_and_never_reverses_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


# intervals


@pytest.mark.parametrize("test", ["superior", "non_inferior"])
@pytest.mark.parametrize("shift", [0.80, 0.84, 0.87, 0.9, 0.93])
def test_the_interval_excludes_the_margin_exactly_when_the_test_passes(test, shift):
    rng = np.random.default_rng(5)
    hypothesis = claim(test, 0.1 if test == "superior" else -0.1, "relative")
    b = 1 + 0.1 * rng.standard_normal(6)
    a = shift * b + 0.05 * rng.standard_normal(6)
    p = t_claim(excesses(hypothesis, "min", a, b), sides(hypothesis))[0]
    assert (p <= 0.05) == (ratio_interval(a, b, interval_level(hypothesis))[1] < 0.9)


def test_the_t_interval_is_scipys():
    x = np.random.default_rng(6).normal(size=5)
    assert mean_interval(x, 0.9) == pytest.approx(stats.ttest_1samp(x, 0).confidence_interval(0.9))
    assert mean_interval(x[:1], 0.9) == (-math.inf, math.inf)


def test_the_ratio_has_no_bound_where_the_denominator_may_be_zero():
    assert ratio_interval(np.array([1.0, 1.1]), np.array([-0.1, 0.2]), 0.95) == (-math.inf, math.inf)


def test_the_median_needs_six_seeds_for_an_interval_at_95_percent():
    assert median_interval(np.arange(5.0), 0.95) == (-math.inf, math.inf)
    assert median_interval(np.arange(6.0), 0.95) == (0.0, 5.0)
    assert median_interval(np.arange(9.0), 0.95) == (1.0, 7.0)


def test_the_interval_of_a_rate_never_says_never():
    assert wilson(3, 5) == pytest.approx((0.231, 0.882), abs=1e-3)
    assert wilson(0, 5) == pytest.approx((0.0, 0.434), abs=1e-3)


@pytest.mark.parametrize(("failed", "n"), [(0, 1), (1, 1), (2, 7), (10, 10), (17, 40)])
def test_the_interval_of_a_rate_is_scipys(failed, n):
    scipys = stats.binomtest(failed, n).proportion_ci(0.95, method="wilson")
    assert wilson(failed, n) == pytest.approx((scipys.low, scipys.high), abs=1e-9)


# false PASS rates

SPREADS = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "heavy tails": lambda rng, shape: rng.standard_t(2, shape),
    "Cauchy": lambda rng, shape: rng.standard_cauchy(shape),
    "skewed": lambda rng, shape: rng.lognormal(0, 1, shape),
    "one in ten far worse": lambda rng, shape: rng.standard_normal(shape) + 10 * (rng.random(shape) < 0.1),
}


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("spread", SPREADS)
def test_superiority_passes_at_most_five_percent_of_null_studies(spread, n):
    rng = np.random.default_rng(n)
    arm, versus = (SPREADS[spread](rng, (STUDIES, n)) for _ in range(2))
    assert pass_rate(claim("superior"), arm, versus) <= LIMIT


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("test", ["superior", "equivalent", "non_inferior"])
def test_truth_on_a_relative_margin_passes_at_most_five_percent(test, n):
    rng = np.random.default_rng(n)
    versus, noise = 1 + 0.02 * rng.standard_normal((STUDIES, n)), 0.02 * rng.standard_normal((STUDIES, n))
    truth = 0.95 if test == "superior" else 1.05
    rate = pass_rate(claim(test, 0.05, "relative"), truth * (1 + noise), versus)
    assert 0.01 < rate <= LIMIT


@pytest.mark.parametrize("n", [6, 10])
def test_failing_seeds_do_not_make_the_sign_test_pass_more_often(n):
    rng = np.random.default_rng(n)
    arm, versus = (np.where(rng.random((STUDIES, n)) < 0.3, np.inf, rng.normal(size=(STUDIES, n))) for _ in range(2))
    assert (sign_claim(excesses(claim("superior"), "min", arm, versus), 2)[0] <= 0.05).mean() <= LIMIT
