"""The latent model: parameter counts of the published networks, what a step is, what starts as what."""

import pytest
import torch

from assay.config.load import build as build_config
from assay.engine.random import generator
from assay.studies.latents.model import LatentModel, build, parameter_count
from assay.studies.latents.model.networks import Plain, Skip, l1, network
from assay.studies.latents.sections import ModelConfig

NEURONS, CHANNELS = 13741, 1736


def mlp(kind: str = "plain", layers: int = 3, width: int = 256, activation: str = "relu") -> dict[str, object]:
    linear = {"hidden_dim": None, "activation": None}
    hidden = {"hidden_dim": width, "activation": activation}
    return {"kind": kind, "hidden_layers": layers, **(hidden if layers else linear)}


def config(**changes: object) -> ModelConfig:
    given = {
        "latent_dim": 256,
        "batch_norm": False,
        "autoencoder": mlp(),
        "evolver": mlp(),
        "zero_init": False,
        "stimulus": mlp(width=64),
        "stimulus_dim": None,
        "stimulus_state": None,
    }
    return build_config(ModelConfig, given | changes)


SKIP = {"autoencoder": mlp("skip", 1), "evolver": mlp("skip", 1), "stimulus": mlp("skip", 3, 64)}
SEEING = {"stimulus_dim": 64, "stimulus_state": False}
PUBLISHED = {
    "as reported": ({}, None, 7_707_309),
    "with batch norm": ({"batch_norm": True}, None, 7_711_917),
    "64 latent dimensions": ({"latent_dim": 64}, None, 7_510_317),
    "512 latent dimensions": ({"latent_dim": 512}, None, 7_969_965),
    "one latent dimension, linear evolver": ({"latent_dim": 1, "evolver": mlp(layers=0)}, None, 7_313_328),
    "stimulus in the state": ({"stimulus_dim": 64, "stimulus_state": True}, CHANNELS, 7_863_789),
    "stimulus as input": (SEEING, CHANNELS, 7_847_341),
    "skips everywhere": ({**SKIP, **SEEING}, CHANNELS, 19_090_861),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_networks_have_their_parameters(case):
    changes, channels, expected = PUBLISHED[case]
    with torch.device("meta"):
        assert parameter_count(build(config(**changes), NEURONS, channels)) == expected


def small(**changes: object) -> LatentModel:
    torch.manual_seed(0)
    tiny = {"latent_dim": 3, "autoencoder": mlp(width=5), "evolver": mlp(width=5), "stimulus": mlp(width=5)}
    return build(config(**tiny | changes), 7, 2 if changes.get("stimulus_dim") else None)


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator("model test", *shape))


def test_a_skip_network_is_its_definition():
    """Three layers with the projections of the input written out one by one."""
    torch.manual_seed(0)
    net = network(6, 4, kind="skip", hidden_layers=3, hidden_dim=5, activation="tanh")
    assert isinstance(net, Skip)
    u = x(8, 6)
    p1, p2, p3, out, w1 = (
        (u @ w.T + b) for w, b in zip(net.entry.weight.split(5), net.entry.bias.split(5), strict=True)
    )
    y = torch.tanh(w1 + p1 @ net.first.T)
    for layer, projection in zip(net.later, (p2, p3), strict=True):
        y = torch.tanh(torch.cat([y, projection], 1) @ layer.weight.T + layer.bias)
    torch.testing.assert_close(net(u), torch.cat([y, out], 1) @ net.last.weight.T + net.last.bias)


def test_weights_of_a_skip_network_start_as_those_of_its_layers_would():
    """The first layer sees input and projection, so its bound is 1 / sqrt(inputs + width)."""
    torch.manual_seed(0)
    net = network(60, 4, kind="skip", hidden_layers=1, hidden_dim=40, activation="relu")
    assert isinstance(net, Skip)
    assert float(net.first.detach().abs().max()) == pytest.approx(100**-0.5, rel=0.01)
    assert float(net.entry.weight.detach()[-40:].abs().max()) == pytest.approx(100**-0.5, rel=0.01)
    assert float(net.entry.weight.detach()[:-40].abs().max()) == pytest.approx(60**-0.5, rel=0.01)


def test_batch_norm_is_in_hidden_layers_of_plain_networks_only():
    model = small(batch_norm=True, stimulus_dim=2, stimulus_state=False)
    where = {name.split(".")[0] for name, part in model.named_modules() if isinstance(part, torch.nn.BatchNorm1d)}
    assert where == {"encoder", "evolver", "decoder"}
    assert isinstance(model.encoder, Plain) and model.encoder.norms is not None and len(model.encoder.norms) == 3


def test_a_step_adds_the_evolver_of_state_and_stimulus():
    smooth = mlp(width=5, activation="tanh")  # no unit is dead: the stimulus shows
    model = small(stimulus_dim=2, stimulus_state=False, stimulus=smooth, evolver=smooth)
    activity, stimulus = x(4, 7), x(4, 2, 2)
    forecast = model(activity, stimulus, (1, 2))
    z = model.encoder(activity)
    torch.testing.assert_close(forecast.reconstruction, model.decoder(z))
    for step in range(2):
        z = z + model.evolver(torch.cat([z, model.stimulus_encoder(stimulus[:, step])], 1))
        torch.testing.assert_close(forecast.predictions[:, step], model.decoder(z))


def test_with_the_stimulus_in_the_state_the_update_is_cut_to_the_latent_part():
    model = small(stimulus_dim=2, stimulus_state=True)
    z, stimulus = x(4, 3), x(4, 2)
    whole = model.evolver(torch.cat([z, model.stimulus_encoder(stimulus)], 1))
    assert whole.shape == (4, 5)
    torch.testing.assert_close(model.update(z, stimulus), whole[:, :3])


def test_an_evolver_that_starts_as_zero_keeps_the_state():
    kinds = (small(zero_init=True), small(zero_init=True, evolver=mlp("skip", 1, 5)))
    for model in kinds:
        forecast = model(x(4, 7), None, (1, 5))
        torch.testing.assert_close(forecast.predictions[:, 1], forecast.reconstruction)
        assert float(forecast.update.detach()) == 0
    moved = small()(x(4, 7), None, (1,))
    assert float(moved.update.detach()) > 0


def test_the_update_is_the_mean_absolute_change_of_a_step():
    model = small(zero_init=True)
    with torch.no_grad():
        model.evolver.last.bias.copy_(torch.tensor([1.0, -2.0, 3.0]))
    assert float(model(x(4, 7), None, (2,)).update.detach()) == 2


def test_with_batch_norm_every_call_of_the_decoder_has_statistics_of_its_own():
    model = small(batch_norm=True)
    forecast = model(x(4, 7), None, (1,))
    z = model.encode(x(4, 7))
    torch.testing.assert_close(forecast.reconstruction, model.decode(z))


def test_only_the_steps_asked_for_are_decoded():
    model = small()
    every, some = model(x(4, 7), None, (1, 2, 3)), model(x(4, 7), None, (1, 3))
    torch.testing.assert_close(some.predictions, every.predictions[:, [0, 2]])


def test_l1_counts_every_tensor_alike():
    model = small()
    assert float(l1(model.encoder).detach()) == pytest.approx(
        sum(float(p.detach().abs().mean()) for p in model.encoder.parameters())
    )
    forecast = model(x(4, 7), None, (1,), True)
    expected = [float(l1(part).detach()) for part in (model.encoder, model.evolver, model.decoder)]
    assert forecast.l1.tolist() == pytest.approx(expected)
