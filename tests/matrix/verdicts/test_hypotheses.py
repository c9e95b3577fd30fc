"""Verdicts from the runs of a study: what passes, what fails, what nobody can tell, and what may not be asked."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.matrix.made_runs import FAILED, MIN, claim, runs, verdict

from assay.matrix.cells import CellResult
from assay.matrix.study import MetricConfig
from assay.matrix.verdicts.comparison import spread_so_far
from assay.matrix.verdicts.hypotheses import judge
from assay.reports.effects import effect_text

MAX = MetricConfig(direction="max")

NOISE = np.array([0.3, -0.8, 1.1, -0.2, -0.4])
BASE = list(1 + 0.01 * NOISE)
"""Five seeds around 1 with a spread of 0.7 %."""


def around(mean: float) -> list[float]:
    return list(mean + 0.01 * NOISE[::-1])


# PASS, FAIL, INCONCLUSIVE


@pytest.mark.parametrize(
    ("test", "margin", "mean", "expected"),
    [
        ("superior", 0.0, 0.9, "PASS"),
        ("superior", 0.0, 1.1, "FAIL"),
        ("superior", 0.0, 1.001, "INCONCLUSIVE"),
        ("superior", 0.1, 0.85, "PASS"),
        ("superior", 0.1, 0.95, "FAIL"),
        ("superior", 0.1, 0.9, "INCONCLUSIVE"),
        ("equivalent", 0.05, 1.0, "PASS"),
        ("equivalent", 0.05, 1.1, "FAIL"),
        ("equivalent", 0.05, 0.9, "FAIL"),
        ("equivalent", 0.05, 1.05, "INCONCLUSIVE"),
        ("non_inferior", 0.05, 1.0, "PASS"),
        ("non_inferior", 0.05, 0.8, "PASS"),
        ("non_inferior", 0.05, 1.1, "FAIL"),
        ("non_inferior", 0.05, 1.05, "INCONCLUSIVE"),
    ],
)
@pytest.mark.parametrize("margin_is", ["relative", "absolute"])
@pytest.mark.parametrize("versus", ["b", 1.0])
def test_the_verdict_follows_where_the_effect_lies(versus, margin_is, test, margin, mean, expected):
    cells = runs(a=around(mean), b=BASE)
    assert verdict(claim(test, margin, versus=versus, margin_is=margin_is), cells).verdict == expected


def test_where_more_is_better_the_other_side_passes():
    assert verdict(claim("superior", 0.05), runs(a=around(1.1), b=BASE), MAX).verdict == "PASS"
    assert verdict(claim("superior", 0.05), runs(a=around(0.9), b=BASE), MAX).verdict == "FAIL"


def test_a_verdict_shows_effect_interval_p_and_n():
    found = verdict(claim(), runs(a=around(0.9), b=BASE))
    assert (found.n, found.n_arm, found.n_versus, found.method) == (5, 5, 5, "t")
    effect = found.effect
    assert effect.of == "mean" and effect.level == 0.95
    assert effect.difference == pytest.approx(-0.1) and effect.ratio == pytest.approx(0.9)
    assert effect.difference_interval[0] < -0.1 < effect.difference_interval[1] < 0
    assert effect.ratio_interval[0] < 0.9 < effect.ratio_interval[1] < 1
    assert found.p_value < 0.001 and found.p_permutation == 0.0625
    assert found.reason.startswith("a is better than b, ratio 0.9 [") and "over 5 seeds, p < 0.0001" in found.reason


def test_pairing_by_seed_sees_through_what_the_seeds_share():
    shared = [1.0, 2.0, 3.0, 4.0, 5.0]
    a = [value - 0.1 + 0.01 * noise for value, noise in zip(shared, NOISE, strict=True)]
    assert verdict(claim(), runs(a=a, b=shared)).verdict == "PASS"
    shuffled = {seed: a[(seed + 2) % 5] for seed in range(5)}
    assert verdict(claim(), runs(a=shuffled, b=shared)).verdict == "INCONCLUSIVE"


def test_inconclusive_says_how_many_seeds_would_settle_it():
    found = verdict(claim(), runs(a=[0.9, 1.0, 0.95, 1.05, 0.93], b=[1.0, 0.97, 1.02, 1.0, 1.01]))
    assert found.verdict == "INCONCLUSIVE" and 5 < found.seeds_needed < 50
    assert f"about {found.seeds_needed} seeds would settle it" in found.reason


def test_where_the_ratio_has_no_bound_the_reason_shows_the_difference():
    found = verdict(claim(), runs(a=around(0.5), b=[0.1, 5.0, 0.2, 9.0, 0.3]))
    assert found.effect.ratio_interval == (None, None) and "difference of means -2.42 [" in found.reason


def test_a_lower_confidence_asks_for_less():
    cells = runs(a=[0.95, 1.0, 0.95, 1.02, 0.93], b=[1.0, 0.99, 1.02, 1.0, 1.01])
    assert verdict(claim(), cells).verdict == "INCONCLUSIVE"
    assert verdict(replace(claim(), confidence=0.8), cells).verdict == "PASS"


def test_holm_makes_each_claim_pay_for_the_others():
    cells = runs(a=[0.96, 0.99, 0.95, 0.98, 0.93], b=[1.01, 0.99, 1.02, 1.0, 1.01])
    claims = {f"H{index}": claim() for index in range(3)}
    alone = judge(claims, {"m": MIN}, cells, correction="none")["H0"]
    together = judge(claims, {"m": MIN}, cells, correction="holm")["H0"]
    assert alone.verdict == "PASS" and alone.p_adjusted == alone.p_value
    assert together.verdict == "INCONCLUSIVE" and together.p_adjusted == pytest.approx(3 * together.p_value)
    assert "after Holm's correction" in together.reason and together.seeds_needed > 5


def test_a_pass_against_a_number_says_what_it_rests_on():
    found = [verdict(claim(versus=versus), runs(a=around(0.9), b=BASE)) for versus in (1.0, "b")]
    assert all(each.verdict == "PASS" for each in found)
    assert ["scatter symmetrically" in each.reason for each in found] == [True, False]


def test_the_card_and_the_reason_measure_the_same_and_a_ratio_without_bounds_is_none():
    found = verdict(claim(margin=0.1), runs(a=[1.0, 5.0, 9.0], b=[0.5, 9.0, 1.0]))
    assert None in found.effect.ratio_interval
    assert "difference of means 1.5 [" in found.reason and effect_text(found).startswith("difference of means 1.5 [")


def test_a_shared_level_needs_more_seeds():
    cells = runs(a=[0.9, 1.0, 0.95, 1.05, 0.93], b=[1.0, 0.97, 1.02, 1.0, 1.01])
    together = judge({f"H{index}": claim() for index in range(3)}, {"m": MIN}, cells)["H0"]
    assert together.verdict == "INCONCLUSIVE" and together.seeds_needed > verdict(claim(), cells).seeds_needed


# failed seeds


def test_a_failed_seed_counts_as_the_worst_so_that_five_seeds_cannot_pass():
    found = verdict(claim(), runs(a=around(0.5), b=[*BASE[:4], FAILED]))
    assert (found.verdict, found.method, found.n, found.p_value) == ("INCONCLUSIVE", "sign", 5, 0.0625)
    assert "cannot reach 0.05 with 5 seeds (p >= 0.0625): 6 could" in found.reason
    assert found.effect.of == "median" and found.effect.ratio is None


def test_six_seeds_can_pass_against_failing_ones():
    found = verdict(claim(), runs(a=[*around(0.5), 0.5], b=[*BASE[:4], FAILED, FAILED]))
    assert found.verdict == "PASS" and found.p_value == 0.03125
    assert found.failures["b"].rate == pytest.approx(1 / 3) and found.failed_seeds == {"b": (4, 5)}


def test_an_arm_that_fails_loses_what_its_finite_seeds_would_win():
    cells = runs(a=[FAILED, FAILED, FAILED, *around(0.5)[:3]], b=[*BASE, 1.0])
    assert verdict(claim(), cells).verdict == "INCONCLUSIVE"
    assert verdict(claim(), cells, MetricConfig(direction="min", failed="exclude")).verdict == "PASS"


def test_excluded_seeds_are_left_out_on_both_sides_and_still_shown():
    metric = MetricConfig(direction="min", failed="exclude")
    found = verdict(claim(), runs(a=[FAILED, *around(0.5)[1:]], b=BASE), metric)
    assert (found.verdict, found.n, found.n_arm, found.n_versus) == ("PASS", 4, 4, 5)
    assert found.failed_seeds == {"a": (0,)} and found.failures["a"].n == 5


def test_a_seed_that_its_surroundings_ended_is_missing_and_not_the_arms_worst():
    cells = [replace(each, outside=each.state == "failed") for each in runs(a=[FAILED, *around(0.5)[1:]], b=BASE)]
    found = verdict(claim(), cells)
    assert found.verdict == "INADMISSIBLE" and not found.failed_seeds


def test_an_arm_of_which_every_seed_failed_fails():
    found = verdict(claim("equivalent", 0.05), runs(a=[FAILED] * 3, b=BASE[:3]))
    assert found.verdict == "FAIL" and found.reason.startswith("every seed of a failed (3 of 3)")


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_run_that_ends_without_a_number_failed(value):
    cells = [*runs(a=around(0.5)[:4], b=BASE)]
    cells.append(CellResult(arm="a", seed=4, folder=Path("a"), state="complete", metrics={"m": value}))
    found = verdict(claim(), cells)
    assert found.failed_seeds == {"a": (4,)} and found.method == "sign"


def test_failing_on_both_sides_at_a_seed_is_no_evidence():
    found = verdict(claim(), runs(a=[FAILED, *around(0.5), 0.5], b=[FAILED, *BASE, 1.0]))
    assert found.n == 7 and found.p_value == pytest.approx(2 * 8 / 128)
    assert found.effect.difference_interval == (None, None)


# INADMISSIBLE


def test_missing_runs_are_named():
    cells = runs(a=around(0.5), b=BASE[:3])
    cells += [CellResult(arm="b", seed=seed, folder=Path("b"), state="running") for seed in (3, 4)]
    found = verdict(claim(), cells)
    assert found.verdict == "INADMISSIBLE" and "missing or not at their end: b seeds 3, 4" in found.reason
    assert found.p_value is None and found.failures["b"].n == 3


@pytest.mark.parametrize(
    ("hypothesis", "cells", "reason"),
    [
        (claim(), runs(a=around(0.5)), "b, every seed"),
        (claim(), runs(a=around(0.5), b=BASE[:4]), "did not run the same seeds (differ in 4)"),
        (claim(), runs(a=BASE, b=BASE), "a gives exactly the numbers of b at every seed: it changed nothing"),
        (claim(), runs(a=[0.5] * 3, b=[1.0] * 3), "these are no replicates"),
        (claim(), runs(a=[FAILED] * 3, b=[FAILED] * 3), "every seed of a and of b failed"),
        (claim(margin=0.1), runs(a=around(-2), b=around(-1)), "a relative margin needs a positive b, which is -1"),
        (replace(claim(), metric="other"), runs(a=BASE, b=BASE), "complete runs of a have no metric other"),
    ],
)
def test_what_cannot_be_answered_says_why(hypothesis, cells, reason):
    found = judge({"H": hypothesis}, {"m": MIN, "other": MIN}, cells)["H"]
    assert found.verdict == "INADMISSIBLE" and reason in found.reason


def test_excluding_every_seed_leaves_nothing():
    metric = MetricConfig(direction="min", failed="exclude")
    found = verdict(claim(), runs(a=[FAILED, 1.0], b=[1.0, FAILED]), metric)
    assert found.verdict == "INADMISSIBLE" and "no seed is left" in found.reason


def test_an_objection_to_either_arm_stops_the_verdict():
    cells = runs(a=around(0.5), b=BASE)
    for arm in ("a", "b"):
        found = judge({"H": claim()}, {"m": MIN}, cells, objections={arm: "inert"})["H"]
        assert found.verdict == "INADMISSIBLE" and found.reason == f"{arm}: inert"


def test_an_inadmissible_hypothesis_still_counts_in_the_correction():
    cells = runs(a=[0.97, 1.0, 0.95, 0.99, 0.93], b=[1.01, 0.99, 1.02, 1.0, 1.01])
    claims = {"H1": claim(), "H2": claim(arm="never run")}
    assert judge(claims, {"m": MIN}, cells)["H1"].p_adjusted == pytest.approx(2 * verdict(claim(), cells).p_value)


def test_one_seed_gives_no_verdict_and_no_p_value():
    found = verdict(claim(), runs(a=[0.1], b=[1.0]))
    assert found.verdict == "INCONCLUSIVE" and found.p_value is None and found.seeds_needed is None
    assert found.effect.ratio == pytest.approx(0.1) and found.effect.ratio_interval == (None, None)
    assert "without replicates there is no interval" in found.reason


# the spread known before the runs


def test_the_spread_so_far_is_that_of_pairs_or_else_of_one_arms_replicates():
    pairs = runs(a=[1.1, 1.3, 1.2], b=[1.0, 1.0, 1.0])
    assert spread_so_far(claim(), pairs) == pytest.approx(0.1)
    single = runs(b=[2.0, 2.2, 2.4])
    assert spread_so_far(claim(), single) == pytest.approx(math.sqrt(2) * 0.2 / 2.2)
    assert spread_so_far(claim(margin_is="absolute"), single) == pytest.approx(math.sqrt(2) * 0.2)
    assert spread_so_far(claim(versus=2.0), pairs) == pytest.approx(0.05)
    assert spread_so_far(claim(), []) is None and spread_so_far(claim(), runs(b=[1.0])) is None


# whole studies


def test_null_studies_pass_at_most_five_percent_and_real_effects_do():
    rng = np.random.default_rng(0)
    claims = {"null": claim(), "real": claim(arm="c")}
    passed = {"null": 0, "real": 0}
    for _ in range(100):
        cells = runs(a=list(1 + 0.05 * rng.standard_t(3, 5)), b=list(1 + 0.05 * rng.standard_t(3, 5)))
        cells += runs(c=list(0.6 + 0.02 * rng.standard_normal(5)))
        for name, each in judge(claims, {"m": MIN}, cells).items():
            passed[name] += each.verdict == "PASS"
    assert passed["null"] <= 11 and passed["real"] >= 90
