"""The stages that train encoder, operator and baseline: what they need, what they refuse, what they leave."""

import csv
import json
from pathlib import Path

import pytest
import torch

from assay.engine.checkpoint import write_tensors
from assay.engine.random import generator
from assay.errors import CheckpointError, ConfigError, DataError
from assay.studies.burgers import autoencoder, fno, networks, operator, simulate
from assay.studies.burgers.losses import field_error, spectral_error
from assay.studies.burgers.model import fingerprint
from assay.studies.burgers.operator import OperatorTask, gradient_norms, gradient_parts

CPU = torch.device("cpu")
ALL_TERMS = ["loss.spectral_weight=0.1", "loss.inverse_decoding_weight=0.1"]


def load(stage: networks.Stage) -> networks.Loaded:
    return networks.load(networks.model_path(stage), stage, CPU)


@pytest.fixture
def prepared(make_params):
    """Data and a trained autoencoder; a function that gives parameters."""
    params = make_params()
    simulate.run(params)
    autoencoder.run(params)
    return make_params


@pytest.fixture
def make_task(prepared):
    def make(*overrides: str) -> OperatorTask:
        params = prepared(*overrides)
        return OperatorTask(params, networks.open_data(params), load("autoencoder"), CPU)

    return make


def test_the_chain_leaves_networks_metrics_and_gradients(prepared):
    params = prepared(*ALL_TERMS)
    operator.run(params)
    fno.run(params)
    for stage, monitored in (("autoencoder", "nrmse"), ("operator", "one_step"), ("fno", "one_step")):
        found = json.loads(Path(f"results/{stage}/metrics.json").read_text())
        assert found["steps"] == 4 and found[f"validation_{monitored}"] > 0
        assert load(stage).params.train == params.train
    rows = list(csv.DictReader(Path("results/operator/gradients.csv").read_text().splitlines()))
    assert [row["term"] for row in rows] == ["one_step", "rollout", "spectral", "inverse_encoding", "inverse_decoding"]


def test_the_operator_starts_from_the_trained_autoencoder_as_persistence(make_task):
    task = make_task()
    module = task.build()
    assert fingerprint(module.autoencoder) == fingerprint(task.autoencoder.module)
    batch = next(task.batches(0))
    forecast = module(batch.fields[:, 0], batch.dt, batch.nu, 1)
    torch.testing.assert_close(forecast.fields[:, 1], forecast.fields[:, 0])


def test_a_frozen_autoencoder_stays_to_the_bit_and_a_trained_one_does_not(prepared):
    for frozen in (True, False):
        change = ["loss.train_autoencoder=false", "loss.inverse_encoding_weight=0"] if frozen else []
        operator.run(prepared(*change))
        same = fingerprint(load("operator").module.autoencoder) == fingerprint(load("autoencoder").module)
        assert same is frozen
        rows = csv.DictReader(Path("results/operator/gradients.csv").read_text().splitlines())
        told = next(row for row in rows if row["term"] == "one_step")
        assert [part for part in ("encoder", "operator", "decoder") if float(told[part]) > 0] == (
            ["operator"] if frozen else ["encoder", "operator", "decoder"]
        )


def test_every_term_reaches_the_parts_it_is_meant_for(make_task):
    task = make_task(*ALL_TERMS)
    module = task.build()
    torch.nn.init.normal_(module.operator.gain, generator=generator(0, "gain"))  # past the first step
    terms = task.loss(module, next(task.batches(0)), generator(0, "loss"))
    parts = gradient_parts(module)
    reached = {
        name: {part for part, norm in zip(parts, gradient_norms(term, parts), strict=True) if norm > 0}
        for name, term in terms.items()
    }
    everything = {"encoder", "operator", "decoder"}
    assert reached == {
        "one_step": everything,
        "rollout": everything,
        "spectral": everything,
        "inverse_encoding": {"encoder", "decoder"},
        "inverse_decoding": {"encoder", "decoder"},
    }


def test_a_pushed_forward_rollout_has_the_same_last_field_and_fewer_gradients(make_task):
    full, pushed = make_task("train.batch_size=3"), make_task("train.batch_size=3", "loss.pushforward=true")
    module = full.build()
    torch.nn.init.normal_(module.operator.gain, generator=generator(0, "gain"))
    batch = next(full.batches(0))
    whole = full._forecast(module, batch).fields
    last = pushed._forecast(module, batch).fields
    torch.testing.assert_close(last[:, [0, 1, -1]], whole[:, [0, 1, -1]])
    terms = [task.loss(module, batch, generator(0))["rollout"] for task in (full, pushed)]
    for term, frames in zip(terms, (slice(2, None), slice(-1, None)), strict=True):
        wanted = field_error(whole[:, frames], batch.fields[:, frames], "relative", full.facts["std"]).mean()
        torch.testing.assert_close(term, wanted)
    parts = gradient_parts(module)
    assert gradient_norms(terms[0], parts) != gradient_norms(terms[1], parts)


def test_relative_errors_count_weak_fields_as_much_as_strong_ones():
    true = torch.randn(2, 16, generator=generator(0, "field")) * torch.tensor([[1.0], [0.01]])
    errors = field_error(1.1 * true, true, "relative", 1.0)
    torch.testing.assert_close(errors, torch.full((2,), 0.1), rtol=0.05, atol=0)
    mse = field_error(1.1 * true, true, "mse", 2.0)
    torch.testing.assert_close(mse, 0.01 * true.square().mean(-1) / 4)


def test_the_spectral_term_sees_amplitudes_along_x_and_no_phases():
    x = torch.arange(32) / 32 * 2 * torch.pi
    wave, turned, weaker = (a * torch.sin(3 * x + p)[None] for a, p in ((1, 0), (1, 1), (0.5, 0)))
    assert float(spectral_error(turned, wave, 1.0)) < 1e-10
    assert float(spectral_error(weaker, wave, 1.0)) > 0.05


def test_a_later_stage_without_an_encoder_is_told_to_train_one(make_params):
    params = make_params()
    simulate.run(params)
    with pytest.raises(CheckpointError) as caught:
        operator.run(params)
    message = "results/autoencoder/model.safetensors: no such file; the stage before writes it; "
    assert str(caught.value) == message + "run assay stage burgers autoencoder"


def test_an_encoder_of_other_tokens_is_refused(prepared):
    with pytest.raises(CheckpointError) as caught:
        operator.run(prepared("model.tokens=4"))
    assert "trained with model.tokens 8, not 4; run the stage before again" in str(caught.value)


def test_a_file_of_another_stage_or_schema_is_refused(prepared):
    path = networks.model_path("autoencoder")
    with pytest.raises(CheckpointError, match="got schema 1 of stage autoencoder; allowed: 1 of operator; train again"):
        networks.load(path, "operator", CPU)
    write_tensors(path, {}, {"schema": 1, "stage": "autoencoder"})
    with pytest.raises(CheckpointError, match="not a model of this study and version"):
        load("autoencoder")


def test_data_of_other_parameters_are_refused(prepared):
    with pytest.raises(DataError, match=r"made with seed 2022, not 1; run the simulate stage again"):
        autoencoder.run(prepared("data.seed=1"))


def test_attention_that_cannot_run_here_is_refused(prepared):
    """On a CPU xformers has no kernel, if it is installed at all."""
    with pytest.raises(ConfigError, match=r"model\.backend: got xformers"):
        operator.run(prepared("model.backend=xformers"))
