"""What each network of the asl study promises: size, units, and what happens when the signal is scaled."""

import copy
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.errors import ConfigError, DataError
from assay.studies.asl import losses
from assay.studies.asl.model import (
    PUBLISHED_STATISTICS,
    AmplitudeAwareSpatialASLNet,
    Architecture,
    DualEncoderSpatialASLNet,
    MatchedUNet,
    Prediction,
    SmallCNN,
    SpatialASLNet,
    StandardisedModel,
    build,
)
from assay.studies.asl.model.amplitude_aware import FiLM, amplitude_features
from assay.studies.asl.model.homogeneous import (
    LeastSquaresFeatures,
    amplitude,
    cbf_per_amplitude,
    unit_dictionary,
)
from assay.studies.asl.model.outputs import Normalisation, global_scale, per_curve
from assay.studies.asl.physics import Physics, joint_signal

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)


@dataclass(frozen=True, kw_only=True)
class Options:
    """A stand-in for the study's own model section; null where the architecture has no such option."""

    architecture: Architecture
    hidden_sizes: tuple[int, ...] | None = (8, 16)
    normalisation: Normalisation | None = "global_scale"
    first_norm: bool | None = None
    use_film_at_bottleneck: bool | None = None
    use_film_at_decoder: bool | None = None
    use_amplitude_output_modulation: bool | None = None
    constrained_outputs: bool | None = None
    least_squares_features: bool | None = None
    learned_variance: bool | None = False


HOMOGENEOUS = Options(architecture="homogeneous", normalisation=None, least_squares_features=True)
PLAIN_HOMOGENEOUS = Options(architecture="homogeneous", normalisation=None, least_squares_features=False)
EVERY = {
    "homogeneous": HOMOGENEOUS,
    "homogeneous without fit": PLAIN_HOMOGENEOUS,
    "spatial": Options(architecture="spatial", first_norm=True),
    "spatial without first norm": Options(architecture="spatial", first_norm=False),
    "amplitude_aware": Options(
        architecture="amplitude_aware",
        use_film_at_bottleneck=True,
        use_film_at_decoder=True,
        use_amplitude_output_modulation=True,
    ),
    "dual_encoder": Options(architecture="dual_encoder", constrained_outputs=False),
    "small_cnn": Options(architecture="small_cnn", hidden_sizes=None, learned_variance=None),
    "matched_unet": Options(architecture="matched_unet", hidden_sizes=None, learned_variance=None),
}
WITH_VARIANCE = [name for name, options in EVERY.items() if options.learned_variance is not None]

every_architecture = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY.keys())
each_homogeneous = pytest.mark.parametrize("options", [HOMOGENEOUS, PLAIN_HOMOGENEOUS], ids=["fit", "no fit"])


