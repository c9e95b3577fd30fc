"""The predictions that need no network: exact values, and the order they must come in."""

import pytest
import torch

from assay.engine.random import generator
from assay.errors import DataError
from assay.studies.latents.baselines import (
    ORACLE,
    PrincipalRidge,
    Splits,
    ar1_mse,
    baselines,
    constant_model_mse,
    mean_mse,
    skill,
)
from assay.studies.latents.linear import RidgeMap, Split, principal_components


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator("test", *shape))


def test_the_constant_model_is_the_mean_over_valid_times_and_neurons():
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0], [3.0, 5.0], [3.0, 0.0]])
    assert constant_model_mse(x, 1) == (4 + 0 + 1 + 16 + 0 + 25) / 6
    assert constant_model_mse(x, 2) == (9 + 16 + 1 + 1) / 4
    assert constant_model_mse(x, 3) == (9 + 1) / 2
    assert constant_model_mse(x, 0) == 0


def test_the_constant_model_of_a_long_recording_is_that_of_its_definition():
    x = noise(2500, 7)
    assert constant_model_mse(x, 5) == pytest.approx(
        float((x.double()[5:] - x.double()[:-5]).square().mean()), rel=1e-12
    )


@pytest.mark.parametrize("horizon", [-1, 4])
def test_a_horizon_beyond_the_recording_is_refused(horizon):
    with pytest.raises(DataError, match=rf"horizon: got {horizon}; allowed: 0 to 3 with 4 time steps; lower it"):
        constant_model_mse(noise(4, 2), horizon)


def test_activity_of_another_rank_is_refused():
    with pytest.raises(DataError, match=r"activity: got shape \(4, 2, 9\); allowed: \(time steps, neurons\)"):
        constant_model_mse(noise(4, 2, 9), 1)


def test_activity_that_is_not_finite_is_refused():
    x = noise(4, 2)
    x[2, 1] = torch.nan
    with pytest.raises(DataError, match="activity: got nan at time step 2, neuron 1; allowed: finite numbers"):
        constant_model_mse(x, 1)


def split(activity: torch.Tensor, stimulus: torch.Tensor | None = None) -> Split:
    return Split(activity, noise(len(activity), 2) if stimulus is None else stimulus)


def driven(steps: int, seed: int) -> Split:
    """Six neurons of a linear system that is driven by two channels, without noise."""
    mix, entry = 0.2 * noise(6, 6), noise(2, 6)
    stimulus = torch.randn(steps, 2, generator=generator(seed))
    x = torch.zeros(steps, 6)
    for t in range(steps - 1):
        x[t + 1] = x[t] @ mix + stimulus[t] @ entry + 0.5
    return Split(x, stimulus)


def test_ar1_finds_the_coefficients_of_independent_neurons():
    x = torch.zeros(4000, 3)
    for t in range(3999):
        x[t + 1] = torch.tensor([0.9, 0.5, -0.3]) * x[t] + 1 + 0.1 * torch.randn(3, generator=generator(t))
    assert ar1_mse(split(x[:2000]), split(x[2000:])) == pytest.approx(0.01, rel=0.05)
    assert mean_mse(split(x[:2000]), split(x[2000:])) > 0.015


def test_ar1_is_exact_where_nothing_but_its_equation_acts():
    slope, x = torch.tensor([0.9, 0.5, -0.3]), 3 * noise(40, 3).double()
    for t in (t for t in range(39) if t != 19):
        x[t + 1] = slope * x[t] + 1
    assert ar1_mse(split(x[:20]), split(x[20:])) < 1e-20


def test_the_mean_is_that_of_training_and_judged_on_what_one_step_predicts():
    x = noise(60, 3)
    expected = float((x[31:] - x[:30].mean(0)).square().mean())
    assert mean_mse(split(x[:30]), split(x[30:])) == pytest.approx(expected, rel=1e-6)


def test_a_ridge_map_of_a_linear_system_is_exact_with_its_stimulus_and_not_without():
    training, validation, test = (driven(400, seed) for seed in range(3))
    seeing = RidgeMap(training, validation, (1e-9, 1.0), seen=True, window=1)
    blind = RidgeMap(training, validation, (1e-9, 1.0), seen=True, window=0)
    assert seeing.mse(test) < 1e-9 and blind.mse(test) > 0.1


