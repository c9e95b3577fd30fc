"""The objective: each term is what it says and reaches what it is meant for."""

import pytest
import torch
from tests.studies.latents.conftest import PLAIN

from assay.engine.random import generator
from assay.studies.latents.task import LatentsTask

CPU = torch.device("cpu")
ALL_TERMS = [
    "loss.encoder_l1=0.1",
    "loss.evolver_l1=0.1",
    "loss.decoder_l1=0.1",
    "loss.total_variation=0.1",
    "loss.unconnected_weight=0.1",
    "loss.unconnected_neurons=3",
]
PARTS = ("encoder", "evolver", "decoder", "stimulus_encoder")


@pytest.fixture
def make_task(with_data, recording):
    def make(*overrides: str) -> LatentsTask:
        return LatentsTask(with_data(*overrides), recording, CPU)

    return make


def network(task: LatentsTask) -> torch.nn.Module:
    torch.manual_seed(0)
    return task.build()


def terms(task, module, cursor=0):
    return task.loss(module, next(task.batches(cursor)), generator(0, "loss"))


def reached(term, module) -> set[str]:
    found = set()
    for part in PARTS:
        parameters = list(getattr(module, part).parameters())
        gradients = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
        if any(gradient is not None and bool(gradient.any()) for gradient in gradients):
            found.add(part)
    return found


def test_every_term_reaches_the_parts_it_is_meant_for(make_task):
    task = make_task("model.zero_init=false", *ALL_TERMS)
    module = network(task)
    assert {name: reached(term, module) for name, term in terms(task, module).items()} == {
        "evolve": {"encoder", "evolver", "decoder", "stimulus_encoder"},
        "reconstruction": {"encoder", "decoder"},
        "encoder_l1": {"encoder"},
        "evolver_l1": {"evolver"},
        "decoder_l1": {"decoder"},
        "total_variation": {"encoder", "evolver", "stimulus_encoder"},
        "unconnected": {"encoder", "evolver", "decoder", "stimulus_encoder"},
    }


def test_terms_are_mean_squares_of_prediction_and_reconstruction(make_task):
    task = make_task()
    module, batch = network(task), next(task.batches(3))
    found = task.loss(module, batch, generator(0))
    forecast = module(batch.activity, batch.stimulus, (1,))
    torch.testing.assert_close(found["evolve"], (forecast.predictions[:, 0] - batch.targets[:, 0]).square().mean())
    torch.testing.assert_close(found["reconstruction"], (forecast.reconstruction - batch.activity).square().mean())
    assert set(found) == {"evolve", "reconstruction"} == set(task.weights)


def test_several_observations_ahead_are_summed(make_task):
    one, three = make_task(), make_task("sampling.evolve_multiple_steps=3")
    module = network(one)
    assert terms(three, module)["evolve"].item() > 2 * terms(one, module)["evolve"].item()


def test_a_warm_up_trains_encoder_and_decoder_alone(make_task):
    task = make_task("loss.reconstruction_warmup=1", "model.zero_init=false", *ALL_TERMS)
    module = network(task)
    warm, later = terms(task, module), terms(task, module, cursor=task.samples_per_epoch // 16 + 1)
    assert reached(warm["evolve"], module) == set() and warm["evolve"].item() == 0
    assert reached(warm["reconstruction"], module) == {"encoder", "decoder"}
    assert {name for name, term in warm.items() if term == 0} == {
        *("evolve", "evolver_l1", "total_variation", "unconnected")
    }
    assert reached(later["evolve"], module) == {"encoder", "evolver", "decoder", "stimulus_encoder"}


def test_silencing_what_is_not_heard_is_judged_on_the_neurons_drawn(make_task):
    """With everything connected nothing is silenced, and nothing may change."""
    task = make_task("model.zero_init=false", *ALL_TERMS[-2:])
    module = network(task)
    assert terms(task, module)["unconnected"].item() > 0
    task.connected = torch.ones_like(task.connected)
    assert terms(task, module)["unconnected"].item() == 0


def test_only_what_the_neurons_drawn_hear_is_left_to_them(make_task, recording):
    task = make_task("model.zero_init=false", *ALL_TERMS[-2:])
    module, batch = network(task), next(task.batches(0))
    drawn = torch.randint(task.neurons, (3,), generator=generator(0, "loss"))
    target, source = recording.connections
    heard = torch.zeros(task.neurons)
    heard[drawn] = 1
    heard[source[torch.isin(target, drawn)]] = 1
    every, some = (
        module(x, batch.stimulus, (1,)).predictions[:, 0, drawn] for x in (batch.activity, batch.activity * heard)
    )
    torch.testing.assert_close(terms(task, module)["unconnected"], (some - every).square().mean())


def test_a_neuron_is_connected_to_itself_and_to_what_it_hears(make_task, recording):
    known = make_task(*ALL_TERMS).connected
    target, source = recording.connections
    assert bool(known[target, source].all()) and bool(known.diagonal().all())
    assert 0.02 < float(known.float().mean()) < 0.1


def test_staggered_observations_count_once_each(make_task):
    task = make_task("sampling.time_units=4", "sampling.acquisition=staggered")
    module, batch = network(task), next(task.batches(0))
    forecast = module(batch.activity, batch.stimulus, (1, 2, 3, 4))
    error = (forecast.predictions - batch.targets).square()
    expected = error[batch.observed].mean()
    torch.testing.assert_close(task.loss(module, batch, generator(0))["evolve"], expected)


def test_an_outlier_weighs_less_with_huber(make_task):
    module = network(make_task())
    ratio = [terms(make_task(f"loss.kind={kind}"), module)["evolve"].item() for kind in ("mse", "huber")]
    assert ratio[1] < 0.6 * ratio[0]


@torch.no_grad()
def test_validation_is_the_mean_over_the_whole_range_whatever_the_batches(make_task, monkeypatch):
    task = make_task()
    module = network(task)
    whole = task.evaluate(module).metrics
    monkeypatch.setattr("assay.studies.latents.task.VALIDATION_ROWS", 33)
    assert task.evaluate(module).metrics == pytest.approx(whole, rel=1e-5)
    x, e = task.validation.activity, task.validation.stimulus
    found = module(x[:-1], e[:-1, None], (1,)).predictions[:, 0]
    assert whole["mse"] == pytest.approx(float((found - x[1:]).square().mean()), rel=1e-5)
    decoded = module.decode(module.encode(x[:-1]))
    assert whole["reconstruction_mse"] == pytest.approx(float((decoded - x[:-1]).square().mean()), rel=1e-5)


@torch.no_grad()
def test_validation_of_staggered_neurons_is_the_mean_over_what_was_observed(make_task):
    task = make_task("sampling.time_units=4", "sampling.acquisition=staggered")
    module, validation = network(task), task.validation
    batch = validation.batch(torch.arange(validation.numbers), torch.ones(()))
    error = (module(batch.activity, batch.stimulus, (1, 2, 3, 4)).predictions - batch.targets).square()
    expected = float(error[batch.observed].mean())
    assert task.evaluate(module).metrics["mse"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("overrides", [(), (f"model.autoencoder={PLAIN}", "model.batch_norm=true")])
def test_the_null_keeps_its_state(make_task, overrides):
    """An untrained evolver is zero, so prediction and reconstruction agree, whatever encodes."""
    task = make_task(*overrides)
    module = network(task).eval()
    batch = next(task.batches(0))
    forecast = module(batch.activity, batch.stimulus, (1,))
    torch.testing.assert_close(forecast.predictions[:, 0], forecast.reconstruction)