def model(options: Options, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(options, plds=PLDS, physics=Physics(), statistics=PUBLISHED_STATISTICS)


def variant(options: Options, **changes: object) -> Options:
    return replace(options, **changes)  # type: ignore[arg-type]


def brain(batch: int = 2, size: tuple[int, int] = (12, 12), seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random perfusion and transit times, (B, 1, H, W), and their noisy signal with its noise level."""
    generator = torch.Generator().manual_seed(seed)
    cbf = 10 + 80 * torch.rand(batch, *size, generator=generator)
    att = 500 + 2000 * torch.rand(batch, *size, generator=generator)
    signal = joint_signal(cbf, att, PLDS, Physics())
    noise = torch.full((batch, 1, 1, 1), 2e-4)
    return signal + noise * torch.randn(signal.shape, generator=generator), noise, cbf[:, None], att[:, None]


def perturb(network: nn.Module) -> nn.Module:
    """Move every parameter off its initial value, so that paths that start at zero count."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def amplitude_aware(bottleneck: bool, decoder: bool, modulation: bool, plds: int = 6) -> AmplitudeAwareSpatialASLNet:
    return AmplitudeAwareSpatialASLNet(
        plds,
        use_film_at_bottleneck=bottleneck,
        use_film_at_decoder=decoder,
        use_amplitude_output_modulation=modulation,
    )


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (lambda: SpatialASLNet(6), 1_929_634),
        (lambda: SpatialASLNet(5), 1_929_058),
        (lambda: SpatialASLNet(6, first_norm=False), 1_929_634 - 64),
        (lambda: amplitude_aware(True, True, True), 2_038_307),
        (lambda: amplitude_aware(False, False, True), 1_942_627),
        (lambda: amplitude_aware(True, True, False), 2_036_194),
        (lambda: amplitude_aware(True, False, False), 1_982_114),
        (lambda: amplitude_aware(False, False, False), 1_940_514),
        (lambda: amplitude_aware(True, True, True, plds=5), 2_037_347),
        (lambda: AmplitudeAwareSpatialASLNet(6, (64, 128, 256, 512)), 7_876_419),
        (lambda: DualEncoderSpatialASLNet(6), 5_066_084),
        (lambda: SmallCNN(6), 22_210),
    ],
)
def test_networks_have_the_published_size(network: Callable[[], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert count(network()) == parameters


def test_matched_control_has_the_capacity_of_the_amplitude_aware_network() -> None:
    assert count(MatchedUNet(6)) == pytest.approx(2_038_307, rel=0.005)


@every_architecture
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (17, 8)])
def test_every_image_size_gives_maps_of_the_same_size(options: Options, size: tuple[int, int]) -> None:
    x, noise, *_ = brain(2, size)
    prediction = model(options)(x, noise)
    assert isinstance(prediction, Prediction)
    assert [tuple(maps.shape) for maps in prediction] == [(2, 1, *size)] * 4
    assert all(maps.isfinite().all() for maps in prediction)


@every_architecture
def test_noise_may_differ_between_voxels(options: Options) -> None:
    x, noise, *_ = brain()
    whole, per_voxel = (model(options)(x, level) for level in (noise, noise.expand(2, 1, 12, 12)))
    for one, other in zip(whole, per_voxel, strict=True):
        assert one.equal(other)


@every_architecture
def test_half_precision_inside_does_not_round_the_maps(options: Options) -> None:
    x, noise, *_ = brain()
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(options)(x, noise)
    assert {maps.dtype for maps in prediction} == {torch.float32}


@every_architecture
def test_an_empty_image_is_no_reason_for_nan(options: Options) -> None:
    for level in (0.0, 1e-4):
        prediction = model(options)(torch.zeros(1, 12, 8, 8), torch.full((1, 1, 1, 1), level))
        assert all(maps.isfinite().all() for maps in prediction)


@every_architecture
def test_wrong_number_of_delays_is_refused(options: Options) -> None:
    with pytest.raises(DataError, match=re.escape("got shape (1, 10, 8, 8), allowed (batch, 12, height, width)")):
        model(options)(torch.zeros(1, 10, 8, 8), torch.zeros(1, 1, 1, 1))


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(DataError, match=r"got 3 x 9 pixels, allowed at least 4 x 4 for 3 levels"):
        SpatialASLNet(6, (8, 8, 8))(torch.zeros(1, 12, 3, 9))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("homogeneous", "least_squares_features"),
        ("spatial", "first_norm"),
        ("spatial", "hidden_sizes"),
        ("spatial", "normalisation"),
        ("amplitude_aware", "use_film_at_decoder"),
        ("dual_encoder", "constrained_outputs"),
    ],
)
def test_an_option_that_the_architecture_needs_may_not_be_null(name: str, key: str) -> None:
    with pytest.raises(ConfigError, match=f"model.{key}: got null, allowed a value with architecture {name}"):
        model(variant(EVERY[name], **{key: None}))


