"""What autoencoder, forecaster and corrector promise: gradients, symmetries, mass; and counts that fit no network."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.studies.burgers.networks import SEPARATED, STACK, UNET, idle, made
from torch import Tensor

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
    parameter_count,
)

FIELDS = AutoencoderOptions(cells=32, tokens=8, latent_dim=6, mean=0.1, std=0.6, position_frequencies=(1, 2))
CORRECTOR = CorrectorOptions(
    cells=32, tokens=8, hidden_dim=16, depth=2, heads=2, attention="standard", mean=0.1, std=0.6
)


def test_the_query_decoder_has_the_published_size_less_the_inputs_that_a_circle_does_not_need():
    options = replace(FIELDS, cells=1024, tokens=128, latent_dim=128, decoder="query")
    with torch.device("meta"):
        decoder = Autoencoder(options).decoder
    assert parameter_count(decoder) == 1_291_265 - 10 * 256


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
