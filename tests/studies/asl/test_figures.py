"""Figures: written whole, the same every time, and every estimator has a look of its own."""

from itertools import product

import matplotlib.image
import pytest
import torch

from assay.studies.asl import estimators, figures, map_figures
from assay.studies.asl.amplitude import Curve
from assay.studies.asl.bootstrap import Estimate
from assay.studies.asl.evaluation import ALL, Score, Scores
from assay.studies.asl.heldout import STRATA, voronoi
from assay.studies.asl.trained import Maps

LEVELS = (3.0, 10.0, 25.0)
METRICS = ("mae", "mae_ratio", "mae_ratio_smoothed", "coverage_68", "coverage_95")


@pytest.fixture
def scores():
    places = product(("voronoi", "brain"), LEVELS, (ALL, *STRATA), figures.LOOKS, ("cbf", "att"), METRICS)
    return Scores(Score(*place, 3 / place[1], 2 / place[1], 4 / place[1], 100, 5) for place in places)


def pixels(path) -> tuple[int, int]:
    image = matplotlib.image.imread(path)
    assert image.std() > 0.05, "something is drawn"
    return image.shape[:2]


def test_every_estimator_has_one_look():
    names = [estimators.NETWORK, estimators.NULL, estimators.CONSTANT]
    names += [name + suffix for name in ("least_squares", "smoothed_least_squares") for suffix in ("", "_nominal")]
    assert set(figures.LOOKS) == set(names)
    assert len({(look.colour, look.line) for look in figures.LOOKS.values()}) == len(names)


@pytest.mark.parametrize("name", ["error_by_snr", "calibration"])
def test_curves_over_snr_are_drawn_alike_twice(scores, tmp_path, name):
    for out in ("one.png", "two.png"):
        getattr(figures, name)(tmp_path / out, scores, LEVELS)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert pixels(tmp_path / "one.png")[1] == 1125


def test_strata_without_voxels_are_left_out(scores, tmp_path):
    figures.strata(tmp_path / "whole.png", scores, 10.0)
    figures.strata(tmp_path / "part.png", Scores(row for row in scores.rows if row.stratum != "lesion"), 10.0)
    assert pixels(tmp_path / "whole.png") == pixels(tmp_path / "part.png")
    assert (tmp_path / "whole.png").read_bytes() != (tmp_path / "part.png").read_bytes()


def test_response_shows_the_range_of_the_null(tmp_path):
    scales = (0.5, 1.0, 2.0)

    def curve(power: float) -> Curve:
        cbf = 40 * torch.tensor(scales) ** power
        slope = Estimate(*[torch.tensor(power)] * 3)
        return Curve(Estimate(cbf, cbf, cbf), Estimate(cbf, cbf, cbf), Estimate(cbf, cbf, cbf), slope)

    curves = {name: curve(1.0) for name in ("network", "least_squares")}
    for out, powers in (("one.png", (0.0, 0.1)), ("two.png", (0.0, 0.8))):
        nulls = {f"untrained_{k}": curve(power) for k, power in enumerate(powers)}
        figures.response(tmp_path / out, scales, curves | nulls)
    assert pixels(tmp_path / "one.png") == pixels(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


def test_maps_are_drawn_of_as_many_phantoms_as_asked_for(make_params, tmp_path):
    phantoms = voronoi(make_params(), 3, "test")
    maps = dict.fromkeys(map_figures.SHOWN, Maps(phantoms.clean.cbf + 1, phantoms.clean.att + 1, None, None))
    map_figures.draw(tmp_path, phantoms, maps, 2, 10.0)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["maps_0.png", "maps_1.png"]
    pixels(tmp_path / "maps_0.png")


def test_drawing_leaves_the_global_style_alone(scores, tmp_path):
    before = dict(matplotlib.rcParams)
    figures.strata(tmp_path / "strata.png", scores, 10.0)
    assert dict(matplotlib.rcParams) == before