@every_architecture
def test_members_can_be_trained_stacked(options: Options) -> None:
    members = [perturb(model(options, seed)) for seed in (0, 1)]
    parameters, buffers = torch.func.stack_module_state(members)
    shell = copy.deepcopy(members[0]).to("meta")
    x, noise, *_ = brain()

    def forward(weights: dict[str, Tensor], statistics: dict[str, Tensor]) -> Prediction:
        result: Prediction = torch.func.functional_call(shell, (weights, statistics), (x, noise))
        return result

    stacked = torch.func.vmap(forward)(parameters, buffers)
    for k, member in enumerate(members):
        for maps, lone in zip(stacked, member(x, noise), strict=True):
            torch.testing.assert_close(maps[k], lone, rtol=1e-4, atol=1e-4 * lone.abs().max().item())


@pytest.mark.parametrize("name", WITH_VARIANCE)
def test_every_parameter_is_trained(name: str) -> None:
    network = perturb(model(variant(EVERY[name], learned_variance=True)))
    x, noise, cbf, att = brain()
    mask = torch.ones_like(cbf, dtype=torch.bool)
    terms = losses.negative_log_likelihood(network(x, noise), cbf, att, mask, PUBLISHED_STATISTICS)
    names, parameters = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(terms["cbf_nll"] + terms["att_nll"], parameters, allow_unused=True)
    untouched = [name for name, grad in zip(names, gradients, strict=True) if grad is None or not grad.any()]
    assert untouched == []


@pytest.mark.parametrize("name", WITH_VARIANCE)
def test_variances_are_constant_unless_learned(name: str) -> None:
    x, noise, *_ = brain()
    fixed = model(EVERY[name])(x, noise)
    learned = perturb(model(variant(EVERY[name], learned_variance=True)))(x, noise)
    assert (fixed.log_var_cbf == -5).all() and (fixed.log_var_att == -5).all()
    assert learned.log_var_cbf.std() > 0 and learned.log_var_att.std() > 0


def test_published_variance_heads_stay_in_their_range() -> None:
    network = SpatialASLNet(6, (8, 16), learned_variance=True)
    with torch.no_grad():
        for parameter in network.heads.parameters():
            parameter.mul_(1e4)
    extremes = network(torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0)))[:, 2:]
    assert extremes.min() == -5 and extremes.max() == 10


class Constant(nn.Module):
    """A network that always answers the same maps."""

    def __init__(self, *values: float) -> None:
        super().__init__()
        self.values = torch.tensor(values).reshape(1, 4, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.values.expand(x.shape[0], 4, *x.shape[2:])


def standardised(network: nn.Module, *, constrained_outputs: bool = False) -> StandardisedModel:
    return StandardisedModel(
        network,
        channels=12,
        normalisation="global_scale",
        statistics=PUBLISHED_STATISTICS,
        constrained_outputs=constrained_outputs,
    )


def test_z_scores_become_physical_units() -> None:
    prediction = standardised(Constant(1.0, -1.0, 2.0, 3.0))(torch.zeros(1, 12, 2, 2), torch.zeros(1, 1, 1, 1))
    means = [maps.mean().item() for maps in prediction]
    assert means == pytest.approx([60.0 + 23.09, 1750.0 - 721.7, 2.0, 3.0])


@pytest.mark.parametrize("extreme", [-50.0, 50.0])
def test_constrained_outputs_cannot_be_impossible(extreme: float) -> None:
    network = standardised(Constant(extreme, extreme, 0.0, 0.0), constrained_outputs=True)
    prediction = network(torch.zeros(1, 12, 2, 2), torch.zeros(1, 1, 1, 1))
    assert (prediction.cbf >= 0).all() and (prediction.att >= 0).all() and (prediction.att <= 5000).all()


def test_clamping_is_left_to_the_caller() -> None:
    network = standardised(Constant(-100.0, 100.0, 0.0, 0.0))
    prediction = network(torch.zeros(1, 12, 2, 2), torch.zeros(1, 1, 1, 1))
    assert (prediction.cbf < 0).all() and (prediction.att > 5000).all()
    assert (prediction.clamped().cbf == 0).all() and (prediction.clamped().att == 5000).all()


def test_a_checkpoint_holds_the_statistics() -> None:
    state = model(EVERY["spatial"]).state_dict()
    assert state["cbf_mean"] == 60.0
    assert state["att_std"].item() == pytest.approx(721.7)


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
