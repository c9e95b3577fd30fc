"""How a number of a report is made from the runs of an arm."""

from dataclasses import replace
from pathlib import Path

import pytest

from assay.matrix.cells import CellResult
from assay.reports import words
from assay.reports.summary import Estimate, ranked, replicate_spread, summarise


def cell(arm: str, seed: int, state: str = "complete", **metrics: float) -> CellResult:
    return CellResult(arm=arm, seed=seed, folder=Path(arm, str(seed)), state=state, metrics=metrics)


def test_mean_and_interval_are_students_over_the_seeds():
    found = summarise(["a"], "a", [cell("a", seed, error=value) for seed, value in enumerate((1.0, 2.0, 3.0))])
    estimate = found["a"].metrics["error"]
    assert estimate.mean == 2.0
    assert (estimate.low, estimate.high) == pytest.approx((2 - 2.4841377, 2 + 2.4841377))  # t 4.302653 / sqrt(3)


def test_one_seed_has_no_interval():
    estimate = summarise(["a"], "a", [cell("a", 0, error=1.0)])["a"].metrics["error"]
    assert (estimate.low, estimate.high, estimate.n) == (None, None, 1)


def test_a_failed_seed_stays_in_the_denominator():
    arm = summarise(["a"], "a", [cell("a", 0, error=1.0), cell("a", 1, state="failed"), cell("a", 2, error=2.0)])["a"]
    assert words.count(arm.metrics["error"]) == "2/3"
    assert arm.state == "2 complete, 1 failed"


def test_a_seed_that_was_cut_off_ended_short_and_one_that_never_began_did_not():
    arm = summarise(["a"], "a", [cell("a", 0, state="partial"), cell("a", 1, state="missing")])["a"]
    assert arm.ended_short == 1


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_no_value(bad):
    arm = summarise(["a"], "a", [cell("a", 0, error=bad), cell("a", 1, error=1.0)])["a"]
    assert arm.metrics["error"].seeds == (1,)


def test_metrics_of_a_run_that_is_not_complete_do_not_count():
    assert not summarise(["a"], "a", [cell("a", 0, state="running", error=1.0)])["a"].metrics


def test_differences_are_paired_by_seed_whatever_the_order():
    cells = [cell("b", 0, error=1.0), cell("b", 1, error=5.0), cell("a", 1, error=5.5), cell("a", 0, error=1.5)]
    gap = summarise(["a", "b"], "b", [*cells, cell("a", 2, error=9.0)])["a"].differences["error"]
    assert (gap.mean, gap.low, gap.high) == (0.5, 0.5, 0.5)
    assert sorted(gap.seeds) == [0, 1]


def test_the_baseline_is_not_compared_with_itself():
    assert not summarise(["b"], "b", [cell("b", 0, error=1.0)])["b"].differences


@pytest.mark.parametrize(("direction", "order"), [("min", ["a", "b"]), ("max", ["b", "a"])])
def test_the_best_comes_first_and_arms_without_the_metric_are_left_out(direction, order):
    cells = [cell("a", 0, error=1.0), cell("b", 0, error=2.0), cell("c", 0, state="failed")]
    found = ranked(summarise(["a", "b", "c"], "a", cells).values(), "error", direction)
    assert [arm.arm for arm in found] == order


def test_the_cost_of_a_run_is_that_of_complete_ones():
    whole = [replace(cell("a", seed), wall_s=wall, gpu_s=wall / 2) for seed, wall in enumerate((100.0, 200.0))]
    arm = summarise(["a"], "a", [*whole, replace(cell("a", 2, state="failed"), wall_s=6.0)])["a"]
    assert (arm.run_s, arm.gpu_run_s, arm.wall_s) == (150.0, 75.0, 306.0)
    assert summarise(["a"], "a", [cell("a", 0, state="lost")])["a"].run_s is None


def test_replicate_spread_is_the_median_deviation_between_seeds():
    cells = [cell("a", 0, e=0.0), cell("a", 1, e=2**0.5), cell("b", 0, e=0.0), cell("b", 1, e=3 * 2**0.5)]
    assert replicate_spread(summarise(["a", "b"], "a", cells).values(), "e") == pytest.approx(2.0)
    assert replicate_spread(summarise(["a"], "a", [cell("a", 0, e=1.0)]).values(), "e") is None


def estimate(mean: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(mean=mean, low=low, high=high, seeds=(0, 1), planned=2)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (estimate(0.0577, 0.05501, 0.06), "0.05770 [0.05501, 0.06000]"),
        (estimate(2.0, None, None), "2"),
        (estimate(-1.5, -2.0, -1.0), "−1.500 [−2.000, −1.000]"),  # noqa: RUF001 the sign that is printed
        (estimate(0.0, -1.0, 1.0), "0 [−1, 1]"),  # noqa: RUF001
        (estimate(3e7, 2e7, 4e7), "3e+07 [2e+07, 4e+07]"),
    ],
)
def test_an_interval_has_the_digits_of_its_mean(given, text):
    assert words.interval(given) == text


def test_a_difference_is_in_per_cent_unless_the_baseline_is_zero():
    assert words.change(estimate(0.5, 0.25, 0.75), 2.0) == "+25.0 % [+12.5, +37.5]"
    assert words.change(estimate(0.5, 0.25, 0.75), -2.0) == "+25.0 % [+12.5, +37.5]"
    assert words.change(estimate(0.5, None, None), 0.0) == "0.5"
