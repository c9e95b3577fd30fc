"""What a parameter file of the latents study may say, and what it is told when it contradicts itself."""

import json

import pytest
import yaml
from tests.studies.latents.conftest import LINEAR, PARAMS, PLAIN

from assay.config import load
from assay.errors import ConfigError
from assay.matrix.arms import resolve
from assay.studies.latents.config import SMALL, Params, describe

STUDY = PARAMS.parent

REFUSED = {
    "overlapping splits": (
        ["data.validation=[399,500]"],
        "data.validation: got [399, 500], which overlaps training [100, 400]; allowed: splits without common",
    ),
    "a split past the end": (
        ["data.test=[500,701]"],
        "data.test: got [500, 701]; allowed: [first, end] with first < end <= steps 700",
    ),
    "an empty split": (["data.training=[100,100]"], "data.training: got [100, 100]; allowed: [first, end] with first"),
    "a horizon longer than a split": (
        ["sampling.time_units=10", "sampling.evolve_multiple_steps=10"],
        "sampling.time_units: got a horizon of 100 (time_units x evolve_multiple_steps); allowed: less than the 100 "
        "time steps of data.validation",
    ),
    "a curve longer than the test range": (
        ["evaluation.horizons=200"],
        "evaluation.horizons: got 200; allowed: less than the 200 time steps of data.test",
    ),
    "rollouts longer than the test range": (
        ["evaluation.rollout_steps=197"],
        "evaluation.rollout_steps: got 197; allowed: <= 196, the steps between those of data.test less rollout_starts",
    ),
    "a window longer than another range": (
        ["evaluation.stimulus_window=150"],
        "evaluation.stimulus_window: got 150; allowed: less than the 100 time steps of data.validation",
    ),
    "a window longer than the test range": (
        ["evaluation.stimulus_window=200"],
        "evaluation.stimulus_window: got 200; allowed: less than the 200 time steps of data.test",
    ),
    "more latent dimensions than neurons": (
        ["model.latent_dim=305"],
        "model.latent_dim: got 305; allowed: <= 304, the neurons of data.preset",
    ),
    "a batch larger than the split": (
        ["train.batch_size=300"],
        "train.batch_size: got 300; allowed: <= 299, the samples of data.training",
    ),
    "a published recording without its place": (
        ["data.source=published"],
        "data.published: got null; allowed: a value with source published, null with simulated",
    ),
    "noise of a published recording": (
        ["data.source=published", "data.published=x.npy", "data.column=voltage"],
        "data.noise: got 0.05; allowed: a value with source simulated, null with published",
    ),
    "acquisition where every step is observed": (
        ["sampling.acquisition=staggered"],
        "sampling.acquisition: got staggered; allowed: all with time_units 1; every step is observed",
    ),
    "a stimulus held where every step is observed": (
        ["sampling.stimulus=held"],
        "sampling.stimulus: got held; allowed: all or none with time_units 1",
    ),
    "an encoded stimulus where there is none": (
        ["sampling.stimulus=none"],
        "model.stimulus_dim: got 4; allowed: null with sampling.stimulus none, a value with the others",
    ),
    "units of a linear map": (
        ["model.autoencoder={kind: plain, hidden_layers: 0, hidden_dim: 8, activation: null}"],
        "model.autoencoder.hidden_dim: got 8; allowed: a value with hidden_layers > 0, null with 0",
    ),
    "a linear map with skips": (
        ["model.evolver={kind: skip, hidden_layers: 0, hidden_dim: null, activation: null}"],
        "model.evolver.kind: got skip; allowed: plain with hidden_layers 0; both are the same linear map",
    ),
    "batch norm nowhere": (
        ["model.batch_norm=true"],
        "model.batch_norm: got true; allowed: false without a plain network with hidden layers",
    ),
    "a batch of one with batch norm": (
        ["model.batch_norm=true", f"model.autoencoder={PLAIN}", "train.batch_size=1"],
        "train.batch_size: got 1; allowed: > 1 with model.batch_norm true; one sample has no variance",
    ),
    "an ensemble with batch norm": (
        ["model.batch_norm=true", f"model.autoencoder={PLAIN}", "train.ensemble_size=2"],
        "train.ensemble_size: got 2; allowed: 1 with model.batch_norm true; its buffers cannot be stacked",
    ),
    "nothing to evolve": (["loss.evolve_weight=0"], "loss.evolve_weight: got 0; allowed: > 0; the evolver would not"),
    "a warm-up of nothing": (
        ["loss.reconstruction_weight=0", "loss.reconstruction_warmup=1"],
        "loss.reconstruction_warmup: got 1; allowed: 0 with reconstruction_weight 0; nothing would be trained",
    ),
    "a term without its neurons": (
        ["loss.unconnected_weight=1"],
        "loss.unconnected_neurons: got null; allowed: a value with unconnected_weight > 0, null with 0",
    ),
    "a warm-up as long as the training": (
        ["train.steps=null", "train.epochs=2", "loss.reconstruction_warmup=2"],
        "loss.reconstruction_warmup: got 2; allowed: less than train.epochs 2; the evolver would not be trained",
    ),
    "silenced neurons that others speak for": (
        ["loss.unconnected_weight=1", "loss.unconnected_neurons=3", "sampling.time_units=2"],
        "loss.unconnected_weight: got 1; allowed: 0 with sampling.time_units > 1; over several steps activity comes by",
    ),
    "silenced neurons in running statistics": (
        [
            *("loss.unconnected_weight=1", "loss.unconnected_neurons=3"),
            *("model.batch_norm=true", f"model.autoencoder={PLAIN}"),
        ],
        "loss.unconnected_weight: got 1; allowed: 0 with model.batch_norm true; silenced activity would enter its",
    ),
    "a scene in two splits": (
        ["data.training=[100,390]", "data.validation=[390,500]"],
        "data.validation: got [390, 500], which begins within the last scene of training; allowed: splits without "
        "common scenes with scenes fresh; begin it at a multiple of 50",
    ),
    "a scene cut by a gap between splits": (
        ["data.validation=[400,510]", "data.test=[520,700]"],
        "data.test: got [520, 700], which begins within the last scene of validation; allowed: splits without",
    ),
    "a replay before what it repeats": (
        ["data.scenes=replayed", "data.training=[300,600]", "data.validation=[100,300]", "data.test=[600,700]"],
        "data.scenes: got replayed; allowed: fresh, or training before validation and test and with a whole scene of "
        "50 steps; move training",
    ),
    "a replay of no scene": (
        ["data.scenes=replayed", "data.training=[110,140]", "train.batch_size=8"],
        "data.scenes: got replayed; allowed: fresh, or training before validation and test and with a whole scene",
    ),
    "a term of unknown connections": (
        [
            *("data.source=published", "data.published=x.npy", "data.column=voltage", "data.preset=null"),
            *("data.noise=null", "data.scenes=null", "loss.unconnected_weight=1", "loss.unconnected_neurons=2"),
        ],
        "loss.unconnected_weight: got 1; allowed: 0 with data.source published; its connections are unknown",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused_in_words(case, make_params):
    overrides, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        make_params(*overrides)
    assert message in str(caught.value)


def test_the_committed_parameters_are_valid_and_described():
    described = describe(load(Params, PARAMS))
    assert described.startswith("skip 1 x 64 encoder, skip 1 x 64 evolver, 32 latent dimensions x 1: ")


def test_a_linear_encoder_is_called_so(make_params):
    assert describe(make_params(f"model.autoencoder={LINEAR}")).startswith("linear encoder")


def test_every_arm_of_the_study_is_valid_and_different_from_the_baseline():
    resolved = resolve(STUDY / "study.yaml")
    assert len(resolved.arms) > 20 and not [name for name, arm in resolved.arms.items() if arm.same_as]


def test_arms_of_equal_steps_or_samples_spend_what_their_baseline_does():
    arms = {name: arm.params for name, arm in resolve(STUDY / "study.yaml").arms.items()}
    steps = {name: params.train.total_steps(params.training_starts) for name, params in arms.items()}
    for name, params in arms.items():
        if "steps" in name:
            assert steps[name] == steps["report"]
        elif name.startswith(("batch", "norm")):
            size = params.train.batch_size
            assert abs(steps[name] * size - steps["report"] * 512) <= (size + 512) / 2


def test_the_classical_control_of_the_laptop_study_sees_what_its_networks_see():
    arms = resolve(STUDY / "laptop.yaml").arms.values()
    assert all(arm.params.sampling.stimulus == "all" for arm in arms)
    assert yaml.safe_load((STUDY / "laptop.yaml").read_text())["controls"]["classical"].endswith("_stimulus")


def test_the_small_amounts_are_valid_for_a_rehearsal():
    changes = [f"{key}={json.dumps(value)}" for key, value in SMALL.items()]
    assert load(Params, PARAMS, changes).data.steps == SMALL["data.steps"]