def test_a_window_of_the_stimulus_explains_what_one_frame_does_not():
    training, validation, test = (driven(400, seed) for seed in range(3))
    errors = [RidgeMap(training, validation, (1e-9,), seen=False, window=size).mse(test) for size in (1, 2, 12)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-2 * errors[0]


def test_validation_picks_the_penalty():
    """Thirty inputs, forty noisy samples: hardly any penalty is worse than a good one."""
    x = noise(150, 30)
    training, validation, test = split(x[:41]), split(x[41:90]), split(x[90:])
    each = [RidgeMap(training, validation, (penalty,), seen=True, window=0).mse(test) for penalty in (1e-6, 10.0)]
    chosen = RidgeMap(training, validation, (1e-6, 10.0), seen=True, window=0).mse(test)
    assert chosen == each[1] < each[0]


def test_principal_ridge_with_every_component_is_the_full_map():
    splits = Splits(*(driven(400, seed) for seed in range(3)))
    fitted = PrincipalRidge(splits, (1e-9,), 6, stimulus=True)
    assert fitted.reconstruction_mse(splits.test) < 1e-9 and fitted.mse(splits.test) < 1e-9


def test_the_error_of_principal_ridge_is_that_of_its_decoded_predictions():
    splits = Splits(*(driven(400, seed) for seed in range(3)))
    fitted = PrincipalRidge(splits, (1e-3,), 3, stimulus=True)
    found = fitted.decode(fitted.step(fitted.encode(splits.test.activity[:-1]), splits.test.stimulus[:-1]))
    assert fitted.mse(splits.test) == pytest.approx(float((found - splits.test.activity[1:]).square().mean()), rel=1e-6)


def test_randomised_principal_components_span_the_exact_ones():
    x = noise(500, 5) @ noise(5, 40) + 0.01 * noise(500, 40)
    (mean, exact), (_, near) = principal_components(x, 5), principal_components(x, 5, exact_up_to=10)
    torch.testing.assert_close(mean, x.double().mean(0))
    torch.testing.assert_close(exact @ exact.T, near @ near.T, rtol=0, atol=1e-4)


def test_every_baseline_is_there_and_the_simulator_is_below_them(recording, with_data):
    from assay.studies.latents.validate import oracle, read_splits

    params = with_data()
    splits = read_splits(params, recording, torch.device("cpu"))
    found = baselines(splits, (1e-4, 1e-2, 1.0), 8, 2000, 2) | oracle(params, recording, splits.test)
    assert set(found) == {
        *("constant", "mean", "ar1", "stimulus_ridge", "stimulus_window_ridge", "pca_ridge", "pca_ridge_stimulus"),
        *("pca_reconstruction", "ridge", "ridge_stimulus", "simulator"),
    }
    assert found[ORACLE] == pytest.approx(0.0025, rel=0.02) and min(found, key=lambda name: found[name]) == ORACLE
    assert found["constant"] < found["mean"] and found["pca_ridge_stimulus"] < found["pca_ridge"]


def test_every_name_is_that_of_its_predictor():
    training, validation, test = splits = Splits(*(driven(200, seed) for seed in range(3)))
    found, penalties = baselines(splits, (1e-3,), 3, 100, 4), (1e-3,)
    maps = {"ridge": (True, 0), "ridge_stimulus": (True, 1)}
    maps |= {"stimulus_ridge": (False, 1), "stimulus_window_ridge": (False, 4)}
    for name, (seen, window) in maps.items():
        assert found[name] == RidgeMap(training, validation, penalties, seen=seen, window=window).mse(test)
    for name, stimulus in (("pca_ridge", False), ("pca_ridge_stimulus", True)):
        fitted = PrincipalRidge(splits, penalties, 3, stimulus)
        assert found[name] == fitted.mse(test) and found["pca_reconstruction"] == fitted.reconstruction_mse(test)
    assert len(set(found.values())) == len(found)


def test_a_ridge_map_is_the_closed_form_with_the_penalty_as_a_share_of_the_mean_variance():
    x = noise(80, 5).double()
    fitted = RidgeMap(split(x), split(x), (0.5,), seen=True, window=0)
    inputs, target = x[:-1] - x[:-1].mean(0), x[1:] - x[1:].mean(0)
    penalty = 0.5 * inputs.square().mean() * len(inputs)
    expected = torch.linalg.solve(inputs.T @ inputs + penalty * torch.eye(5), inputs.T @ target)
    torch.testing.assert_close(fitted.weight, expected)


def test_principal_components_are_of_training_and_their_penalty_of_validation():
    x = noise(150, 30)
    splits = Splits(split(x[:41]), split(x[41:90]), split(x[90:] + 3))
    fitted, strong = (PrincipalRidge(splits, penalties, 30, stimulus=False) for penalties in ((1e-6, 10.0), (10.0,)))
    torch.testing.assert_close(fitted.mean, x[:41].double().mean(0))
    torch.testing.assert_close(fitted.map.weight, strong.map.weight)


def test_a_random_subset_stands_for_many_neurons(recording, with_data):
    from assay.studies.latents.validate import read_splits

    splits = read_splits(with_data(), recording, torch.device("cpu"))
    few, all_of_them = (baselines(splits, (0.01,), 4, most, 2)["ridge"] for most in (20, 2000))
    assert few != all_of_them


def test_skill_is_the_share_of_the_way_to_the_floor():
    assert skill({"constant": 0.036361}, 0.0199, 0.0025) == pytest.approx(0.486, abs=1e-3)
    assert skill({"constant": 0.036361}, 0.0134, 0.0025) == pytest.approx(0.678, abs=1e-3)
