"""The quality page: which maps are flagged, and that the page can be drawn and repeated."""

import dataclasses
import struct
from pathlib import Path

import numpy as np
import pytest

from assay.studies.asl.bids import read_asl
from assay.studies.asl.quality import quality_checks, quality_page

ALPHA_BS = 0.95
MODEL = "homogeneous network"


@pytest.fixture
def joint(bids_dataset):
    dataset = bids_dataset()
    dataset.m0_map[0] = 0
    dataset.write_joint()
    (series,) = read_asl(dataset.root)
    return series, dataset.cbf.astype(np.float32), dataset.att.astype(np.float32)


def flagged(series, cbf, att):
    return [check.name for check in quality_checks(series, cbf, att, ALPHA_BS) if not check.passed]


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n")
    return struct.unpack(">II", content[16:24])


def test_plausible_maps_pass_every_check(joint):
    series, cbf, att = joint
    checks = quality_checks(series, cbf, att, ALPHA_BS)
    assert len(checks) == 6
    assert all(check.passed for check in checks)


def test_medians_are_taken_within_the_mask(joint):
    series, cbf, att = joint
    inside = np.median(cbf[series.mask])
    outside = np.where(series.mask, cbf, 1e6)
    median = quality_checks(series, outside, att, ALPHA_BS)[0]
    assert (median.name, median.value) == ("Median CBF", f"{inside:.0f}")


@pytest.mark.parametrize(
    ("cbf_scale", "att_scale", "expected"),
    [
        (0.1, 1.0, ["Median CBF"]),
        (100.0, 1.0, ["Median CBF", "At the limit of CBF or ATT"]),
        (1.0, 0.001, ["Median ATT", "At the limit of CBF or ATT"]),
        (1.0, 2.5, ["Median ATT"]),
    ],
)
def test_wrong_units_and_saturated_maps_are_flagged(joint, cbf_scale, att_scale, expected):
    series, cbf, att = joint
    assert flagged(series, cbf * cbf_scale, att * att_scale) == expected


def test_label_and_control_exchanged_are_flagged(joint):
    series, cbf, att = joint
    swapped = dataclasses.replace(series, difference=-series.difference)
    assert flagged(swapped, cbf, att) == ["Negative difference"]


@pytest.mark.parametrize(("share", "names"), [(0.04, []), (0.08, ["At the limit of CBF or ATT"])])
def test_more_than_a_twentieth_at_the_limit_is_flagged(joint, share, names):
    series, cbf, att = joint
    inside = np.argwhere(series.mask)
    for place in inside[: round(share * len(inside))]:
        cbf[tuple(place)] = 200.0
    assert flagged(series, cbf, att) == names


def test_slices_read_long_after_the_delay_are_flagged(bids_dataset):
    dataset = bids_dataset()
    dataset.write(SliceTiming=[0.0, 0.3, 0.6, 0.9])
    (series,) = read_asl(dataset.root)
    (check,) = (each for each in quality_checks(series, dataset.cbf, dataset.att, ALPHA_BS) if not each.passed)
    assert (check.name, check.value, check.expected) == ("Slice delay after the PLD", "900", "0 to 100 ms")


def test_page_is_a_png_and_the_same_twice(joint, tmp_path):
    series, cbf, att = joint
    pages = [tmp_path / "figures" / "a.png", tmp_path / "figures" / "b.png"]
    for page in pages:
        checks = quality_page(series, cbf, att, out=page, model=MODEL, alpha_bs=ALPHA_BS)
        assert checks == quality_checks(series, cbf, att, ALPHA_BS)
    assert png_size(pages[0]) == (1560, 1032)
    assert pages[0].read_bytes() == pages[1].read_bytes()


@pytest.mark.parametrize("slices", [1, 4])
def test_page_of_a_thin_slab_can_be_drawn(bids_dataset, tmp_path, slices):
    dataset = bids_dataset()
    for name in ("cbf", "att", "m0_map"):
        setattr(dataset, name, getattr(dataset, name)[:, :, :slices])
    dataset.write()
    (series,) = read_asl(dataset.root)
    quality_page(series, dataset.cbf, dataset.att, out=tmp_path / "page.png", model=MODEL, alpha_bs=ALPHA_BS)
    assert png_size(tmp_path / "page.png") == (1560, 1032)


def test_page_of_a_sagittal_image_can_be_drawn(joint, tmp_path):
    series, cbf, att = joint
    turned = dataclasses.replace(series, affine=series.affine[:, [2, 0, 1, 3]])
    quality_page(turned, cbf, att, out=tmp_path / "page.png", model=MODEL, alpha_bs=ALPHA_BS)
    assert png_size(tmp_path / "page.png") == (1560, 1032)


def test_page_of_implausible_maps_can_be_drawn(joint, tmp_path):
    series, cbf, att = joint
    quality_page(series, 0 * cbf, 0 * att, out=tmp_path / "page.png", model=MODEL, alpha_bs=ALPHA_BS)
    assert png_size(tmp_path / "page.png") == (1560, 1032)


@pytest.mark.parametrize(
    ("changes", "alpha_bs", "value"),
    [
        ({"BackgroundSuppression": False}, 1.0, "none"),
        ({}, 0.95, "2"),
        ({}, 1.0, None),
        ({"BackgroundSuppressionNumberPulses": None}, 0.95, None),
    ],
)
def test_suppression_that_the_model_does_not_account_for_is_flagged(bids_dataset, changes, alpha_bs, value):
    dataset = bids_dataset()
    dataset.write(**changes)
    (series,) = read_asl(dataset.root)
    check = quality_checks(series, dataset.cbf, dataset.att, alpha_bs)[-1]
    assert check.name == "Suppression pulses" and check.passed == (value is not None)
    assert value is None or check.value == value
