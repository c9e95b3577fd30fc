"""What the networks of the burgers study promise: size, persistence at the start, symmetries, gradients, refusals."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.studies.burgers.model import (
    Autoencoder,
    AutoencoderOptions,
    Corrector,
    CorrectorOptions,
    Forecaster,
    LatentOperator,
    OperatorOptions,
    fingerprint,
    matched_ffn_ratio,
    parameter_count,
)
from assay.studies.burgers.model.blocks import Block, drop_path
from assay.studies.burgers.model.operator import upsample

STACK = OperatorOptions(
    architecture="pdet_stack", tokens=8, latent_dim=6, hidden_dim=16, depth=(2,), heads=2, attention="standard"
)
UNET = replace(STACK, architecture="pdet_unet", depth=(1, 1, 1))
SEPARATED = {"attention": "channel_separated", "group_size": 4}
EVERY = {
    "stack": STACK,
    "U": UNET,
    "stack, separated, own weights": replace(STACK, **SEPARATED, shared_groups=False, qk_norm=True),
    "U, separated, rotary": replace(UNET, **SEPARATED, qk_norm=True, rotary=True),
    "stack, adaln, viscosity, rms": replace(STACK, conditioning="adaln", viscosity=True, norm="rms", qk_norm=True),
    "U, adaln, normed change": replace(UNET, conditioning="adaln", residual_norm=True),
    "stack as wide as its latent": replace(STACK, latent_dim=16),
}
FIELDS = AutoencoderOptions(cells=32, tokens=8, latent_dim=6, mean=0.1, std=0.6, position_frequencies=(1, 2))
CORRECTOR = CorrectorOptions(
    cells=32, tokens=8, hidden_dim=16, depth=2, heads=2, attention="standard", mean=0.1, std=0.6
)

T = TypeVar("T", bound=nn.Module)

every_operator = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY.keys())


def made(kind: Callable[[Any], T], options: Any, *, moved: bool = False) -> T:
    """A network from a fixed seed; `moved` off its initial values, so that paths that start at zero count."""
    torch.manual_seed(0)
    network = kind(options)
    if moved:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def inputs(options: OperatorOptions, batch: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(batch, options.tokens, options.latent_dim, generator=rng)
    return z, 0.01 + 0.05 * torch.rand(batch, generator=rng), 0.01 * (1 + torch.rand(batch, generator=rng))


def published(architecture: str, sizes: tuple[int, int, int], depth: tuple[int, ...], heads: int, group: int | None):
    tokens, latent, hidden = sizes
    return OperatorOptions(
        architecture=architecture, tokens=tokens, latent_dim=latent, hidden_dim=hidden, depth=depth, heads=heads,
        attention="channel_separated" if group else "standard", group_size=group, qk_norm=True,
        ffn_ratio=2 if architecture == "pdet_unet" else 4,
    )  # fmt: skip


PUBLISHED = [
    (published("pdet_unet", (32, 16, 96), (1, 1, 1), 6, 12), 38_184, 232_152),
    (published("pdet_unet", (64, 64, 128), (2, 2, 2), 4, 16), 67_552, 766_976),
    (published("pdet_unet", (128, 128, 256), (3, 3, 2), 8, 32), 268_224, 4_118_272),
    (published("pdet_unet", (256, 256, 512), (3, 3, 3), 8, 32), 1_056_448, 17_293_888),
    (published("pdet_stack", (128, 64, 192), (8,), 6, None), 444_928, 3_593_216),
    (published("pdet_stack", (128, 64, 192), (8,), 6, 24), 299_088, 2_426_496),
    (published("pdet_stack", (256, 192, 384), (8,), 6, None), 1_774_592, 14_420_416),
    (published("pdet_stack", (128, 128, 256), (8,), 8, None), 789_824, 6_418_560),
    (published("pdet_stack", (128, 128, 256), (8,), 8, 32), 530_880, 4_347_008),
    (published("pdet_stack", (256, 256, 512), (9,), 8, None), 3_152_512, 28_769_152),
]


@pytest.mark.parametrize(("options", "per_block", "total"), PUBLISHED)
def test_operators_have_the_published_number_of_parameters(options, per_block, total):
    with torch.device("meta"):
        assert parameter_count(Block(options, options.tokens, 0.0)) == per_block
        assert parameter_count(LatentOperator(options)) == total


def test_the_query_decoder_has_the_published_size_less_the_inputs_that_a_circle_does_not_need():
    options = replace(FIELDS, cells=1024, tokens=128, latent_dim=128, decoder="query")
    with torch.device("meta"):
        decoder = Autoencoder(options).decoder
    assert parameter_count(decoder) == 1_291_265 - 10 * 256


@pytest.mark.parametrize(
    "options", [UNET, replace(STACK, **SEPARATED), replace(UNET, **SEPARATED, shared_groups=False)]
)
def test_any_arm_can_be_given_the_parameters_of_another(options):
    options, wide = replace(options, hidden_dim=32), replace(STACK, hidden_dim=32, depth=(4,))
    wanted = parameter_count(LatentOperator(wide))
    matched = replace(options, ffn_ratio=matched_ffn_ratio(options, wanted))
    assert abs(parameter_count(LatentOperator(matched)) / wanted - 1) < 0.01


@every_operator
def test_an_untrained_operator_is_persistence(options):
    z, dt, nu = inputs(options)
    assert torch.equal(made(LatentOperator, options)(z, dt, nu), z)


@every_operator
def test_every_tensor_of_an_operator_gets_a_gradient(options):
    operator = made(LatentOperator, options, moved=True)
    z, dt, nu = inputs(options)
    (operator(z, dt, nu) - torch.randn_like(z)).square().mean().backward()
    assert idle(operator) == []


def idle(network: nn.Module) -> list[str]:
    """Names of the trained tensors without a gradient."""
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_first_step_of_training_moves_the_gain_and_the_second_everything():
    operator = made(LatentOperator, STACK)
    z, dt, _ = inputs(STACK)
    optimizer = torch.optim.SGD(operator.parameters(), lr=0.1)
    for expected in (lambda names: "gain" not in names, lambda names: names == []):
        optimizer.zero_grad()
        (operator(z, dt) - 2 * z).square().mean().backward()
        assert expected(idle(operator))
        optimizer.step()


@every_operator
def test_the_time_step_changes_the_prediction(options):
    operator = made(LatentOperator, options, moved=True)
    z, dt, nu = inputs(options)
    assert not torch.allclose(operator(z, dt, nu), operator(z, 2 * dt, nu), atol=1e-4)


def test_the_viscosity_changes_the_prediction_where_it_is_an_input():
    options = EVERY["stack, adaln, viscosity, rms"]
    operator = made(LatentOperator, options, moved=True)
    z, dt, nu = inputs(options)
    assert not torch.allclose(operator(z, dt, nu), operator(z, dt, 10 * nu), atol=1e-4)
    with pytest.raises(ConfigError, match=r"viscosity: got true, but no viscosity to step with; .* give nu"):
        operator(z, dt)


@given(shift=st.integers(1, 7))
@settings(max_examples=7, deadline=None)
@pytest.mark.parametrize("name", ["stack", "U, separated, rotary", "stack rotary"])
def test_shifting_the_tokens_shifts_the_prediction(name, shift):
    """By any number of tokens; in the U by whole tokens of its lowest level."""
    options = EVERY[name] if name in EVERY else replace(STACK, rotary=True)
    operator = made(LatentOperator, options, moved=True)
    z, dt, _ = inputs(options)
    by = shift if options.architecture == "pdet_stack" else 4 * shift
    assert torch.allclose(operator(z.roll(by, 1), dt), operator(z, dt).roll(by, 1), atol=1e-5)


def test_rotary_attention_knows_distance_and_plain_attention_does_not():
    z, dt, _ = inputs(STACK)
    swapped = z[:, [0, 2, 1, *range(3, 8)]]
    for rotary in (False, True):
        operator = made(LatentOperator, replace(STACK, rotary=rotary), moved=True)
        assert torch.allclose(operator(z, dt)[:, 5], operator(swapped, dt)[:, 5], atol=1e-6) is not rotary


def test_masked_tokens_influence_no_other():
    operator = made(LatentOperator, STACK, moved=True)
    z, dt, _ = inputs(STACK)
    mask = torch.ones(z.shape[:2], dtype=torch.bool)
    mask[:, 5:] = False
    other = torch.cat([z[:, :5], torch.randn_like(z[:, 5:])], dim=1)
    assert torch.allclose(operator(z, dt, None, mask)[:, :5], operator(other, dt, None, mask)[:, :5], atol=1e-6)
    assert not torch.allclose(operator(z, dt)[:, :5], operator(other, dt)[:, :5], atol=1e-3)


def test_the_u_refuses_a_mask():
    z, dt, _ = inputs(UNET)
    with pytest.raises(ConfigError, match=r"mask: got one with pdet_unet, which pools tokens; .* use pdet_stack"):
        made(LatentOperator, UNET)(z, dt, None, torch.ones(z.shape[:2], dtype=torch.bool))


def test_the_u_takes_odd_numbers_of_tokens():
    options = replace(UNET, tokens=7)
    z, dt, _ = inputs(options)
    assert made(LatentOperator, options, moved=True)(z, dt).shape == z.shape


def test_upsampling_is_linear_interpolation_at_half_pixel_centres():
    x = torch.randn(2, 5, 3)
    inner = nn.functional.interpolate(x.transpose(1, 2), scale_factor=2, mode="linear").transpose(1, 2)
    assert torch.allclose(upsample(x, 10)[:, 1:-1], inner[:, 1:-1], atol=1e-6)
    assert torch.allclose(upsample(x, 10)[:, 0], 0.75 * x[:, 0] + 0.25 * x[:, -1])


def test_drop_path_leaves_out_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(4000, 3, 2), 0.25, training=True)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert (dropped == dropped[:, :1, :1]).all()
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.04)
    assert torch.equal(drop_path(torch.ones(5, 2), 0.25, training=False), torch.ones(5, 2))


def test_stochastic_depth_rises_linearly_over_the_blocks():
    operator = made(LatentOperator, replace(STACK, depth=(5,), drop_path=0.2))
    assert [block.drop for block in operator.core.blocks] == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("latent_norm", [True, False])
@pytest.mark.parametrize("decoder", ["patch", "query"])
def test_every_tensor_of_an_autoencoder_gets_a_gradient(decoder, latent_norm):
    network = made(Autoencoder, replace(FIELDS, decoder=decoder, latent_norm=latent_norm), moved=True)
    u = torch.randn(3, 32)
    (network(u) - u).square().mean().backward()
    assert idle(network) == []


def test_without_positions_shifting_the_field_by_a_token_shifts_the_whole_prediction():
    options = replace(FIELDS, position_frequencies=())
    network = forecaster(options, STACK)
    u, dt = torch.randn(2, 32), torch.full((2,), 0.02)
    shifted = network(u.roll(4, -1), dt, None, 3).fields
    assert torch.allclose(shifted, network(u, dt, None, 3).fields.roll(4, -1), atol=1e-5)


def test_with_positions_it_does_not():
    network = made(Autoencoder, FIELDS, moved=True)
    u = torch.randn(2, 32)
    assert not torch.allclose(network(u.roll(4, -1)), network(u).roll(4, -1), atol=1e-2)


def test_a_query_decoder_answers_at_any_point_and_closes_the_circle():
    network = made(Autoencoder, replace(FIELDS, decoder="query"), moved=True)
    z = network.encode(torch.randn(2, 32))
    values = network.decoder(z, torch.tensor([0.0, 0.3, 1.0]))
    assert values.shape == (2, 3)
    assert torch.allclose(values[:, 0], values[:, 2], atol=1e-5)
    centres = (torch.arange(32) + 0.5) / 32
    assert torch.allclose(network.decoder(z), network.decoder(z, centres))


@pytest.mark.parametrize("decoder", ["patch", "query"])
def test_an_autoencoder_learns_to_reconstruct(decoder):
    network = made(
        Autoencoder, replace(FIELDS, decoder=decoder, decoder_hidden_dim=32, decoder_layers=1, latent_dim=16)
    ).train()
    x = (torch.arange(32) + 0.5) / 32
    u = torch.sin(2 * torch.pi * (x * torch.tensor([[1.0], [2.0]]) + torch.rand(64, 2, 1))).sum(1) + 0.3
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss = (network(u) - u).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach().sqrt()) < 0.1 * float(u.std())


def test_a_saved_autoencoder_comes_back_with_its_fingerprint_and_another_draw_has_another():
    first = made(Autoencoder, FIELDS)
    torch.manual_seed(1)
    second = Autoencoder(replace(FIELDS, mean=0.0))
    assert fingerprint(first) != fingerprint(second)
    second.load_state_dict(first.state_dict())
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize("rollout", ["field", "latent"])
def test_a_forecast_is_the_operator_applied_again_and_again(rollout):
    network = forecaster(FIELDS, STACK, rollout=rollout)
    u, dt = torch.randn(2, 32), torch.full((2,), 0.02)
    forecast = network(u, dt, None, 3)
    z = network.autoencoder.encode(u)
    for frame in range(4):
        field = network.autoencoder.decode(z)
        assert torch.allclose(forecast.latents[:, frame], z, atol=1e-5)
        assert torch.allclose(forecast.fields[:, frame], field, atol=1e-5)
        begin = network.autoencoder.encode(field) if frame and rollout == "field" else z
        z = network.operator(begin, dt)


@pytest.mark.parametrize("rollout", ["field", "latent"])
def test_mass_is_conserved_where_asked_and_only_there(rollout):
    u, dt = torch.randn(2, 32), torch.full((2,), 0.02)
    for conserved in (True, False):
        fields = forecaster(FIELDS, STACK, rollout=rollout, conserve_mass=conserved)(u, dt, None, 3).fields
        drift = (fields.mean(-1) - u.mean(-1, keepdim=True)).abs().max()
        assert (drift < 1e-6) == conserved


def forecaster(fields: AutoencoderOptions, operator: OperatorOptions, **options: Any) -> Forecaster:
    return made(lambda _: Forecaster(Autoencoder(fields), LatentOperator(operator), **options), None, moved=True)


@pytest.mark.parametrize("rollout", ["field", "latent"])
def test_short_formats_round_the_change_and_not_the_field(rollout):
    network = forecaster(FIELDS, STACK, rollout=rollout, conserve_mass=False).eval()
    u, dt = torch.randn(3, 32), torch.full((3,), 0.02)
    with torch.autocast("cpu", torch.bfloat16):
        short = network(u, dt, None, 3).fields
    exact = network(u, dt, None, 3).fields
    assert short.dtype == torch.float32 and torch.equal(short[:, 0], exact[:, 0])
    assert not torch.equal(short[:, 1:], exact[:, 1:])  # the operator does compute in the short format
    with torch.no_grad():
        network.operator.gain.zero_(), network.operator.bias.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        short = network(u, dt, None, 3).fields
    assert torch.equal(short, network(u, dt, None, 3).fields)  # no change: nothing is rounded, however many steps


def test_every_tensor_of_a_forecaster_gets_a_gradient_from_its_error_in_fields():
    network = forecaster(FIELDS, UNET)
    u, dt = torch.randn(2, 32), torch.full((2,), 0.02)
    (network(u, dt, None, 2).fields[:, 1:] - u[:, None]).square().mean().backward()
    assert idle(network) == []


def test_a_corrector_starts_at_zero_and_mixes_tokens():
    x, s, predicted, start = torch.randn(2, 32), torch.rand(2), torch.randn(2, 32), torch.randn(2, 32)
    assert not made(Corrector, CORRECTOR)(x, s, predicted, start).any()
    moved = made(Corrector, CORRECTOR, moved=True)
    base = moved(x, s, predicted, start)
    for changed in (
        (x + far(), s, predicted, start),
        (x, s, predicted + far(), start),
        (x, s, predicted, start + far()),
    ):
        assert not torch.allclose(moved(*changed)[:, 16:], base[:, 16:], atol=1e-4)
    assert not torch.allclose(moved(x, s / 2, predicted, start), base, atol=1e-4)


def far() -> Tensor:
    """A change of the first four cells alone."""
    return torch.cat([torch.ones(4), torch.zeros(28)])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (LatentOperator, replace(STACK, heads=3), "heads: got 3; allowed: divisors of hidden_dim 16 (1, 2, 4, 8, 16)"),
        (LatentOperator, replace(STACK, attention="channel_separated"), "group_size: got null; allowed: a divisor"),
        (LatentOperator, replace(STACK, **SEPARATED, hidden_dim=18), "group_size: got 4; allowed: divisors of hidden"),
        (
            LatentOperator,
            replace(STACK, **{**SEPARATED, "heads": 3}),
            "heads: got 3; allowed: divisors of group_size 4",
        ),
        (
            LatentOperator,
            replace(STACK, heads=16, rotary=True),
            "heads: got heads of 1 channels with rotary; allowed: an even number",
        ),
        (LatentOperator, replace(STACK, depth=(2, 2)), "depth: got [2, 2]; allowed: one number with pdet_stack"),
        (LatentOperator, replace(STACK, drop_path=1.0), "drop_path: got 1; allowed: >= 0, < 1"),
        (LatentOperator, replace(UNET, tokens=3), "tokens: got 3; allowed: at least 4 with 3 levels of depth"),
        (Autoencoder, replace(FIELDS, tokens=12), "tokens: got 12; allowed: divisors of cells 32 (1, 2, 4, 8, 16, 32)"),
        (Autoencoder, replace(FIELDS, decoder="query", tokens=12), "tokens: got 12; allowed: divisors of cells 32"),
        (Autoencoder, replace(FIELDS, decoder="query", decoder_heads=3), "decoder_heads: got 3; allowed: divisors of"),
        (Corrector, replace(CORRECTOR, tokens=5), "tokens: got 5; allowed: divisors of cells 32"),
        (Corrector, replace(CORRECTOR, heads=5), "heads: got 5; allowed: divisors of hidden_dim 16"),
    ],
)
def test_counts_that_do_not_fit_are_refused_in_words(kind, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        kind(options)


def test_a_parameter_count_that_cannot_be_reached_is_refused():
    with pytest.raises(ConfigError, match=r"parameters: got 10; allowed: at least \d+ with these options"):
        matched_ffn_ratio(STACK, 10)
