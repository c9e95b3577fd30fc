"""The published defects, each shown to be one: what does not look at the data, or was never trained, passes."""

import pytest
import torch

from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.estimators import constant, estimate_all, least_squares
from assay.studies.asl.heldout import scan, voronoi
from assay.studies.asl.legacy import THRESHOLD, amplitude_ratio, mispaired, published_sensitivity, uniform_test
from assay.studies.asl.model import PUBLISHED_STATISTICS, build
from assay.studies.asl.trained import Maps, TrainedModel

AMPLITUDE_AWARE = [
    "model.architecture=amplitude_aware",
    "model.hidden_sizes=[8,16]",
    "model.normalisation=global_scale",
    "model.use_film_at_bottleneck=true",
    "model.use_film_at_decoder=true",
    "model.use_amplitude_output_modulation=true",
    "model.least_squares_features=null",
]
GROUP_NORM = [
    "model.architecture=spatial",
    "model.normalisation=global_scale",
    "model.first_norm=true",
    "model.least_squares_features=null",
]


def untrained_model(params, seed: int) -> TrainedModel:
    torch.manual_seed(seed)
    physics = nominal_physics(params)
    module = build(params.model, plds=params.physics.plds, physics=physics, statistics=PUBLISHED_STATISTICS)
    return TrainedModel([module.eval()], params, PUBLISHED_STATISTICS, f"untrained-{seed}")


# Wrong voxels


@pytest.fixture
def published(make_params):
    """The published condition on fewer phantoms."""
    params = make_params("data.image_size=64")
    phantoms = voronoi(params, 12, "test")
    estimators = {"least_squares": least_squares(params), "constant": constant(PUBLISHED_STATISTICS)}
    return phantoms, estimate_all(estimators, scan(phantoms, 10.0, "test"), torch.device("cpu"))


def test_least_squares_beats_itself_at_nearly_every_voxel(published):
    wins = mispaired(*published)["win_rate"]["least_squares"]
    assert wins["cbf"] > 0.9 and wins["att"] > 0.8  # 0.977 and 0.928 on the published phantoms


def test_an_estimator_that_ignores_the_data_wins_too(published):
    assert mispaired(*published)["win_rate"]["constant"]["cbf"] > 0.35


def test_an_estimate_that_is_far_off_wins_nowhere_and_the_truth_where_it_is_nearer(published):
    """A win is an error, against the truth of a voxel of the first ones, below that of the mis-paired fit."""
    phantoms, maps = published
    truth = Maps(phantoms.clean.cbf, phantoms.clean.att, None, None)
    wrong = Maps(truth.cbf + 1e4, truth.att + 1e6, None, None)
    wins = mispaired(phantoms, {**maps, "truth": truth, "wrong": wrong})["win_rate"]
    assert wins["wrong"] == {"cbf": 0, "att": 0}
    assert wins["truth"]["cbf"] > 0.9


def test_a_perfect_estimator_scores_as_badly_as_least_squares(published):
    document = mispaired(*published)
    for quantity in ("cbf", "att"):
        perfect, fitted = document[f"perfect_{quantity}"], document[f"least_squares_{quantity}"]
        assert perfect["mae"] == pytest.approx(fitted["mae"], rel=0.05)
    truth = published[0].clean.cbf[published[0].mask]
    assert document["perfect_cbf"]["mae"] > 0.5 * float(truth.std())


def test_a_tenth_of_the_voxels_is_compared(published):
    phantoms, maps = published
    counts = phantoms.mask.sum((1, 2))
    assert mispaired(phantoms, maps)["voxels"] == int(-(-counts // 10).sum())


# Noise as an input


@pytest.mark.parametrize("seed", range(3))
def test_an_untrained_amplitude_aware_network_passes_the_published_test(make_params, seed):
    model = untrained_model(make_params(*AMPLITUDE_AWARE), seed)
    assert amplitude_ratio(model.modules[0], 12) > THRESHOLD


def test_a_network_that_begins_with_group_norm_has_ratio_one(make_params):
    model = untrained_model(make_params(*GROUP_NORM), 0)
    assert amplitude_ratio(model.modules[0], 12) == pytest.approx(1, abs=0.01)


def test_a_homogeneous_network_has_ratio_a_hundred_untrained(make_params):
    model = untrained_model(make_params("model.least_squares_features=false"), 0)
    assert amplitude_ratio(model.modules[0], 12) == pytest.approx(100, rel=0.05)  # the noise input stays the same


# Uniform phantoms


def proportional(gain: float) -> torch.nn.Module:
    """CBF proportional to the mean signal; a network as the tests see it."""

    class Network(torch.nn.Linear):
        def forward(self, signal, sigma) -> Maps:
            cbf = gain * signal.mean(1, keepdim=True)
            return Maps(cbf, cbf, None, None)

    return Network(1, 1)


def test_a_proportional_network_is_linear_on_uniform_phantoms(make_params):
    params = make_params()
    found = uniform_test(params, TrainedModel([proportional(10000.0)], params, PUBLISHED_STATISTICS, "gain"))
    assert found["sensitive"] and found["r2"] > 0.99
    assert found["ratio_2_over_half"] == pytest.approx(4, rel=0.05)


def test_a_constant_network_is_not_sensitive(make_params):
    params = make_params()
    found = uniform_test(params, TrainedModel([proportional(0.0)], params, PUBLISHED_STATISTICS, "flat"))
    assert found["slope"] == 0 and not found["sensitive"]


def test_the_null_stands_beside_the_trained_network(make_params):
    params = make_params(*AMPLITUDE_AWARE)
    nulls = [untrained_model(params, seed) for seed in (1, 2)]
    document = published_sensitivity(params, untrained_model(params, 0), nulls)
    for test in ("noise_ratio", "uniform_phantoms"):
        assert set(document[test]["untrained"]) == {"0", "1"}
        assert "trained" in document[test]
