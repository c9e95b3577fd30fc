"""The stage validate: known dynamics get the scores they deserve, and every promised file is written."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from tests.studies.latents.conftest import PARAMS, TINY

from assay.config import load
from assay.engine.random import generator
from assay.errors import CheckpointError
from assay.studies.latents import train, validate
from assay.studies.latents.baselines import PrincipalRidge, Splits
from assay.studies.latents.config import Params
from assay.studies.latents.evaluation import (
    LARGEST,
    Dynamics,
    Rollout,
    horizon_curve,
    is_bounded,
    neuron_errors,
    of_components,
    of_model,
    one_per_type,
    participation_ratio,
    r2,
    rollout,
    rollout_starts,
)
from assay.studies.latents.linear import Split
from assay.studies.latents.model import build

TABLES = ("metrics.json", "summary.csv", "members.csv", "horizon.csv", "rollout.csv", "types.csv")
FIGURES = ("horizon.png", "rollout.png", "variance.png", "traces.png", "latents.png")
NEURONS, STEPS = 6, 60


def known(steps: int = STEPS) -> tuple[Dynamics, Split]:
    """A linear system, x[t+1] = 0.9 x[t] + e[t], and the dynamics that are exactly it."""
    stimulus = torch.randn(steps, NEURONS, generator=generator("validate test"), dtype=torch.float64)
    x = torch.zeros(steps, NEURONS, dtype=torch.float64)
    for t in range(steps - 1):
        x[t + 1] = 0.9 * x[t] + stimulus[t]
    return Dynamics(lambda x: x, lambda z, e: 0.9 * z + e, lambda z: z), Split(x, stimulus)


def constant() -> Dynamics:
    return Dynamics(lambda x: x, lambda z, e: z, lambda z: z)


def test_the_true_dynamics_make_no_error_and_constant_ones_that_of_the_constant_model():
    truth, split = known()
    assert max(horizon_curve(truth, split, 5)) < 1e-20
    curve = horizon_curve(constant(), split, 5)
    for ahead, error in enumerate(curve):
        starts = STEPS - 5
        expected = (split.activity[ahead : ahead + starts] - split.activity[:starts]).square().mean()
        assert error == pytest.approx(float(expected))


def test_the_curve_does_not_depend_on_the_blocks(monkeypatch):
    _, split = known()
    whole = horizon_curve(constant(), split, 3)
    monkeypatch.setattr("assay.studies.latents.evaluation.ROWS", 7)
    assert horizon_curve(constant(), split, 3) == pytest.approx(whole)


def test_errors_of_neurons_are_those_of_one_step():
    _, split = known()
    expected = (split.activity[1:] - split.activity[:-1]).square().mean(0)
    torch.testing.assert_close(neuron_errors(constant(), split), expected)
    scores = r2(neuron_errors(constant(), split), split)
    torch.testing.assert_close(scores, 1 - expected / split.activity[1:].var(0, correction=0))


@pytest.mark.parametrize("latent", [True, False])
def test_rollouts_follow_the_true_dynamics(latent):
    truth, split = known()
    first = rollout_starts(STEPS - 1, 20, 3)
    rolled = rollout(truth, split, first, 20, latent=latent, traced=torch.tensor([2]))
    assert float(rolled.errors.max()) < 1e-20 and rolled.errors.shape == (20, NEURONS)
    for place, start in enumerate(first):
        torch.testing.assert_close(rolled.traces[place, :, 0], split.activity[start + 1 : start + 21, 2])


def test_an_activity_rollout_encodes_anew_and_a_latent_one_does_not():
    """An encoder that forgets the sign: encoding a prediction again changes what follows."""
    _, split = known()
    forgetful = Dynamics(torch.abs, lambda z, e: 0.9 * z + e, lambda z: z)
    errors = [
        rollout(forgetful, split, [0, 5], 20, latent=latent, traced=torch.tensor([0])).errors.mean()
        for latent in (True, False)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_a_rollout_that_explodes_is_cut_and_unbounded():
    _, split = known(400)
    exploding = Dynamics(lambda x: x, lambda z, e: 1e3 * z + 1, lambda z: z)
    rolled = rollout(exploding, split, [0], 300, latent=True, traced=torch.tensor([0]))
    assert float(rolled.errors.max()) == LARGEST and not is_bounded(rolled, 1.0)
    assert is_bounded(rollout(constant(), split, [50], 300, latent=True, traced=torch.tensor([0])), 5.0)


@pytest.mark.parametrize(("times", "bounded"), [(9, True), (11, False)])
def test_a_rollout_is_bounded_up_to_ten_times_the_variance(times, bounded):
    """In its mean over neurons, at every step."""
    errors = torch.tensor([[0.0, 0.0], [0.0, 2.0 * times], [1.0, 1.0]])
    assert is_bounded(Rollout(errors, errors, errors, [0]), 1.0) is bounded


@torch.no_grad()
@pytest.mark.parametrize("stimulus", ["all", "none"])
def test_dynamics_of_a_network_are_its_forecasts(stimulus, make_params):
    blind = stimulus == "none"
    without = ["sampling.stimulus=none", "model.stimulus_dim=null", "model.stimulus_state=null"] if blind else []
    params = make_params("model.zero_init=false", *without)
    torch.manual_seed(0)
    module = build(params.model, NEURONS, None if blind else NEURONS)
    _, exact = known()
    split = Split(exact.activity.float(), exact.stimulus.float())
    shown = None if blind else torch.stack([split.stimulus[:-2], split.stimulus[1:-1]], dim=1)
    forecast = module(split.activity[:-2], shown, (1, 2))
    found = horizon_curve(of_model(module), split, 2)
    for ahead in (1, 2):
        error = forecast.predictions[:, ahead - 1] - split.activity[ahead : STEPS - 2 + ahead]
        assert found[ahead] == pytest.approx(float(error.square().mean()), rel=1e-5)


def test_rollouts_begin_at_different_places_that_leave_room():
    first = rollout_starts(100, 40, 60)
    assert sorted(set(first)) == first and len(first) == 60 and max(first) < 60
    assert first == rollout_starts(100, 40, 60)


def test_the_error_of_a_start_is_the_mean_over_its_steps_and_neurons():
    _, split = known()
    rolled = rollout(constant(), split, [3, 30], 20, latent=True, traced=torch.tensor([0]))
    for start, error in zip(rolled.first, rolled.by_start, strict=True):
        expected = (split.activity[start + 1 : start + 21] - split.activity[start]).square().mean()
        torch.testing.assert_close(error, expected)


def judged_by(dynamics: Dynamics, params: Params) -> tuple[validate.Judged, Splits]:
    _, split = known(180)
    parts = (Split(split.activity[first : first + 60], split.stimulus[first : first + 60]) for first in (0, 60, 120))
    splits = Splits(*parts)
    return validate.judge(params, dynamics, splits, torch.arange(NEURONS) // 3), splits


def test_numbers_of_a_network_are_what_they_are_called(make_params):
    forgetful = Dynamics(torch.abs, lambda z, e: 0.9 * z + e, lambda z: z)
    judged, splits = judged_by(forgetful, make_params())
    found, x = judged.numbers, splits.test.activity
    assert found["reconstruction_mse"] == pytest.approx(float((x.abs() - x)[:-3].square().mean()))
    for name, part in (("mse", splits.test), ("mse_validation", splits.validation)):
        step = 0.9 * part.activity.abs()[:-1] + part.stimulus[:-1]
        assert found[name] == pytest.approx(float((step - part.activity[1:]).square().mean()))
    first = rollout_starts(59, 20, 3)
    for name, latent in (("latent", True), ("activity", False)):
        errors = rollout(forgetful, splits.test, first, 20, latent=latent, traced=torch.tensor([0])).errors
        assert found[f"{name}_rollout_mse"] == pytest.approx(float(errors.mean()))
        assert found[f"{name}_rollout_final_mse"] == pytest.approx(float(errors[-1].mean()))
    assert found["latent_rollout_unbounded"] == 0


def test_a_rollout_that_explodes_is_counted(make_params):
    judged, _ = judged_by(Dynamics(lambda x: x, lambda z, e: 3 * z + 1, lambda z: z), make_params())
    assert judged.numbers["latent_rollout_unbounded"] == judged.numbers["activity_rollout_unbounded"] == 1


def test_headlines_compare_the_mean_of_the_members_with_each_control(make_params):
    judged, _ = judged_by(constant(), make_params())
    members = [judged._replace(numbers={"mse": mse}) for mse in (0.02, 0.05)]
    errors = {"constant": 0.04, "pca_ridge": 0.03, "pca_ridge_stimulus": 0.025, "simulator": 0.0025}
    found = validate.headlines(errors, members, {"network": [0.01, 0.035, 0.06]})
    assert found["mse"] == pytest.approx(0.035) and found["skill"] == pytest.approx(0.005 / 0.0375)
    assert found["ratio_constant"] == pytest.approx(0.875)
    assert found["ratio_pca_ridge_stimulus"] == pytest.approx(1.4)
    assert found["worse_than_constant"] == 0.5 and found["mse_ahead_2"] == 0.06 and found["mse_pca_ridge"] == 0.03


def test_tables_by_step_and_by_type_are_of_the_errors_of_neurons(make_params):
    judged, splits = judged_by(constant(), make_params())
    header, rows = validate.rollout_table(judged)
    errors = judged.activity.errors
    assert header[5:] == ["activity_mean", "activity_p5", "activity_p95", "activity_max"]
    expected = [errors[4].mean(), errors[4].quantile(0.05), errors[4].quantile(0.95), errors[4].max()]
    assert rows[4][0] == 5 and rows[4][5:] == pytest.approx([float(value) for value in expected])
    header, rows = validate.type_table(torch.arange(NEURONS) // 3, judged, splits.test)
    assert header[-1] == "median_mse" and [row[:2] for row in rows] == [[0, 3], [1, 3]]
    assert [row[-1] for row in rows] == pytest.approx([float(judged.errors[i : i + 3].median()) for i in (0, 3)])


def test_principal_components_with_control_are_such_dynamics():
    _, split = known(300)
    fitted = PrincipalRidge(Splits(split, split, split), (1e-9,), NEURONS, stimulus=True)
    assert max(horizon_curve(of_components(fitted), split, 4)) < 1e-9


def test_participation_counts_the_dimensions_in_use():
    x = torch.randn(5000, 8, generator=generator("participation"))
    assert participation_ratio(x) == pytest.approx(8, rel=0.02)
    x[:, 3:] = 0
    assert participation_ratio(x) == pytest.approx(3, rel=0.02)


def test_one_neuron_of_each_type_is_traced():
    types = torch.tensor([0, 0, 2, 2, 2, 1])
    assert types[one_per_type(types)].tolist() == [0, 1, 2]


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture(scope="module")
def results(tmp_path_factory, data_path):
    """What the stage writes for an ensemble of two, trained for a few steps."""
    folder = tmp_path_factory.mktemp("validate")
    params = load(Params, PARAMS, [*TINY, f"data.path={data_path}", "train.ensemble_size=2"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.run(params)
        validate.run(params)
    return folder / "results/validate"


def test_every_promised_file_is_written(results):
    assert {path.name for path in results.iterdir()} == {*TABLES, *FIGURES}


def test_every_predictor_is_in_the_summary_best_first(results):
    rows = table(results / "summary.csv")
    names = [row["predictor"] for row in rows]
    assert names[0] == "simulator" and rows[0]["skill_above_floor"] == "100.0 %"
    assert {"network", "network_reconstruction", "untrained", "constant", "mean", "ar1", "ridge_stimulus"} < set(names)
    assert {"pca_ridge", "pca_ridge_stimulus", "pca_reconstruction", "stimulus_ridge", "ridge"} < set(names)
    errors = [float(row["one_step_mse"]) for row in rows]
    assert errors == sorted(errors)
    assert next(row for row in rows if row["predictor"] == "constant")["over_constant"] == "1.000"


def test_metrics_are_the_means_of_the_members_and_agree_with_the_tables(results):
    metrics = json.loads((results / "metrics.json").read_text())
    members = table(results / "members.csv")
    assert [row["member"] for row in members] == ["0", "1"]
    for name in ("mse", "mse_validation", "r2_median", "latent_rollout_mse"):
        assert metrics[name] == pytest.approx(sum(float(row[name]) for row in members) / 2, rel=1e-4)
    curve = table(results / "horizon.csv")
    assert [row["steps_ahead"] for row in curve] == ["0", "1", "2", "3"]
    assert float(curve[0]["constant"]) == 0 and float(curve[1]["constant"]) > 0
    assert float(curve[3]["network"]) == pytest.approx(metrics["mse_ahead_3"], rel=1e-4)
    assert metrics["ratio_constant"] == pytest.approx(metrics["mse"] / metrics["mse_constant"], rel=1e-4)
    assert metrics["worse_than_constant"] == 1  # four steps train nothing
    assert metrics["mse_untrained"] not in [float(row["mse"]) for row in members]
    assert len(table(results / "types.csv")) == 16 and len(table(results / "rollout.csv")) == 20


def test_a_model_of_another_recording_is_refused_and_one_that_was_moved_is_not(with_data, data_path, tmp_path):
    """The same parameters, other values: whoever runs the stages by hand may have changed what simulates."""
    train.run(with_data())
    moved = f"data.path={shutil.copytree(data_path, tmp_path / 'moved')}"
    validate.run(with_data(moved))
    manifest = tmp_path / "moved/manifest.json"
    manifest.write_text(manifest.read_text() + " ")
    with pytest.raises(CheckpointError, match=r"model: trained on another recording than .*moved; run the train stage"):
        validate.run(with_data(moved))
