"""What the fits promise: the truth without noise, the global minimum with it, and honest confidence intervals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from assay.errors import DataError
from assay.studies.asl.least_squares import (
    fit_images,
    scipy_fit,
    smooth_signals,
    variable_projection,
)
from assay.studies.asl.physics import Physics, joint_signal, randomise_physics, reference_signal

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)


def curves(cbf, att, physics=None, plds=PLDS):
    """Signals (V, 2 * n_plds) of voxels (V,)."""
    maps = (torch.as_tensor(values, dtype=torch.float64).view(1, -1, 1) for values in (cbf, att))
    return joint_signal(*maps, plds, physics or Physics())[0, :, :, 0].T


def squares(signal, cbf, att, physics=None):
    """Sum of the squared residuals (V,)."""
    return (signal - curves(cbf, att, physics)).square().sum(1)


def noisy(n, snr=10.0, seed=0):
    """True CBF and ATT of n voxels, and their signals with noise."""
    generator = torch.Generator().manual_seed(seed)
    cbf = 1 + 100 * torch.rand(n, generator=generator, dtype=torch.float64)
    att = 200 + 2800 * torch.rand(n, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 12, generator=generator, dtype=torch.float64)
    return cbf, att, curves(cbf, att) + noise * reference_signal(Physics()) / snr


# Beyond 4500 ms, the last delay and the shortest label duration, the signal no longer depends on ATT.
@settings(deadline=None)
@given(st.floats(2.0, 180.0), st.floats(100.0, 4400.0), st.floats(1400.0, 2300.0), st.floats(1500.0, 2100.0))
def test_without_noise_the_fit_is_the_truth(cbf, att, t1, tau):
    physics = Physics(t1_artery=t1, label_duration=tau)
    fit = variable_projection(curves([cbf], [att], physics), PLDS, physics)
    assert fit.cbf.item() == pytest.approx(cbf, abs=1e-4)
    assert fit.att.item() == pytest.approx(att, abs=1e-2)


@settings(deadline=None)
@given(st.lists(st.integers(2, 35), min_size=2, max_size=8, unique=True))
def test_any_delays_will_do(plds):
    plds = [100.0 * pld for pld in sorted(plds)]
    att = [0.5 * (plds[0] + plds[-1])]
    fit = variable_projection(curves([50.0], att, plds=plds), plds, Physics())
    assert fit.sse.item() < 1e-16


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_no_point_of_a_fine_grid_fits_better(seed):
    _, _, signal = noisy(20, snr=4.0, seed=seed)
    fit = variable_projection(signal, PLDS, Physics())
    att = torch.linspace(100, 6000, 5901, dtype=torch.float64)
    curve = curves(torch.ones_like(att), att)
    cbf = (signal @ curve.T / curve.square().sum(1)).clamp(0, 200)
    grid = (signal.unsqueeze(1) - cbf.unsqueeze(-1) * curve).square().sum(-1)
    assert (fit.sse <= grid.amin(1) * (1 + 1e-6)).all()


def test_never_worse_than_scipy_and_as_accurate():
    cbf, att, signal = noisy(150)
    fit = variable_projection(signal, PLDS, Physics())
    reference = torch.tensor([scipy_fit(voxel, PLDS, Physics()) for voxel in signal.numpy()], dtype=torch.float64)
    assert (fit.sse <= squares(signal, reference[:, 0], reference[:, 1]) * (1 + 1e-6)).all()
    assert (fit.cbf - cbf).abs().mean() <= (reference[:, 0] - cbf).abs().mean() * 1.02
    assert (fit.att - att).abs().mean() <= (reference[:, 1] - att).abs().mean() * 1.02


def test_scipy_reference_finds_the_truth_without_noise():
    physics = Physics(t1_artery=1650.0, alpha_bs=0.93, recovery=0.7, t2_factor=0.78)
    signal = curves([40.0, 90.0], [1234.0, 2468.0], physics).numpy()
    for voxel, truth in zip(signal, [(40.0, 1234.0), (90.0, 2468.0)], strict=True):
        assert scipy_fit(voxel, PLDS, physics) == pytest.approx(truth, rel=1e-4)


def test_bounds_hold_in_both_fits():
    signal = curves([150.0], [1000.0])
    fit = variable_projection(signal, PLDS, Physics(), cbf_bounds=(0.0, 100.0), att_bounds=(1200.0, 3000.0))
    reference = scipy_fit(signal[0].numpy(), PLDS, Physics(), cbf_bounds=(0.0, 100.0), att_bounds=(1200.0, 3000.0))
    assert (fit.cbf.item(), fit.att.item()) == pytest.approx(reference, rel=1e-3)
    assert fit.cbf.item() <= 100.0
    assert fit.att.item() >= 1200.0


def test_a_voxel_without_signal_has_no_perfusion():
    fit = variable_projection(torch.stack((torch.zeros(12), torch.full((12,), -0.002))), PLDS, Physics())
    assert fit.cbf.tolist() == [0.0, 0.0]
    assert fit.att.tolist() == [100.0, 100.0]


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.5])
def test_perfusion_scales_with_the_signal_and_transit_time_does_not(scale):
    _, _, signal = noisy(30, snr=20.0)
    one, other = (variable_projection(factor * signal, PLDS, Physics()) for factor in (1.0, scale))
    torch.testing.assert_close(other.cbf, scale * one.cbf, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(other.att, one.att, rtol=0, atol=1e-3)


def test_images_are_fitted_with_their_own_physics():
    physics = randomise_physics(Physics(), "extended", 3, torch.Generator().manual_seed(0))
    cbf = 10 + 80 * torch.rand(3, 4, 5, dtype=torch.float64)
    att = 300 + 2500 * torch.rand(3, 4, 5, dtype=torch.float64)
    fit = fit_images(joint_signal(cbf, att, PLDS, physics), PLDS, physics)
    torch.testing.assert_close(fit.cbf, cbf, rtol=0, atol=1e-4)
    torch.testing.assert_close(fit.att, att, rtol=0, atol=1e-2)
    shared = fit_images(joint_signal(cbf, att, PLDS, Physics()), PLDS, Physics())
    torch.testing.assert_close(shared.att, att, rtol=0, atol=1e-2)


def test_sse_is_that_of_the_estimates():
    _, _, signal = noisy(50)
    fit = variable_projection(signal, PLDS, Physics())
    torch.testing.assert_close(fit.sse, squares(signal, fit.cbf, fit.att))


def test_smoothing_blurs_every_channel_in_the_plane():
    signal = torch.rand(1, 2, 12, 9, dtype=torch.float64)
    expected = gaussian_filter(signal.numpy(), (0, 0, 2, 2))
    np.testing.assert_allclose(smooth_signals(signal).numpy(), expected, atol=1e-12)


def test_wrong_input_is_refused():
    with pytest.raises(DataError, match="signal: got 10 channels for 6 delays, allowed are 12"):
        variable_projection(torch.zeros(3, 10), PLDS, Physics())
    with pytest.raises(
        DataError, match="physics: got one set per image, allowed is one for all voxels; use fit_images"
    ):
        variable_projection(torch.zeros(3, 12), PLDS, Physics(t1_artery=torch.ones(3)))
