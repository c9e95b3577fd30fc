"""What a parameter file of the burgers study may say, and what it is told when it contradicts itself."""

from pathlib import Path

import pytest
import torch

from assay.config import load
from assay.errors import ConfigError
from assay.matrix.arms import resolve
from assay.studies.burgers.config import Params, describe
from assay.studies.burgers.model import parameter_count
from assay.studies.burgers.networks import build

STUDY = Path(__file__).parents[3] / "studies/burgers"
SEPARATED = ("model.attention=channel_separated", "model.shared_groups=true")
FACTS = {"mean": 0.0, "std": 1.0}

REFUSED = {
    "tokens": (
        ["model.tokens=7"],
        "model.tokens: got 7; allowed: divisors of data.cells 32 (1, 2, 4, 8, 16, 32); change model.tokens or",
    ),
    "corrector tokens": (["corrector.tokens=5"], "corrector.tokens: got 5; allowed: divisors of data.cells 32"),
    "heads": (["model.heads=3"], "model.heads: got 3; allowed: divisors of hidden_dim 8 (1, 2, 4, 8)"),
    "heads of one channel": (
        ["model.heads=8", "model.rotary=true"],
        "model.heads: got 8; allowed: heads of an even number of channels with rotary, not 1",
    ),
    "a viscosity that is judged twice": (
        ["evaluation.viscosities=[0.01,0.01]"],
        "evaluation.viscosities: got [0.01, 0.01]; allowed: different numbers; drop repeats",
    ),
    "heads of a group": (
        [*SEPARATED, "model.group_size=4", "model.heads=3"],
        "model.heads: got 3; allowed: divisors of group_size 4 (1, 2, 4)",
    ),
    "group": ([*SEPARATED, "model.group_size=3"], "model.group_size: got 3; allowed: divisors of hidden_dim 8"),
    "group of another attention": (
        ["model.group_size=4"],
        "model.group_size: got 4; allowed: a value with attention channel_separated, null with standard",
    ),
    "depth": (["model.depth=[1,1]"], "model.depth: got [1, 1]; allowed: one number with architecture pdet_stack"),
    "levels": (
        ["model.architecture=pdet_unet", "model.depth=[1,1,1,1,1]"],
        "model.tokens: got 8; allowed: >= 16 with 5 levels of depth",
    ),
    "two sizes": (
        ["model.parameters=1000"],
        "model.ffn_ratio: got ffn_ratio 2.0 and parameters 1000; allowed: exactly one of ffn_ratio and parameters",
    ),
    "viscosity outside the training range": (
        ["evaluation.viscosities=[0.01,0.001]"],
        "evaluation.viscosities: got 0.001; allowed: those of data.viscosities [0.01]; no model has been trained",
    ),
    "reference": (
        ["evaluation.reference_viscosity=0.1"],
        "evaluation.reference_viscosity: got 0.1; allowed: one of viscosities [0.01]",
    ),
    "unknown viscosity of a sample": (
        ["data.viscosities=[0.01,0.1]"],
        "model.viscosity: got false; allowed: true with several data.viscosities, false with one",
    ),
    "reward of a field there is not": (
        ["search.reward={rho: 1}"],
        "search.reward.rho: got 1.0; allowed: terms mass, energy, maximum, boundary, spectrum, residual; the data",
    ),
    "no reward": (["search.reward={mass: 0}"], "search.reward: got no weight above 0; allowed: one or more of mass"),
    "reward that is equal for all": (
        ["search.reward={mass: 1}", "model.conserve_mass=true"],
        "search.reward.mass: got 1; allowed: 0 or none unless model.conserve_mass is false; every candidate has the",
    ),
    "rewarded violation": (["search.reward={mass: -1}"], "search.reward.mass: got -1; allowed: >= 0"),
    "inverse loss of a frozen encoder": (
        ["loss.train_autoencoder=false"],
        "loss.inverse_encoding_weight: got 0.1; allowed: 0 unless train_autoencoder is true; it reaches no parameter",
    ),
    "rollout that is not": (
        ["loss.rollout_weight=0"],
        "loss.rollout_steps: got 2; allowed: a value with rollout_weight > 0, null with 0",
    ),
    "rollout beyond the data": (
        ["loss.rollout_steps=6"],
        "loss.rollout_steps: got 6; allowed: <= 5, the steps that data.frames hold",
    ),
    "no objective": (
        ["loss.one_step_weight=0", "loss.rollout_weight=0", "loss.rollout_steps=null", "loss.pushforward=null"],
        "loss.one_step_weight: got 0; allowed: > 0 here or at rollout_weight; the operator would not be trained",
    ),
    "modes": (["fno.modes=17"], "fno.modes: got 17; allowed: <= 16, half of data.cells"),
    "cells": (["data.cells_internal=48"], "data.cells: got 32; allowed: divisors of cells_internal 48"),
    "files of nowhere": (
        ["data.source=published"],
        "data.published: got null; allowed: a value with source published, null with simulated",
    ),
    "decoder": (
        ["autoencoder.decoder=query"],
        "autoencoder.decoder_heads: got null; allowed: a value with decoder query, null with patch",
    ),
    "tokens without a place": (
        [
            "autoencoder.decoder=query",
            "autoencoder.decoder_hidden_dim=8",
            "autoencoder.decoder_layers=1",
            "autoencoder.decoder_heads=2",
            "autoencoder.decoder_frequencies=[1]",
        ],
        "autoencoder.position_frequencies: got []; allowed: one or more with decoder query; it finds its tokens by",
    ),
    "members": (
        ["train.ensemble_size=2"],
        "train.ensemble_size: got 2; allowed: 1 in this study; replicate by seeds",
    ),
    "searched trajectories": (["search.trajectories=5"], "search.trajectories: got 5; allowed: <= data.test 4"),
    "search that ends early": (
        ["search.max_evaluations=3"],
        "search.max_evaluations: got 3; allowed: >= 5, the steps of a trajectory",
    ),
    "stride": (["data.stride=6"], "data.stride: got 6; allowed: < 5.5, half of frames"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused_in_words(case, make_params):
    overrides, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        make_params(*overrides)
    assert message in str(caught.value)


def test_the_committed_parameters_are_valid_and_described():
    params = load(Params, STUDY / "params.yaml")
    assert "32 tokens, standard: 2400 steps, 38400 samples" in describe(params)


@pytest.fixture(scope="module")
def arms():
    return resolve(STUDY / "study.yaml").arms


def test_the_study_has_the_factorial_the_reports_arms_and_ablations(arms):
    factorial = {
        f"{shape}_{attention}_{tokens}"
        for shape in ("unet", "stack")
        for attention in ("standard", "channel_separated")
        for tokens in (32, 64, 128, 256)
    }
    assert factorial <= arms.keys()
    assert sum(name.startswith("report_") for name in arms) == 5
    assert len(arms) == 34 and not [name for name, arm in arms.items() if arm.same_as]
    assert arms["unet_channel_separated_32"].params.model.tokens == 32
    assert all(len(arm.identities) >= 5 for arm in arms.values())


@pytest.mark.usefixtures("without_memory")
def test_arms_of_the_factorial_have_equal_parameters(arms):
    wanted = 6_400_000
    for name, arm in arms.items():
        params = arm.params
        if params.model.parameters is not None:
            count = parameter_count(build("operator", params, FACTS).operator)
            assert abs(count / wanted - 1) < 0.01, name


@pytest.mark.usefixtures("without_memory")
def test_the_reports_arms_have_its_parameters(arms):
    """But for the gain and bias per channel that make an untrained operator persistence, and the missing last norm."""
    published = {
        "report_pure_standard_128": 6_418_560,
        "report_pure_channel_separated_128": 4_347_008,
        "report_pure_standard_256": 28_769_152,
        "report_unet_128": 4_118_272,
        "report_unet_256": 17_293_888,
    }
    for name, wanted in published.items():
        count = parameter_count(build("operator", arms[name].params, FACTS).operator)
        assert abs(count / wanted - 1) < 0.005, (name, count)


@pytest.fixture
def without_memory():
    """Networks are made without their weights."""
    with torch.device("meta"):
        yield
