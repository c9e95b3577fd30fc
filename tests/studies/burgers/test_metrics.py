"""Every score on arrays small enough to check by hand, and the properties that make it worth reporting."""

import math

import pytest
import torch

from assay.errors import DataError
from assay.studies.burgers import metrics
from assay.studies.burgers.calibration import calibration_error, coverage, crps, expected_calibration_error
from assay.studies.burgers.equation import cell_centres, energy
from assay.studies.burgers.exact import cole_hopf

TRUE = torch.tensor([[[1.0, -1.0, 1.0, -1.0], [2.0, 0.0, 0.0, 0.0]], [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 4.0]]])
PRED = TRUE + torch.tensor(
    [[[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], [[0.5, 0.5, 0.5, 0.5], [0.0, 0.0, 0.0, -1.0]]]
)
"""Two trajectories, two frames, four cells. Squared errors 0, 1, 1, 1 by frame against squares 4, 4, 4, 16."""

EXPECTED = {
    "nrmse": math.sqrt(3 / 28),
    "nrmse_pooled": math.sqrt(3 / 28),
    "nrmse_trajectory": (math.sqrt(1 / 8) + math.sqrt(2 / 20)) / 2,
    "nrmse_frame": (0 + 0.5 + 0.5 + 0.25) / 4,
    "nrmse_curve": [0.25, 0.375],
    "mass_gap": (0 + 0.25 + 0.5 + 0.25) / 4,
    "crmse": (math.sqrt((0 + 4) / 2) + math.sqrt((1 + 1) / 2)) / 4 / 2,
    "brmse": (0 + 0 + 0.5 + math.sqrt(1 / 2)) / 4,
    "seam_jump": 1 / 4,
    "conservation_gap": (1 + 1) / 2,
}


@pytest.mark.parametrize(("name", "value"), EXPECTED.items())
def test_scores_by_hand(name, value):
    expected = torch.tensor(value, dtype=torch.float64)
    torch.testing.assert_close(getattr(metrics, name)(PRED, TRUE), expected, rtol=1e-7, atol=1e-12)


def test_scores_of_the_prediction_alone_by_hand():
    total, drift = torch.tensor([[0.0, 0.75], [1.5, 0.75]]), (0.75 + 0.75) / 2
    torch.testing.assert_close(PRED.mean(-1), total)
    assert float(metrics.mass_drift(PRED)) == pytest.approx(drift)
    grown = energy(PRED)[:, 1] - energy(PRED)[:, 0]
    assert (grown > 0).tolist() == [True, False]
    assert float(metrics.energy_growth(PRED)) == pytest.approx(float(grown[0]) / 2)
    assert float(metrics.negativity(torch.tensor([-1.0, 0.0, 3.0, -2.0]))) == 0.75


def test_boundary_violation_of_samples_with_and_without_channels():
    flat = (PRED[:, 1], TRUE[:, 1])
    assert float(metrics.boundary_violation(*flat)) == pytest.approx((0 + 0.5) / 2)
    assert float(metrics.boundary_violation(PRED[..., None][:, 1], TRUE[..., None][:, 1])) == pytest.approx(0.25)


def test_spectral_error_is_in_the_band_of_the_wave_that_is_wrong():
    x = cell_centres(64)
    true = torch.stack([torch.sin(2 * math.pi * x)] * 3)[None]
    for wave, band in ((2, 0), (4, 1), (11, 1), (12, 2), (30, 2)):
        error = metrics.frmse(true + 0.1 * torch.cos(2 * math.pi * wave * x), true)
        assert (error > 1e-12).tolist() == [index == band for index in range(3)]
    first = metrics.frmse(true + 0.1 * torch.cos(2 * math.pi * 2 * x), true)[0]
    assert float(first) == pytest.approx(0.1 / 2 / 4)


def test_spectral_energy_error_is_the_relative_error_of_the_energy():
    true = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0))
    assert float(metrics.spectral_energy_error(1.1 * true, true)) == pytest.approx(0.21, rel=1e-5)


def test_a_shock_displaced_across_the_seam_is_a_short_way_off():
    u = cole_hopf(lambda y: torch.sin(2 * math.pi * (y - 0.49)), cell_centres(128), 0.3, 0.005)[None, None]
    assert float(metrics.shock_position_error(u.roll(7, -1), u)) == pytest.approx(7 / 128)
    assert float(metrics.overshoot(u, u[:, 0])) == 0
    assert float(metrics.overshoot(u - 0.5, u[:, 0])) == pytest.approx(0.5)


def test_a_perfect_prediction_scores_nothing():
    assert metrics.frmse(TRUE.repeat(1, 1, 8), TRUE.repeat(1, 1, 8)).tolist() == [0, 0, 0]
    for name in (*EXPECTED, "spectral_energy_error", "shock_position_error"):
        assert not getattr(metrics, name)(TRUE, TRUE).any(), name


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(DataError, match=r"got shapes \(2, 1, 4\) against \(2, 2, 4\); allowed is one shape for both"):
        metrics.nrmse_frame(PRED[:, :1], TRUE)


def test_samples_from_the_right_distribution_are_calibrated():
    generator = torch.Generator().manual_seed(0)
    samples, true = torch.randn(200, 4000, generator=generator), torch.randn(4000, generator=generator)
    assert coverage(samples, true, (0.5, 0.9)).tolist() == pytest.approx([0.5, 0.9], abs=0.03)
    narrow = coverage(0.5 * samples, true)
    assert calibration_error(coverage(samples, true)) < 0.02 < 0.15 < calibration_error(narrow)
    assert calibration_error(torch.tensor([0.2, 0.5]), (0.5, 0.9)) == pytest.approx((0.3 + 0.4) / 2)
    assert float(crps(samples, true)) == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)  # of a standard normal


def test_crps_of_two_samples_by_hand_and_of_one_is_the_absolute_error():
    samples, true = torch.tensor([[0.0], [2.0]]), torch.tensor([1.0])
    assert float(crps(samples, true)) == 1.0 - 2.0 / 2
    assert float(crps(samples[:1], true)) == 1.0


def test_calibration_error_of_probabilities_weighs_bins_by_their_points():
    probability, correct = torch.tensor([1.0, 0.95, 0.15, 0.12]), torch.tensor([1.0, 0.0, 0.0, 1.0])
    expected = (abs(1.0 - 1.95) + abs(1.0 - 0.27)) / 4
    assert float(expected_calibration_error(probability, correct)) == pytest.approx(expected)
