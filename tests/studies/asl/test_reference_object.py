"""The digital reference object: its maps as phantoms, and its kinetic model as an oracle for ours."""

import importlib
import json
import sys

import numpy as np
import pytest
import torch

from assay.errors import ConfigError, DataError
from assay.studies.asl import reference_object
from assay.studies.asl.phantom import PhantomBatch
from assay.studies.asl.physics import pcasl_signal
from assay.studies.asl.reference_object import brain_phantoms


@pytest.fixture(scope="module")
def brain():
    return brain_phantoms(slices=6, size=64)


@pytest.fixture(scope="module")
def fine():
    return brain_phantoms(slices=6, size=192).phantoms


def test_slices_have_the_form_of_a_phantom_batch(brain):
    phantoms = brain.phantoms
    assert isinstance(phantoms, PhantomBatch)
    maps = (phantoms.cbf, phantoms.att, phantoms.tissue, phantoms.lesion, phantoms.boundary, brain.mask)
    assert {tuple(each.shape) for each in maps} == {(6, 64, 64)}
    assert [each.dtype for each in maps] == [torch.float32] * 2 + [torch.uint8] * 2 + [torch.bool] * 2
    assert not phantoms.lesion.any()


def test_pure_pixels_have_the_published_values_of_their_tissue(fine):
    for tissue, cbf, att in ((0, 60.0, 800.0), (1, 20.0, 1200.0)):
        pure = fine.tissue == tissue
        torch.testing.assert_close(fine.cbf[pure], torch.full_like(fine.cbf[pure], cbf))
        torch.testing.assert_close(fine.att[pure], torch.full_like(fine.att[pure], att))
    assert fine.cbf[fine.tissue == 2].unique().tolist() == [0.0]


def test_averaging_over_coarser_pixels_keeps_the_total_perfusion(brain, fine):
    coarse = brain_phantoms(slices=6, size=50).phantoms
    for phantoms in (brain.phantoms, coarse):
        torch.testing.assert_close(phantoms.cbf.mean((1, 2)), fine.cbf.mean((1, 2)), rtol=1e-5, atol=1e-5)


def test_transit_time_mixes_perfused_tissue_only(brain):
    att, cbf = brain.phantoms.att, brain.phantoms.cbf
    perfused = cbf > 0
    assert (att[perfused] >= 799.9).all() and (att[perfused] <= 1200.1).all()
    assert (att[~perfused] == 5000.0).all()


def test_brain_fills_the_middle_and_leaves_air_at_the_edge(brain):
    mask = brain.mask
    assert 0.2 < mask.float().mean() < 0.6
    edge = torch.ones(64, 64, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    assert not mask[:, edge].any()
    rows = mask.any(dim=0).any(dim=1).nonzero()
    assert abs(float(rows.min() + rows.max()) / 2 - 31.5) <= 1.0


def test_boundary_is_where_a_neighbour_has_another_tissue(brain):
    tissue = torch.where(brain.mask, brain.phantoms.tissue, 9)
    boundary = brain.phantoms.boundary
    for image, row, column in [(0, 30, 30), (3, 20, 40), (5, 33, 25), *boundary.nonzero()[::97].tolist()]:
        here = tissue[image, row, column]
        around = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        expected = any(tissue[image, r, c] != here for r, c in around if 0 <= r < 64 and 0 <= c < 64)
        assert bool(boundary[image, row, column]) == expected


def test_same_arguments_give_the_same_slices(brain):
    torch.testing.assert_close(brain_phantoms(slices=6).phantoms.cbf, brain.phantoms.cbf, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size is 4; allowed: 8 to 192"),
        ({"size": 256}, "size is 256; allowed: 8 to 192"),
        ({"slices": 500}, "slices is 500; allowed: 1 to 91"),
    ],
)
def test_impossible_grid_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        brain_phantoms(**options)


def test_missing_package_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "asldro", None)
    with pytest.raises(DataError, match=r"missing .*; run: pip install --no-deps asldro==2\.2\.0") as refusal:
        brain_phantoms()
    assert "\n" not in str(refusal.value)


def test_ground_truth_in_other_units_is_refused(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    description = {"quantities": ["perfusion_rate", "transit_time"], "units": ["ml/100g/min", "ms"]}
    (tmp_path / "data" / "hrgt_icbm_2009a_nls_3t.json").write_text(json.dumps(description))
    monkeypatch.setattr(reference_object, "files", lambda package: tmp_path)
    with pytest.raises(DataError, match=r"units are .*'transit_time': 'ms'.*allowed: .*'transit_time': 's'"):
        brain_phantoms()


def gkm(cbf, att, pld, t1_artery, alpha, label_duration):
    """asldro's general kinetic model for continuous labelling, with tissue that decays like blood.

    Its label decays in tissue at 1/T1' = 1/T1 + f/lambda; the value of T1 given here makes T1' that of blood.
    """
    filters = importlib.import_module("asldro.filters.gkm_filter")
    image = importlib.import_module("asldro.containers.image").NumpyImageContainer
    f = cbf / 6000.0
    model = filters.GkmFilter()
    model.add_inputs(
        {
            "perfusion_rate": image(image=np.full((1, 1, 1), cbf)),
            "transit_time": image(image=np.full((1, 1, 1), att / 1000)),
            "t1_tissue": image(image=np.full((1, 1, 1), 1 / (1000 / t1_artery - f / 0.9))),
            "m0": 1.0,
            "label_type": "casl",
            "label_duration": label_duration / 1000,
            "signal_time": (label_duration + pld) / 1000,
            "label_efficiency": alpha,
            "lambda_blood_brain": 0.9,
            "t1_arterial_blood": t1_artery / 1000,
        }
    )
    model.run()
    return float(model.outputs["delta_m"].image.squeeze())


def test_pcasl_signal_is_that_of_the_general_kinetic_model_of_asldro():
    rng = np.random.default_rng(7)
    worst = 0.0
    arrived = set()
    for _ in range(200):
        cbf, att, pld = rng.uniform(1, 150), rng.uniform(100, 5000), rng.uniform(100, 3500)
        t1_artery, alpha, duration = rng.uniform(1400, 2300), rng.uniform(0.6, 1), rng.uniform(800, 2500)
        ours = pcasl_signal(
            torch.tensor(cbf, dtype=torch.float64),
            torch.tensor(att, dtype=torch.float64),
            torch.tensor(pld, dtype=torch.float64),
            t1_artery=t1_artery,
            alpha=alpha,
            label_duration=duration,
        )
        arrived.add((att > pld) + (att > pld + duration))
        worst = max(worst, abs(float(ours) - gkm(cbf, att, pld, t1_artery, alpha, duration)))
    assert arrived == {0, 1, 2}
    assert worst < 1e-12
