"""The stage corrector: which errors it learns from, what it is judged by, what it leaves behind and refuses."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.studies.burgers.conftest import PARAMS, TINY
from torch import Tensor

from assay.config import load as load_params
from assay.engine.random import generator
from assay.errors import CheckpointError
from assay.studies.burgers import autoencoder, corrector, networks, operator, simulate
from assay.studies.burgers.config import Params
from assay.studies.burgers.corrector import CorrectorTask
from assay.studies.burgers.diffusion import flow_loss
from assay.studies.burgers.model import fingerprint
from assay.studies.burgers.predictors import error_unit

CPU = torch.device("cpu")


def load(stage: networks.Stage) -> networks.Loaded:
    return networks.load(networks.model_path(stage), stage, CPU)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with data and a trained operator."""
    folder, params = tmp_path_factory.mktemp("made"), load_params(Params, PARAMS, TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (simulate, autoencoder, operator):
            stage.run(params)
    return folder


@pytest.fixture
def prepared(made, make_params, tmp_path):
    """Data and a trained operator in this folder; a function that gives parameters."""
    for name in ("data", "results"):
        shutil.copytree(made / name, tmp_path / name)
    return make_params


@pytest.fixture
def make_task(prepared):
    def make(*overrides: str) -> CorrectorTask:
        params = prepared(*overrides)
        return CorrectorTask(params, networks.open_data(params), load("operator"), CPU)

    return make


def test_it_learns_from_the_errors_of_the_frozen_operator(make_task):
    task = make_task()
    before = fingerprint(load("operator").module)
    errors, windows = next(task.batches(3)), task.pairs.training
    pairs = next(windows.batches(task.params.seed, 3, 4, task.params.augmentation))
    assert torch.equal(errors.start, pairs.fields[:, 0]) and torch.equal(errors.truth, pairs.fields[:, 1])
    by_operator = load("operator").module(pairs.fields[:, 0], pairs.dt, pairs.nu, 1).fields[:, 1]
    torch.testing.assert_close(errors.predicted, by_operator)
    assert not errors.predicted.requires_grad

    task.loss(task.build(), errors, generator("loss"))["flow"].backward()
    assert fingerprint(task.pairs.operator.module) == before
    assert all(parameter.grad is None for parameter in task.pairs.operator.module.parameters())


def test_predictions_are_made_in_full_precision_whatever_trains(make_task):
    task = make_task()
    exact = next(task.batches(0)).predicted
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(next(task.batches(0)).predicted, exact)


def test_errors_are_scaled_to_be_of_order_one(make_task):
    task = make_task()
    all_pairs = task.pairs.training.window(torch.arange(task.pairs.training.numbers))
    errors = corrector.one_step_errors(load("operator"), all_pairs, task.facts)
    assert float(errors.residual.square().mean()) == pytest.approx(1.0, rel=1e-4)  # there are few: all are looked at
    assert task.facts["mean"] == load("operator").facts["mean"]


def test_every_error_is_measured_against_the_change_that_is_predicted(make_task):
    """A smooth field that hardly moves and a steepening one count alike; and what moves not at all has a unit, too."""
    predicted, still = torch.randn(3, 32, generator=generator("change")), torch.zeros(3, 32)
    facts = make_task().facts
    units = [error_unit(factor * predicted, still, facts) for factor in (1.0, 0.1, 0.0)]
    torch.testing.assert_close(units[1], 0.1 * units[0], rtol=0.05, atol=0.0)
    assert units[0].shape == (3, 1) and float(units[2].min()) > 0


def test_batches_and_losses_are_functions_of_seed_and_cursor(make_task):
    task, again, other = make_task(), make_task(), make_task("seed=1")
    one, same, different = (next(each.batches(2)) for each in (task, again, other))
    assert torch.equal(one.start, same.start) and not torch.equal(one.start, different.start)
    model = task.build()
    losses = [task.loss(model, one, generator("loss", n))["flow"].item() for n in (0, 0, 1)]
    assert losses[0] == losses[1] != losses[2]


def test_validation_repeats_itself_and_knows_the_better_network(make_task):
    task = make_task()
    model = task.build()
    first, second = task.evaluate(model).metrics["flow"], task.evaluate(model).metrics["flow"]
    assert first == second
    residual = task.pairs.held_out.residual
    assert first == pytest.approx(1 + float(residual.square().mean()), rel=0.1)  # the zero map

    def knowing(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
        return (residual - x) / (1 - s).clamp_min(1e-3)[:, None]

    assert task.evaluate(knowing).metrics["flow"] < 0.01 * first


def test_the_stage_leaves_a_corrector_and_says_what_it_is_worth(prepared):
    params = prepared()
    corrector.run(params)
    found = json.loads(Path("results/corrector/metrics.json").read_text())
    assert found["steps"] == 4 and found["validation_flow"] <= found["validation_flow_of_zero"] * 1.001
    assert all(found[f"validation_nrmse_{name}"] > 0 for name in ("operator", "drawn", "mean"))
    assert load("corrector").facts["scale"] > 0
    assert load("corrector").params.corrector == params.corrector


def test_a_longer_training_beats_the_zero_map(prepared):
    corrector.run(prepared("corrector.train.steps=60", "corrector.train.validate_every=20"))
    found = json.loads(Path("results/corrector/metrics.json").read_text())
    assert found["validation_flow"] < 0.9 * found["validation_flow_of_zero"]


def test_another_operator_makes_another_run(prepared, capsys):
    """With the same parameters: the operator's weights are part of what a checkpoint belongs to."""
    params = prepared()
    corrector.run(params)
    corrector.run(params)
    assert "goes on from step 4" in capsys.readouterr().err
    operator.run(prepared("train.steps=2"))
    corrector.run(params)
    assert "goes on" not in capsys.readouterr().err


def test_nothing_to_correct_is_refused(prepared):
    params = prepared()
    networks.model_path("operator").unlink()
    with pytest.raises(CheckpointError, match=r"results/operator/model.safetensors: no such file.*run assay stage"):
        corrector.run(params)


def test_an_operator_of_other_steps_is_refused(prepared):
    params = prepared()
    other = dataclasses.replace(params, data=dataclasses.replace(params.data, stride=1))
    with pytest.raises(CheckpointError, match=r"trained with data.stride 2, not 1; run the stage before again"):
        corrector.run(other)


def test_an_operator_of_other_data_is_refused(prepared):
    """More test rows take them from the training rows: the operator would be judged on what it has learnt."""
    params = prepared("data.test=6")
    simulate.run(params)
    with pytest.raises(CheckpointError, match=r"operator/model.safetensors: trained with data \w{12}, not \w{12},"):
        corrector.run(params)


def test_the_loss_is_the_one_of_the_chosen_noise_times(make_task):
    task = make_task("corrector.noise_times=uniform")
    errors, model = next(task.batches(0)), task.build()
    wanted = flow_loss(model, errors, generator("loss"), "uniform")
    assert torch.equal(task.loss(model, errors, generator("loss"))["flow"], wanted)
    assert not torch.equal(flow_loss(model, errors, generator("loss"), "logit_normal"), wanted)
