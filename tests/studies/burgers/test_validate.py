"""The stage validate: what it writes, and that known estimators get the scores they deserve."""

import csv
import json
import os
import signal
from pathlib import Path

import pytest
import torch
from tests.studies.burgers.conftest import PARAMS, TINY

from assay.config import load
from assay.errors import CheckpointError, Unfinished
from assay.studies.burgers import baselines, estimators, networks, simulate, validate
from assay.studies.burgers.config import Params
from assay.studies.burgers.estimators import Networks
from assay.studies.burgers.networks import Loaded

FACTS = {"mean": 0.1, "std": 0.6, "scale": 0.05}
TABLES = ("metrics.json", "table.csv", "summary.csv", "per_trajectory.csv", "error_by_time.csv", "spectrum.csv")
FIGURES = ("error_by_time", "spectrum", "shock", "calibration", "spacetime_0")
SINGLE = {
    "network",
    "fno",
    "persistence",
    "constant_mean",
    "linear",
    "untrained",
    "coarse_solver_8",
    "coarse_solver_16",
}
ENSEMBLES = {"corrected", "distilled"}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def fresh(params, stage) -> Loaded:
    torch.manual_seed(0)
    module = networks.build(stage, params, FACTS).eval()
    return Loaded(stage=stage, module=module, params=params, facts=FACTS, digest=stage, upstream={})


@pytest.fixture(scope="module")
def run_with(tmp_path_factory):
    """Run the stage with untrained networks in place of trained ones, and the true solution in place of `perfect`."""
    folder = tmp_path_factory.mktemp("study")
    data = f"data.path={folder / 'data'}"
    simulate.run(load(Params, PARAMS, [*TINY, data]))

    def run(out: str, *overrides: str, perfect: str | None = None) -> Path:
        params = load(Params, PARAMS, [*TINY, data, *overrides])
        made = Networks(**{stage: fresh(params, stage) for stage in Networks._fields})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(validate, "load_networks", lambda *_: made)
            if perfect is not None:
                patch.setattr(estimators.predictors, perfect, lambda *_: true_solution(params))
            validate.run(params, folder / out)
        return folder / out

    return run


@pytest.fixture(scope="module")
def plain(run_with):
    """What the stage writes with the committed parameters at a tiny size."""
    return run_with("plain")


def true_solution(params):
    """What the data set itself has at the frames that a forecast is asked for."""
    data = networks.open_data(params)

    def forecast(start, nu, steps):
        u = data.split("test", nu)[:, :: params.data.stride]
        if steps == 1:
            return torch.stack([u[:, :-1], u[:, 1:]], dim=2).flatten(0, 1)
        return u

    return forecast


def test_every_promised_file_is_written_and_every_estimator_is_in_the_tables(plain):
    assert {path.name for path in plain.iterdir()} == {*TABLES, *(f"{name}.png" for name in FIGURES), "legacy.json"}
    rows = table(plain / "table.csv")
    for task, expected in (("one_step", SINGLE), ("sampled_step", SINGLE | ENSEMBLES), ("rollout", SINGLE | ENSEMBLES)):
        assert {row["estimator"] for row in rows if row["task"] == task} == expected
    assert {row["n"] for row in rows} == {"4"}
    assert {row["estimator"] for row in table(plain / "summary.csv")} == SINGLE | ENSEMBLES
    assert {row["row"] for row in table(plain / "per_trajectory.csv")} == {"0", "1", "2", "3"}
    assert not any(value is None for value in json.loads((plain / "metrics.json").read_text()).values())


def test_the_truth_as_the_network_has_no_error_and_its_rivals_have(run_with):
    out = run_with("perfect", perfect="operator")
    metrics = json.loads((out / "metrics.json").read_text())
    for task in ("one_step", "rollout"):
        assert metrics[f"{task}_nrmse"] == metrics[f"{task}_ratio_persistence"] == metrics[f"{task}_crps"] == 0
    found = {row["estimator"]: float(row["rollout"]) for row in table(out / "summary.csv")}
    assert found["persistence"] > 0.1 and found["coarse_solver_16"] < found["coarse_solver_8"] < found["persistence"]


def test_scores_tables_and_curves_agree(plain):
    rows = {(row["task"], row["estimator"], row["metric"]): row for row in table(plain / "table.csv")}
    curve, parts = table(plain / "error_by_time.csv"), table(plain / "per_trajectory.csv")
    assert [float(row["t"]) for row in curve] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    for name in SINGLE | ENSEMBLES:
        score = float(rows["rollout", name, "nrmse_frame"]["value"])
        assert sum(float(row[name]) for row in curve) / len(curve) == pytest.approx(score, rel=1e-4), name
        own = [float(row["nrmse_frame"]) for row in parts if (row["estimator"], row["task"]) == (name, "rollout")]
        assert sum(own) / 4 == pytest.approx(score, rel=1e-4), name


def test_pictures_and_scores_of_an_earlier_run_do_not_stay(run_with, plain):
    again = run_with("again")
    for stale in ("legacy.json", "spacetime_7.png"):
        (again / stale).write_text("of another run")
    run_with("again", "legacy.latent_metric=false")
    assert {path.name for path in again.iterdir()} == {path.name for path in plain.iterdir()} - {"legacy.json"}


def test_the_spectrum_of_the_truth_is_its_energy_and_coarse_solvers_end_early(plain):
    rows = [row for row in table(plain / "spectrum.csv") if row["t"] == "0.1"]
    params = load(Params, PARAMS, [*TINY, f"data.path={plain.parent / 'data'}"])
    u = networks.open_data(params).split("test", 0.01)[:, 10]
    assert sum(float(row["truth"]) for row in rows) == pytest.approx(float(u.square().mean()) / 2, rel=1e-4)
    assert [bool(row["coarse_solver_8"]) for row in rows] == [wave <= 4 for wave in range(17)]


def test_the_same_inputs_give_the_same_bytes_and_the_published_score_leaves_the_others_alone(run_with, plain):
    without = run_with("without", "legacy.latent_metric=false")
    written = {path.name for path in without.iterdir()}
    assert written == {path.name for path in plain.iterdir()} - {"legacy.json"}
    for name in written:
        assert (plain / name).read_bytes() == (without / name).read_bytes(), name
    scores = json.loads((plain / "legacy.json").read_text())
    assert set(scores["latent_nrmse"]) == {"network", "fno", "persistence"}
    assert (scores["tokens"], scores["latent_dim"]) == (8, 8)


def test_a_request_to_stop_leaves_nothing_written(run_with, plain, monkeypatch):
    def stopping(start, nu, steps):
        os.kill(os.getpid(), signal.SIGTERM)
        return baselines.persistence(start, steps + 1)

    monkeypatch.setattr(estimators, "persistence", stopping)
    with pytest.raises(Unfinished, match="of 20 forecasts; it starts anew next time"):
        run_with("stopped")
    assert not (plain.parent / "stopped").exists()


def test_a_classical_solver_that_would_take_too_many_steps_is_left_out(make_params):
    params = make_params("evaluation.coarse_cells=[8,16,32]")
    assert estimators.affordable(params, 0.01) == [8, 16, 32]
    assert estimators.affordable(params, 10.0) == [8, 16]


def test_without_a_network_the_stage_says_which_stage_to_run(make_params):
    params = make_params()
    simulate.run(params)
    with pytest.raises(CheckpointError, match="run assay stage burgers autoencoder"):
        validate.run(params, Path("out"))
