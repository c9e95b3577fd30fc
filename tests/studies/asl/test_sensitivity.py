"""The stage sensitivity: proportional estimators have slope 1, others have not, and the null stands beside them."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from assay.errors import ConfigError
from assay.studies.asl import sensitivity
from assay.studies.asl.amplitude import curve, log_slope, respond, tissue_lines
from assay.studies.asl.bootstrap import resamples
from assay.studies.asl.estimators import least_squares
from assay.studies.asl.heldout import scan, voronoi
from assay.studies.asl.trained import Maps

SCALES = (0.5, 0.7, 1.0, 1.4, 2.0)


def proportional(power: float = 1.0):
    """CBF rises as a power of the mean signal; ATT does not depend on it."""

    def estimate(signal, sigma=None) -> Maps:
        level = signal.mean(1).clamp(min=1e-6)
        return Maps(40 * (level / 0.003) ** power, torch.full_like(level, 1200.0), None, None)

    return estimate


def measure(make_params, estimator, phantoms: int = 4):
    held_out = voronoi(make_params(), phantoms, "test").within(100)
    response = respond(estimator, held_out, scan(held_out, 10.0, "test"), SCALES)
    return response, resamples(phantoms, 300)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_slope_is_the_power_of_the_response(make_params, power):
    estimator = proportional(power)
    response, weights = measure(make_params, lambda scan: estimator(scan.signal))
    value, low, high = curve(response, weights).slope
    assert float(value) == pytest.approx(power, abs=0.01)  # the clamp at 200 touches a few noisy voxels
    assert float(low) <= float(value) + 1e-9 and float(value) <= float(high) + 1e-9


def test_least_squares_is_proportional_and_keeps_att(make_params):
    response, weights = measure(make_params, least_squares(make_params()))
    found = curve(response, weights)
    assert float(found.slope.value) == pytest.approx(1, abs=0.005)
    assert float(found.att_change.value.max()) < 0.01
    assert float(found.att_change.value[SCALES.index(1)]) == 0


def test_a_shift_of_att_is_reported_in_per_cent(make_params):
    def drifting(scan) -> Maps:
        att = 1000 * (1 + 0.05 * torch.log2(scan.sigma / reference)).expand_as(scan.signal)[:, 0]
        return Maps(torch.full_like(att, 50.0), att, None, None)

    reference = scan(voronoi(make_params(), 4, "test"), 10.0, "test").sigma
    response, weights = measure(make_params, drifting)
    assert float(curve(response, weights).att_change.value.max()) == pytest.approx(5, rel=1e-3)


def test_the_line_by_tissue_finds_gain_and_offset(make_params):
    held_out = voronoi(make_params("data.image_size=32"), 4, "test")

    def estimator(scan) -> Maps:
        return Maps(5 + 0.8 * held_out.clean.cbf, held_out.clean.att, None, None)

    response = respond(estimator, held_out, scan(held_out, 10.0, "test"), SCALES)
    lines = tissue_lines(response, resamples(4, 300))
    assert {"grey", "white", "boundary"} <= set(lines)
    for line in lines.values():
        assert float(line.slope.value) == pytest.approx(0.8, abs=1e-3)
        assert float(line.intercept.value) == pytest.approx(5, abs=0.1)


def test_a_response_that_vanishes_has_no_slope():
    assert log_slope(torch.tensor([1.0, 2.0]), torch.tensor([[0.0], [1.0]])).isnan()


# The stage


def table(path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def run_with(monkeypatch, tmp_path):
    """Run the stage with `trained` as the network and `nulls` as the untrained ones."""

    def run(params, trained, nulls, out="out"):
        fakes = {seed: SimpleNamespace(estimate=each) for seed, each in enumerate(nulls)}
        monkeypatch.setattr(sensitivity, "load_for", lambda *_: SimpleNamespace(estimate=trained))
        monkeypatch.setattr(sensitivity, "untrained", lambda folder, seed, device: fakes[seed])
        sensitivity.run(params, tmp_path / out)
        return tmp_path / out

    return run


def test_the_network_stands_beside_least_squares_and_the_null(make_params, run_with):
    nulls = [proportional(power) for power in (0.0, 0.1, 0.6)]
    out = run_with(make_params("sensitivity.null_seeds=3"), proportional(1.0), nulls)
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["slope", "slope_null", "slope_ls", "att_change_percent"]
    assert metrics["slope"] == pytest.approx(1, abs=0.02)
    assert metrics["slope_null"] == pytest.approx(0.1, abs=0.02), "the median over seeds"
    assert metrics["slope_ls"] == pytest.approx(1, abs=0.01)
    assert metrics["att_change_percent"] == 0
    summary = {row["estimator"]: row for row in table(out / "summary.csv")}
    assert float(summary["untrained"]["slope_low"]) == pytest.approx(0.0, abs=0.02), "the range over seeds"
    assert float(summary["untrained"]["slope_high"]) == pytest.approx(0.6, abs=0.02)


def test_the_stage_writes_the_same_bytes_twice(make_params, run_with):
    one, two = (run_with(make_params(), proportional(), [proportional(0.0)] * 2, out) for out in ("one", "two"))
    names = sorted(path.name for path in one.iterdir())
    assert names == ["metrics.json", "response.csv", "response.png", "summary.csv", "tissue.csv"]
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_the_published_scores_of_an_earlier_run_do_not_stay(make_params, run_with, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "legacy.json").write_text("{}")
    out = run_with(make_params(), proportional(), [proportional(0.0)] * 2)
    assert (out / "metrics.json").exists() and not (out / "legacy.json").exists()


def test_a_scale_that_leaves_no_voxel_is_refused(make_params, run_with):
    with pytest.raises(
        ConfigError, match=r"sensitivity\.scales: got 199 as the largest; .* CBF of 1 to 1\.01; give a sm"
    ):
        run_with(make_params("sensitivity.scales=[0.01,1,199]"), proportional(), [proportional(0.0)] * 2)
