"""What each network of the asl study promises: size, shapes, trained parameters, physical units, refusals."""

import copy
import re
from collections.abc import Callable

import pytest
import torch
from tests.studies.asl.networks import EVERY, Options, amplitude_aware, brain, model, perturb, variant
from torch import Tensor, nn

from assay.errors import ConfigError, DataError
from assay.studies.asl import losses
from assay.studies.asl.model import (
    PUBLISHED_STATISTICS,
    AmplitudeAwareSpatialASLNet,
    DualEncoderSpatialASLNet,
    MatchedUNet,
    Prediction,
    SmallCNN,
    SpatialASLNet,
    StandardisedModel,
)

WITH_VARIANCE = [name for name, options in EVERY.items() if options.learned_variance is not None]

every_architecture = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY.keys())


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


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
