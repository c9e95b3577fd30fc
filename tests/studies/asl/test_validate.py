"""The stage validate: what it writes, and that known estimators get the scores they deserve."""

import csv
import json
from types import SimpleNamespace

import pytest

from assay.errors import CheckpointError
from assay.studies.asl import validate
from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.estimators import least_squares
from assay.studies.asl.heldout import Scan
from assay.studies.asl.model import PUBLISHED_STATISTICS
from assay.studies.asl.trained import Maps

HEADLINES = {
    f"{quantity}_{name}"
    for quantity in ("cbf", "att")
    for name in ("mae", "mae_ratio_ls", "mae_ratio_smoothed_ls", "win_rate")
}
CONTROLS = {"cbf_mae_least_squares", "cbf_mae_untrained", "cbf_mae_constant"}


def table(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def run_with(monkeypatch, tmp_path):
    """Run the stage with an estimator in place of a trained network."""

    def run(params, estimate, out="out"):
        fake = SimpleNamespace(estimate=estimate, statistics=PUBLISHED_STATISTICS)
        monkeypatch.setattr(validate, "load_for", lambda *_: fake)
        monkeypatch.setattr(validate, "untrained", lambda *_: fake)
        validate.run(params, tmp_path / out)
        return tmp_path / out

    return run


def fit(params):
    """Least squares in the place of a network."""

    def estimate(signal, sigma) -> Maps:
        physics = validate.voronoi(params, 1, "any").clean.physics
        return least_squares(params)(Scan(None, signal, sigma, physics))

    return estimate


def test_least_squares_as_the_network_wins_nothing_and_loses_nothing(make_params, run_with):
    params = make_params()
    metrics = json.loads((run_with(params, fit(params)) / "metrics.json").read_text())
    assert set(metrics) == HEADLINES | CONTROLS
    assert metrics["cbf_mae"] == metrics["cbf_mae_least_squares"]
    assert metrics["cbf_win_rate"] == metrics["att_win_rate"] == 0
    assert metrics["cbf_mae_ratio_ls"] == metrics["att_mae_ratio_ls"] == 1


def test_where_physics_varies_the_network_stands_beside_both_kinds_of_least_squares(make_params, run_with):
    """Least squares with the nominal physics as the network: as good as itself, worse than the informed one."""
    params = make_params("physics.randomise=extended")
    uninformed = least_squares(params, physics=nominal_physics(params))
    out = run_with(params, lambda signal, sigma: uninformed(Scan(None, signal, sigma, None)))
    metrics = json.loads((out / "metrics.json").read_text())
    nominal = {f"{quantity}_mae_ratio_ls_nominal" for quantity in ("cbf", "att")}
    assert set(metrics) == HEADLINES | CONTROLS | nominal
    assert all(metrics[name] == 1 for name in nominal)
    assert metrics["cbf_mae_ratio_ls"] > 1.5 and metrics["att_mae_ratio_ls"] > 1


def test_every_estimator_is_judged_on_the_same_voxels(make_params, run_with):
    params = make_params()
    rows = table(run_with(params, fit(params)) / "table.csv")
    assert {row["estimator"] for row in rows} == {
        "network",
        "untrained",
        "constant",
        "least_squares",
        "smoothed_least_squares",
    }
    sizes = {row["n_voxels"] for row in rows if row["stratum"] == "all"}
    assert len(sizes) == 1
    assert {float(row["snr"]) for row in rows} == {5, 10}


def test_errors_fall_with_snr(make_params, run_with):
    params = make_params()
    out = run_with(params, fit(params))
    for quantity in ("cbf", "att"):
        rows = table(out / f"{quantity}_error_by_snr.csv")
        assert [row["snr"] for row in rows] == ["5", "10"]
        assert {"network", "least_squares", "smoothed_least_squares", "untrained", "constant"} < rows[0].keys()
        errors = [float(row["least_squares"]) for row in rows]
        assert errors[0] > 1.5 * errors[1]


def test_the_same_inputs_give_the_same_bytes(make_params, run_with):
    params = make_params()
    one, two = run_with(params, fit(params), "one"), run_with(params, fit(params), "two")
    for name in ("metrics.json", "table.csv", "summary.csv", "cbf_error_by_snr.csv", "error_by_snr.png"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_mispaired_score_is_written_on_request_and_leaves_the_others_alone(make_params, run_with):
    plain = make_params()
    legacy = make_params("legacy.mispaired_evaluation=true")
    one, two = run_with(plain, fit(plain), "one"), run_with(legacy, fit(legacy), "two")
    assert not (one / "legacy.json").exists()
    assert json.loads((two / "legacy.json").read_text())["win_rate"]["least_squares"]["cbf"] > 0.9
    assert (one / "metrics.json").read_bytes() == (two / "metrics.json").read_bytes()


def test_standard_deviations_are_judged_where_the_network_gives_them(make_params, run_with):
    params = make_params()

    def sure(signal, sigma) -> Maps:
        maps = fit(params)(signal, sigma)
        return maps._replace(cbf_std=maps.cbf * 0 + 0.5, att_std=maps.att * 0 + 30)

    out = run_with(params, sure)
    assert (out / "calibration.png").exists()
    assert not (run_with(params, fit(params), "without") / "calibration.png").exists()
    found = {row["metric"]: row for row in table(out / "table.csv") if row["estimator"] == "network"}
    assert 0 < float(found["coverage_68"]["value"]) <= float(found["coverage_95"]["value"]) <= 1


def test_nothing_stays_of_a_run_with_other_options(make_params, run_with):
    def sure(signal, sigma) -> Maps:
        maps = fit(params)(signal, sigma)
        return maps._replace(cbf_std=maps.cbf * 0 + 0.5, att_std=maps.att * 0 + 30)

    params = make_params("legacy.mispaired_evaluation=true", "evaluation.images=2")
    more = {path.name for path in run_with(params, sure).iterdir()}
    params = make_params("evaluation.images=0")
    less = {path.name for path in run_with(params, fit(params)).iterdir()}
    assert more - less == {"legacy.json", "calibration.png", "maps_0.png", "maps_1.png"}


def test_without_a_model_the_stage_says_which_stage_to_run(make_params, tmp_path):
    with pytest.raises(CheckpointError, match="run the train stage"):
        validate.run(make_params(), tmp_path / "out", tmp_path / "nowhere")
