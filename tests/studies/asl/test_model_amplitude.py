"""What each network of the asl study makes of a signal that is scaled: blind to it, aware of it, or homogeneous."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.studies.asl.networks import (
    HOMOGENEOUS,
    PLAIN_HOMOGENEOUS,
    PLDS,
    Options,
    amplitude_aware,
    brain,
    model,
    perturb,
    variant,
)
from torch import nn

from assay.studies.asl.model import AmplitudeAwareSpatialASLNet, SpatialASLNet
from assay.studies.asl.model.amplitude_aware import FiLM, amplitude_features
from assay.studies.asl.model.homogeneous import LeastSquaresFeatures, amplitude, cbf_per_amplitude, unit_dictionary
from assay.studies.asl.model.outputs import global_scale, per_curve
from assay.studies.asl.physics import Physics, joint_signal

each_homogeneous = pytest.mark.parametrize("options", [HOMOGENEOUS, PLAIN_HOMOGENEOUS], ids=["fit", "no fit"])


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.05, 20.0))
def test_normalising_each_curve_cancels_perfusion(scale: float) -> None:
    x = brain()[0]
    torch.testing.assert_close(per_curve(scale * x), per_curve(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(global_scale(scale * x), scale * global_scale(x))


def test_normalised_curves_have_mean_zero_and_deviation_one() -> None:
    std, mean = torch.std_mean(per_curve(brain()[0]), dim=1, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones_like(std), atol=1e-4, rtol=0)


def ratio(network: nn.Module) -> float:
    """The published amplitude test: how the mean CBF z-score follows a hundredfold scale of pure noise."""
    generator = torch.Generator().manual_seed(42)
    x = 0.1 * torch.randn(4, 12, 64, 64, generator=generator)
    with torch.no_grad():
        low, high = (float(network(scale * x)[:, 0].mean().abs()) for scale in (0.1, 10.0))
    return high / max(low, 1e-9)


def test_normalising_first_makes_a_network_blind_to_amplitude() -> None:
    torch.manual_seed(0)
    assert ratio(SpatialASLNet(6)) == pytest.approx(1.0, abs=0.004)


@pytest.mark.parametrize(("first_norm", "sees"), [(True, False), (False, True)])
def test_removing_that_normalisation_alone_lets_the_amplitude_through(first_norm: bool, sees: bool) -> None:
    torch.manual_seed(0)
    network, x = SpatialASLNet(6, (8, 16), first_norm=first_norm), global_scale(brain()[0])
    change = (network(2 * x) - network(x))[:, :2].abs().mean() / network(x)[:, :2].std()
    assert (change > 0.05) == sees
    assert sees or change < 0.001


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_untrained_networks_pass_the_published_amplitude_test(seed: int) -> None:
    torch.manual_seed(seed)
    assert ratio(AmplitudeAwareSpatialASLNet(6)) > 5


def test_amplitude_features_are_forty_for_six_delays() -> None:
    x = torch.rand(2, 12, 5, 7, generator=torch.Generator().manual_seed(0))
    features = amplitude_features(x)
    assert features.shape == (2, 40)
    image, means = x[1], x[1].mean(dim=(1, 2))
    expected = [means, image.flatten(1).std(dim=1), image.flatten(1).max(dim=1).values]
    expected += [image.square().mean()[None], (means[:6].mean() / (means[6:].mean() + 1e-6))[None]]
    expected += [(half.argmax() / 6)[None] for half in (means[:6], means[6:])]
    torch.testing.assert_close(features[1], torch.cat(expected))


def test_film_starts_as_the_identity() -> None:
    generator = torch.Generator().manual_seed(0)
    x, condition = torch.randn(2, 16, 3, 3, generator=generator), torch.randn(2, 64, generator=generator)
    assert FiLM(16)(x, condition).equal(x)


def test_output_modulation_starts_as_a_hundred_times_the_mean() -> None:
    x = torch.rand(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    modulated = amplitude_aware(False, False, True)
    maps, modulated.modulation = modulated(x), None
    plain = modulated(x)
    torch.testing.assert_close(maps[:, :1], plain[:, :1] * 100 * x.mean(dim=(1, 2, 3), keepdim=True))
    assert maps[:, 1:].equal(plain[:, 1:])


@each_homogeneous
@settings(max_examples=20, deadline=None)
@given(power=st.integers(-40, 40))
def test_perfusion_is_exactly_homogeneous_in_powers_of_two(options: Options, power: int) -> None:
    network, (x, noise, *_), scale = perturb(model(options)), brain(), 2.0**power
    prediction, scaled = network(x, noise), network(scale * x, scale * noise)
    assert scaled.cbf.equal(scale * prediction.cbf)
    assert scaled.att.equal(prediction.att)


@each_homogeneous
@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-6, 1e6))
def test_perfusion_is_homogeneous_up_to_rounding(options: Options, scale: float) -> None:
    network, (x, noise, *_) = perturb(model(options)).double(), (part.double() for part in brain())
    prediction, scaled = network(x, noise), network(scale * x, scale * noise)
    torch.testing.assert_close(scaled.cbf, scale * prediction.cbf, rtol=1e-9, atol=0)
    torch.testing.assert_close(scaled.att, prediction.att, rtol=1e-9, atol=0)


@each_homogeneous
def test_uncertainty_of_perfusion_scales_with_it(options: Options) -> None:
    network, (x, noise, *_) = perturb(model(variant(options, learned_variance=True))), brain()
    prediction, scaled = network(x, noise), network(4 * x, 4 * noise)
    growth = scaled.log_var_cbf - prediction.log_var_cbf
    torch.testing.assert_close(growth, torch.full_like(growth, 2 * torch.tensor(4.0).log().item()))
    assert scaled.log_var_att.equal(prediction.log_var_att)


@each_homogeneous
def test_perfusion_is_positive_and_transit_time_bounded(options: Options) -> None:
    x = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = perturb(model(options))(x, torch.ones(2, 1, 1, 1))
    assert (prediction.cbf > 0).all()
    assert (prediction.att > 0).all() and (prediction.att < 5000).all()


def test_amplitude_is_positive_and_ignores_empty_background() -> None:
    x = brain()[0]
    padded = nn.functional.pad(x, (20, 20, 20, 20))
    torch.testing.assert_close(amplitude(padded), amplitude(x))
    assert (amplitude(torch.zeros_like(x)) > 0).all()
    assert amplitude(torch.full((1, 12, 4, 4), 3.0)).item() == pytest.approx(3.0)


def test_least_squares_features_find_the_truth_where_there_is_no_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    cbf, att = (torch.rand(1, 16, 16, generator=generator) * span + low for span, low in ((90, 10), (2200, 150)))
    dictionary = unit_dictionary(PLDS, Physics())
    unit = cbf_per_amplitude(dictionary)
    x = joint_signal(cbf, att, PLDS, Physics())
    scale = amplitude(x)
    fit_cbf, fit_att, misfit = LeastSquaresFeatures(dictionary)(x / scale, torch.full((1, 1, 16, 16), 1e-3))
    assert ((fit_cbf * unit * scale)[:, 0] / cbf - 1).abs().median() < 0.01
    assert (1000 * fit_att[:, 0] - att).abs().median() < 15  # half the spacing of the grid, and a little
    assert misfit.max() < 0.01


def test_an_untrained_homogeneous_model_is_already_a_fit() -> None:
    cbf, att = torch.full((1, 8, 8), 60.0), torch.full((1, 8, 8), 1200.0)
    x = joint_signal(cbf, att, PLDS, Physics())
    prediction = model(HOMOGENEOUS)(x, torch.full((1, 1, 1, 1), 1e-5))
    assert prediction.cbf.mean().item() == pytest.approx(60.0, rel=0.1)
    assert prediction.att.mean().item() == pytest.approx(1200.0, rel=0.1)
