"""What the latent operators promise: size, persistence at the start, symmetries, masks, gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.studies.burgers.networks import SEPARATED, STACK, UNET, idle, made
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.studies.burgers.model import LatentOperator, OperatorOptions, matched_ffn_ratio, parameter_count
from assay.studies.burgers.model.blocks import Block, drop_path
from assay.studies.burgers.model.operator import upsample

EVERY = {
    "stack": STACK,
    "U": UNET,
    "stack, separated, own weights": replace(STACK, **SEPARATED, shared_groups=False, qk_norm=True),
    "U, separated, rotary": replace(UNET, **SEPARATED, qk_norm=True, rotary=True),
    "stack, adaln, viscosity, rms": replace(STACK, conditioning="adaln", viscosity=True, norm="rms", qk_norm=True),
    "U, adaln, normed change": replace(UNET, conditioning="adaln", residual_norm=True),
    "stack as wide as its latent": replace(STACK, latent_dim=16),
}

every_operator = pytest.mark.parametrize("options", EVERY.values(), ids=EVERY.keys())


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


def test_a_parameter_count_that_cannot_be_reached_is_refused():
    with pytest.raises(ConfigError, match=r"parameters: got 10; allowed: at least \d+ with these options"):
        matched_ffn_ratio(STACK, 10)
