"""Scores against independent formulas, pairing by key, and intervals over phantoms."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import concordance_corrcoef, r2_score

from assay.errors import DataError
from assay.studies.asl import metrics
from assay.studies.asl.bootstrap import Bootstrap, resamples
from assay.studies.asl.metrics import Sums, compare, total_by
from assay.studies.asl.pairing import Voxels, every, voxels


def table(values, start: int = 0) -> Voxels:
    value = torch.as_tensor(values, dtype=torch.float64)
    return Voxels(torch.arange(start, start + len(value)), value)


def noisy(seed: int = 0, n: int = 200) -> tuple[Voxels, Voxels]:
    """Truth, and an estimate with bias, gain and noise."""
    random = np.random.default_rng(seed)
    truth = random.uniform(10, 80, n)
    return table(truth), table(3 + 0.9 * truth + random.normal(0, 4, n))


def total(summands: Sums) -> Sums:
    return summands.map(torch.sum)


def score(name: str, estimate: Voxels, truth: Voxels, **others: Voxels) -> float:
    return float(metrics.METRICS[name](total(compare(estimate, truth, **others))))


# Formulas


def test_scores_by_hand():
    truth, estimate = table([1.0, 2.0, 3.0, 4.0]), table([2.0, 2.0, 1.0, 4.0])
    assert score("mae", estimate, truth) == pytest.approx(0.75)
    assert score("rmse", estimate, truth) == pytest.approx(math.sqrt(5 / 4))
    assert score("bias", estimate, truth) == pytest.approx(-0.25)
    assert score("r2", estimate, truth) == pytest.approx(1 - 5 / 5)


def test_r2_and_concordance_agree_with_torchmetrics():
    truth, estimate = noisy()
    assert score("r2", estimate, truth) == pytest.approx(float(r2_score(estimate.value, truth.value)))
    oracle = float(concordance_corrcoef(estimate.value, truth.value))
    assert score("concordance", estimate, truth) == pytest.approx(oracle, rel=1e-3)  # there ddof is 1


def test_regression_line_agrees_with_scipy():
    truth, estimate = noisy()
    oracle = scipy.stats.linregress(truth.value, estimate.value)
    assert score("slope", estimate, truth) == pytest.approx(oracle.slope)
    assert score("intercept", estimate, truth) == pytest.approx(oracle.intercept)


def test_bland_altman_by_its_definition():
    truth, estimate = noisy()
    error, mean = estimate.value - truth.value, (estimate.value + truth.value) / 2
    assert score("agreement_low", estimate, truth) == pytest.approx(float(error.mean() - 1.96 * error.std()))
    assert score("agreement_high", estimate, truth) == pytest.approx(float(error.mean() + 1.96 * error.std()))
    slope = scipy.stats.linregress(mean, error).slope
    assert score("proportional_bias", estimate, truth) == pytest.approx(slope)


def test_icc_by_its_analysis_of_variance():
    truth, estimate = noisy()
    ratings = torch.stack([estimate.value, truth.value], 1)
    n, k = ratings.shape
    rows = ratings.mean(1, keepdim=True) - ratings.mean()
    columns = ratings.mean(0, keepdim=True) - ratings.mean()
    between = k * rows.square().sum() / (n - 1)
    residual = (ratings - ratings.mean() - rows - columns).square().sum() / ((n - 1) * (k - 1))
    oracle = (between - residual) / (between + (k - 1) * residual)
    assert score("icc", estimate, truth) == pytest.approx(float(oracle))


def test_concordance_punishes_the_bias_that_icc_forgives():
    truth, _ = noisy()
    shifted = truth._replace(value=truth.value + 20)
    assert score("icc", shifted, truth) == pytest.approx(1)
    assert score("concordance", shifted, truth) < 0.8


def test_r2_of_a_uniform_truth_is_not_a_number_or_minus_infinity():
    assert not math.isfinite(score("r2", table([59.0, 61.0, 60.5]), table([60.1, 60.1, 60.1])))


@given(st.floats(-50, 50), st.floats(0.2, 5))
def test_errors_do_not_depend_on_the_origin_and_scale_with_the_unit(shift, scale):
    truth, estimate = noisy()
    moved = [each._replace(value=scale * (each.value + shift)) for each in (estimate, truth)]
    assert score("mae", *moved) == pytest.approx(scale * score("mae", estimate, truth))
    assert score("r2", *moved) == pytest.approx(score("r2", estimate, truth), abs=1e-9)


def test_failures_are_counted_and_left_out_of_every_other_score():
    truth, estimate = noisy(n=8)
    broken = estimate._replace(value=torch.where(torch.arange(8) < 2, torch.nan, estimate.value))
    rest = [Voxels(each.key[2:], each.value[2:]) for each in (estimate, truth)]
    assert score("failure_rate", broken, truth) == 0.25
    for name in ("mae", "rmse", "bias", "r2", "concordance", "icc", "slope"):
        assert score(name, broken, truth) == pytest.approx(score(name, *rest))


def test_calibrated_standard_deviations_cover_as_they_say():
    random = np.random.default_rng(0)
    sd = random.uniform(0.5, 5, 20000)
    truth = table(np.full(20000, 60.0))
    estimate = table(60 + sd * random.normal(size=20000))
    right, small = {"std": table(sd)}, {"std": table(sd / 2)}
    tolerance = 4 * math.sqrt(0.68 * 0.32 / 20000)  # four binomial standard errors
    assert score("coverage_68", estimate, truth, **right) == pytest.approx(0.68, abs=tolerance)
    assert score("coverage_95", estimate, truth, **right) == pytest.approx(0.95, abs=tolerance)
    assert score("mean_z_squared", estimate, truth, **right) == pytest.approx(1, abs=4 * math.sqrt(2 / 20000))
    assert score("mean_z_squared", estimate, truth, **small) > 3.8
    assert math.isnan(score("coverage_95", estimate, truth))


# Rivals


def test_least_squares_never_wins_against_itself():
    truth, estimate = noisy()
    assert score("win_rate", estimate, truth, rival=estimate) == 0.0
    assert score("mae_ratio", estimate, truth, rival=estimate) == 1.0


def test_wins_are_strict_and_need_two_finite_estimates():
    truth = table([0.0] * 5)
    estimate, rival = table([1.0, 2.0, 3.0, torch.nan, 1.0]), table([2.0, 2.0, 1.0, 9.0, torch.inf])
    assert score("win_rate", estimate, truth, rival=rival) == pytest.approx(1 / 3)
    assert score("mae_ratio", estimate, truth, rival=rival) == pytest.approx(6 / 5)


# Pairing


def test_estimates_of_other_voxels_are_refused():
    truth, estimate = noisy()
    with pytest.raises(DataError, match=r"voxel 0 is \(phantom 0, row 0, column 1\) in one table"):
        compare(Voxels(truth.key, estimate.value), Voxels(truth.key + 1, truth.value))


def test_permuted_estimates_are_refused():
    truth, estimate = noisy()
    order = torch.randperm(len(truth.key), generator=torch.Generator().manual_seed(0))
    permuted = Voxels(estimate.key[order], estimate.value[order])
    with pytest.raises(DataError, match=r"pairing: voxel \d+ is .* allowed: the same keys in the same order"):
        compare(permuted, truth)
    with pytest.raises(DataError, match="pairing"):
        compare(estimate, truth, rival=permuted)


def test_the_published_pairing_of_every_tenth_with_the_first_voxels_is_refused():
    truth, estimate = noisy()
    with pytest.raises(DataError, match="got 200 and 20 voxels; allowed: the same keys"):
        compare(every(estimate, 10), truth)
    with pytest.raises(DataError, match="pairing: voxel 1 is"):
        compare(every(estimate, 10), Voxels(truth.key[:20], truth.value[:20]))


def test_keys_name_phantom_row_and_column():
    mask = torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, 2, 3] = True
    maps = torch.arange(24.0).view(2, 3, 4)
    picked = voxels(maps, torch.tensor([7, 9]), mask)
    assert picked.value.tolist() == [6, 23]
    assert picked.phantom.tolist() == [7, 9]
    assert picked.key.tolist() == [(7 * 65536 + 1) * 65536 + 2, (9 * 65536 + 2) * 65536 + 3]


def test_the_stride_starts_anew_in_every_phantom():
    mask = torch.ones(2, 3, 5, dtype=torch.bool)
    picked = every(voxels(torch.arange(30.0).view(2, 3, 5), torch.tensor([0, 1]), mask), 10)
    assert picked.value.tolist() == [0, 10, 15, 25]


# Intervals


def by_phantom(phantoms: int, seed: int = 0, voxels_each: int = 50) -> metrics.Sums:
    """Errors that are alike within a phantom and differ between phantoms."""
    random = np.random.default_rng(seed)
    offset = np.repeat(random.normal(0, 3, phantoms), voxels_each)
    truth = table(random.uniform(10, 80, phantoms * voxels_each))
    estimate = truth._replace(value=truth.value + torch.as_tensor(offset + random.normal(0, 0.1, len(offset))))
    rival = truth._replace(value=truth.value + 2 * torch.as_tensor(offset))
    group = torch.arange(len(offset)) // voxels_each
    return total_by(compare(estimate, truth, rival=rival), group, phantoms)


def test_sums_of_phantoms_pool_to_the_scores_of_all_voxels():
    truth, estimate = noisy()
    summands = compare(estimate, truth)
    pooled = Bootstrap(total_by(summands, torch.arange(200) % 7, 7), resamples(7, 100)).pooled
    for name in ("mae", "r2", "icc", "agreement_low"):
        metric = metrics.METRICS[name]
        assert float(metric(pooled)) == pytest.approx(float(metric(total(summands))))


def test_interval_of_the_bias_is_that_of_a_mean_over_phantoms():
    sums = by_phantom(40)
    value, low, high = Bootstrap(sums, resamples(40, 4000)).estimate(metrics.bias)
    means = metrics.bias(sums)
    half = 1.96 * float(means.std()) / math.sqrt(40)
    assert float(value) == pytest.approx(float(means.mean()))
    assert float(high - low) / 2 == pytest.approx(half, rel=0.1)


def test_ratios_are_resampled_jointly():
    sums = by_phantom(20)
    value, low, high = Bootstrap(sums, resamples(20, 1000)).estimate(metrics.mae_ratio)
    assert float(high - low) < 0.02, "errors of both rise and fall together"
    assert float(low) <= float(value) <= float(high)


def test_intervals_are_the_same_at_every_call():
    assert torch.equal(resamples(12, 300), resamples(12, 300))
    assert resamples(12, 300).sum(1).unique().tolist() == [12]


def test_a_single_phantom_has_no_interval():
    _, low, high = Bootstrap(by_phantom(1), resamples(1, 100)).estimate(metrics.mae)
    assert math.isnan(float(low)) and math.isnan(float(high))
