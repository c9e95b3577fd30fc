"""What a number of seeds can answer: power as predicted, the smallest effect, and which tests can reach their level."""

import numpy as np
import pytest
from scipy import stats

from assay.matrix.study import HypothesisConfig
from assay.matrix.verdicts.power import answer, power, seeds_for, seeds_to_reach, sign_seeds_for, smallest_p
from assay.matrix.verdicts.statistics import sign_below, t_claim


def claim(test: str, margin: float, margin_is: str = "relative") -> HypothesisConfig:
    return HypothesisConfig(claim="", metric="m", arm="a", versus="b", test=test, margin=margin, margin_is=margin_is)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_the_power_of_one_bound_is_that_of_the_noncentral_t(n, distance):
    exact = stats.nct.sf(stats.t.ppf(0.975, n - 1), n - 1, distance * np.sqrt(n))
    assert power([distance], 1.0, n, 0.025) == pytest.approx(exact, abs=2e-3)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize(("bounds", "distance"), [(1, 1.0), (1, 2.0), (2, 1.0), (2, 2.0)])
def test_power_is_found_as_predicted_within_five_points(n, bounds, distance):
    x = np.random.default_rng(n).standard_normal((2000, n))
    parts = [x - distance, -x - distance][:bounds]
    found = float((t_claim(parts, 1)[0] <= 0.025).mean())
    assert found == pytest.approx(power([distance] * bounds, 1.0, n, 0.025), abs=0.05)


def test_power_of_one_seed_is_none():
    assert power([10.0], 1.0, 1, 0.05) == 0


def test_the_seeds_that_settle_are_the_fewest_that_do():
    n = seeds_for([1.0], 1.0, 0.025)
    assert n == 10
    assert power([1.0], 1.0, n, 0.025) >= 0.8 > power([1.0], 1.0, n - 1, 0.025)


def test_a_truth_beyond_a_bound_is_refuted_with_as_many_seeds_as_one_inside_is_shown():
    assert seeds_for([-1.0], 1.0, 0.025) == seeds_for([1.0], 1.0, 0.025)
    assert seeds_for([-1.0, 3.0], 1.0, 0.05) == seeds_for([1.0], 1.0, 0.05)


def test_no_number_of_seeds_settles_a_truth_on_the_margin():
    assert seeds_for([0.0], 1.0, 0.025) is None
    assert seeds_for([1e-6], 1.0, 0.025) is None


def test_five_paired_seeds_cannot_reach_five_percent_two_sided_by_an_exact_test():
    assert smallest_p("sign", 5) == 0.0625
    assert smallest_p("sign", 5) == 2 * sign_below(np.full(5, -1.0))
    assert smallest_p("sign", 5) == stats.wilcoxon([1, 2, 3, 4, 5]).pvalue
    assert seeds_to_reach("sign", 0.05) == 6
    assert smallest_p("unpaired", 5) == pytest.approx(2 / 252)
    assert seeds_to_reach("unpaired", 0.05) == 4


def test_the_sign_test_needs_more_seeds_the_fewer_agree():
    assert sign_seeds_for(1.0, 0.025) == 6
    assert sign_seeds_for(0.8, 0.025) > sign_seeds_for(0.95, 0.025) > 6
    assert sign_seeds_for(0.2, 0.025) == sign_seeds_for(0.8, 0.025)
    assert sign_seeds_for(0.5, 0.025) is None


@pytest.mark.parametrize("share", [0.7, 0.9, 1.0])
@pytest.mark.parametrize("level", [0.05, 0.025, 0.025 / 7])
def test_the_seeds_of_the_sign_test_are_the_fewest_by_scipys_binomial(share, level):
    def enough(n: int) -> bool:
        return stats.binom.sf(stats.binom.isf(level, n, 0.5), n, share) >= 0.8

    assert sign_seeds_for(share, level) == next(n for n in range(2, 1000) if enough(n))


# can it answer?


def test_the_smallest_improvement_that_can_be_shown_comes_on_top_of_the_margin():
    without = answer(claim("superior", 0.0), 5, spread=0.05)
    with_margin = answer(claim("superior", 0.1), 5, spread=0.05)
    assert without.can and without.detectable == pytest.approx(0.0842, abs=1e-3)
    assert power([without.detectable], 0.05, 5, 0.025) == pytest.approx(0.8, abs=1e-4)
    assert with_margin.detectable == pytest.approx(0.1 + without.detectable)
    assert "5 seeds show an improvement of 8.4" in without.text


def test_an_improvement_by_all_there_is_or_more_is_none_that_an_error_can_show():
    found = answer(claim("superior", 0.0), 2, spread=0.5)
    assert found.detectable > 1
    assert "with probability 80 %, which a metric that is to fall cannot reach" in found.text


def test_equivalence_is_answered_if_the_margin_is_wide_enough_for_the_spread():
    narrow, wide = (answer(claim("equivalent", margin), 5, spread=0.05) for margin in (0.05, 0.2))
    assert wide.can and not narrow.can
    assert narrow.seeds_needed is not None and narrow.seeds_needed > 5
    assert f"the registered margin, 5 %, needs {narrow.seeds_needed} seeds" in narrow.text
    assert answer(claim("equivalent", 0.05), narrow.seeds_needed, spread=0.05).can


def test_a_margin_far_below_the_spread_needs_more_seeds_than_anybody_has():
    found = answer(claim("equivalent", 0.0005), 5, spread=0.2)
    assert found.seeds_needed is None and "needs more than 10000 seeds" in found.text


def test_holm_over_more_hypotheses_costs_power():
    one, three = (answer(claim("superior", 0.0), 5, spread=0.05, hypotheses=count) for count in (1, 3))
    assert three.detectable > one.detectable and three.sign_seeds > one.sign_seeds


def test_the_sign_test_that_failing_seeds_call_for_is_warned_of():
    found = answer(claim("superior", 0.0), 5, spread=0.05)
    assert not found.sign_reaches and found.sign_seeds == 6
    assert "cannot reach 0.05 with 5 seeds (p >= 0.0625): 6 would" in found.text
    assert answer(claim("superior", 0.0), 6, spread=0.05).sign_reaches
    assert answer(claim("non_inferior", 0.1), 5, spread=0.05).sign_reaches


def test_without_replicates_nothing_is_promised():
    unknown = answer(claim("superior", 0.0), 5, spread=None)
    assert unknown.can is None and unknown.detectable is None and "no replicates have been seen" in unknown.text
    single = answer(claim("superior", 0.0), 1, spread=0.05)
    assert single.can is False and "1 seed has no spread" in single.text


def test_an_absolute_margin_is_told_in_the_metrics_unit():
    found = answer(claim("non_inferior", 0.5, "absolute"), 5, spread=0.1)
    assert found.can and "%" not in found.text.split(" with probability")[0]


def test_replicates_without_any_spread_show_every_difference():
    assert answer(claim("superior", 0.1), 5, spread=0.0).detectable == 0.1
    assert answer(claim("equivalent", 0.1), 5, spread=0.0).can
