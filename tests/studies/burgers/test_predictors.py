"""What a predictor promises: it begins with what it is given, feeds back what it says, and keeps what it must."""

import dataclasses

import pytest
import torch
from torch import Tensor

from assay.engine.random import generator
from assay.studies.burgers import networks, predictors
from assay.studies.burgers.diffusion import integrate
from assay.studies.burgers.model import fingerprint
from assay.studies.burgers.networks import Loaded

NU, STEPS, ROWS = 0.01, 3, 5
FACTS = {"mean": 0.1, "std": 0.5, "scale": 0.05}


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """The network with weights that are nowhere zero, so that it does something."""
    rng = generator("shaken")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    return module.eval()


@pytest.fixture
def load(make_params):
    """A function that gives an untrained but active network of a stage."""

    def make(stage: networks.Stage, *overrides: str) -> Loaded:
        params = make_params(*overrides)
        torch.manual_seed(0)
        return Loaded(stage, shaken(networks.build(stage, params, FACTS)), params, FACTS, "digest", {})

    return make


def start() -> Tensor:
    return torch.randn(ROWS, 32, generator=generator("start"))


@pytest.mark.parametrize("stage", ["operator", "fno"])
def test_frame_zero_is_the_given_field_and_batches_change_nothing(load, stage):
    loaded = load(stage)
    predict = getattr(predictors, stage)
    whole, parts = (predict(loaded, size)(start(), NU, STEPS) for size in (ROWS, 2))
    assert whole.shape == (ROWS, STEPS + 1, 32) and not whole.requires_grad
    assert torch.equal(whole[:, 0], start())
    torch.testing.assert_close(whole, parts)


@pytest.mark.parametrize("stage", ["operator", "fno"])
def test_a_rollout_goes_on_from_its_own_last_field(load, stage):
    predict = getattr(predictors, stage)(load(stage), ROWS)
    whole = predict(start(), NU, 2)
    first = predict(start(), NU, 1)
    torch.testing.assert_close(whole[:, 1], first[:, 1])
    torch.testing.assert_close(whole[:, 2], predict(first[:, 1], NU, 1)[:, 1])
    assert not torch.allclose(whole[:, 2], whole[:, 1])


@pytest.mark.parametrize("stage", ["operator", "fno"])
def test_the_step_is_the_one_the_network_was_trained_for(load, stage):
    loaded = load(stage)
    data = dataclasses.replace(loaded.params.data, stride=1)
    shorter = loaded._replace(params=dataclasses.replace(loaded.params, data=data))
    one, other = (predictors.one_step(each, ROWS)(start(), NU) for each in (loaded, shorter))
    assert not torch.allclose(one, other)


@pytest.mark.parametrize("stage", ["operator", "fno"])
def test_a_network_with_viscosity_is_told_it(load, stage):
    step = predictors.one_step(load(stage, "data.viscosities=[0.01,0.1]", "model.viscosity=true"), ROWS)
    assert not torch.allclose(step(start(), 0.01), step(start(), 0.1))


ENSEMBLES = {"corrected": "corrector", "distilled": "distillation"}


@pytest.fixture(params=ENSEMBLES)
def ensemble(request, load):
    """A function that gives an ensemble of 2 members, by overrides of the parameters and a batch size."""

    def make(*overrides: str, batch_size: int = 64) -> predictors.Ensemble:
        base, corrector = load("operator", *overrides), load(ENSEMBLES[request.param], *overrides)
        return getattr(predictors, request.param)(base, corrector, base.params.corrector, batch_size)

    return make


def test_members_start_together_and_part(ensemble):
    fields = ensemble()(start(), NU, STEPS, generator("noise"))
    assert fields.shape == (2, ROWS, STEPS + 1, 32)
    assert torch.equal(fields[:, :, 0], start().expand(2, -1, -1))
    assert not torch.allclose(fields[0, :, 1], fields[1, :, 1])


def test_the_noise_decides_and_the_batch_size_does_not(ensemble):
    one, again = (ensemble(batch_size=size)(start(), NU, STEPS, generator("noise")) for size in (64, 3))
    torch.testing.assert_close(one, again)
    assert not torch.allclose(one, ensemble()(start(), NU, STEPS, generator("other noise")))


def test_a_member_feeds_back_its_own_corrected_field(ensemble):
    """The second step equals the first step from where the first ended, with the noise that came second."""
    predict, rng = ensemble(), generator("noise")
    whole = predict(start(), NU, 2, generator("noise"))
    first = predict(start(), NU, 1, rng)
    for member in (0, 1):
        later = predict(first[member, :, 1], NU, 1, _copy(rng))
        torch.testing.assert_close(later[member, :, 1], whole[member, :, 2])


def _copy(rng: torch.Generator) -> torch.Generator:
    copied = torch.Generator()
    copied.set_state(rng.get_state())
    return copied


@pytest.mark.parametrize("conserve", [True, False])
def test_mass_is_kept_where_the_operator_keeps_it(ensemble, conserve):
    fields = ensemble(f"model.conserve_mass={str(conserve).lower()}")(start(), NU, STEPS, generator("noise"))
    drift = (fields.mean(-1) - start().mean(-1)[:, None]).abs().max()
    assert (float(drift) < 1e-6) is conserve


def test_drawn_errors_are_in_the_fields_unit(load):
    """In units of the predicted change, and of how large errors were relative to it in training."""
    network = load("corrector")
    config, noise = network.params.corrector, torch.randn(ROWS, 32, generator=generator("noise"))
    predicted = start().roll(1, dims=-1)
    facts = [network.facts | {"scale": scale} for scale in (0.05, 0.1)]
    draws = [predictors.flow(network.module, each, config, 64)(noise, predicted, start()) for each in facts]
    torch.testing.assert_close(2 * draws[0], draws[1])
    rms = (predicted - start()).square().mean(-1, keepdim=True).sqrt()
    network_alone = integrate(network.module, noise, predicted, start(), steps=2, method="heun")
    torch.testing.assert_close(draws[0], 0.05 * rms * network_alone, rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("stage", ["operator", "fno", "corrector", "distillation"])
def test_the_null_is_the_same_network_with_fresh_weights(load, stage):
    loaded = load(stage)
    state = torch.random.get_rng_state()
    null, again, other = (predictors.untrained(loaded, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    shapes, same = ([(n, p.shape) for n, p in each.module.named_parameters()] for each in (loaded, null))
    assert shapes == same and null.facts == loaded.facts
    assert len({fingerprint(each.module) for each in (loaded, null, other)}) == 3
    assert fingerprint(null.module) == fingerprint(again.module)
    assert null.digest != loaded.digest
