"""Crops in the challenge's layout: absent, not annotated and outside are kept apart; scales; and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.studies.organelles.data.conftest import VOXEL, flags, new_crop, noise, ones

from assay.errors import ConfigError, DataError
from assay.studies.organelles.classes import CHALLENGE, CLASSES, NUCLEAR, OUTSIDE
from assay.studies.organelles.crop import NewCrop
from assay.studies.organelles.grid import Grid, grid_over, linear, nearest
from assay.studies.organelles.reader import read_crop, voxels_of
from assay.studies.organelles.zarr_layout import closest, find_crops, levels, write_crop

SHAPE = (8, 10, 12)
PM, NUC = CLASSES.index("pm") + 1, CLASSES.index("nuc") + 1


def read(root: Path, voxel_nm=VOXEL, context=(0, 0, 0)) -> NewCrop:
    (place,) = find_crops(root)
    return read_crop(place, voxel_nm, context)


def names(crop: NewCrop) -> list[str]:
    return [name for name, seen in zip(CLASSES, crop.annotated, strict=True) if seen]


def test_what_the_simulation_writes_is_read_back(tmp_path):
    given = new_crop("sim/crop4", SHAPE, annotated=flags("pm", "nuc", "ecs"))
    write_crop(tmp_path, 4, given)
    crop = read(tmp_path)
    assert (crop.name, crop.dataset, crop.voxel_nm) == ("sim/crop4", "sim", VOXEL)
    assert (crop.image == given.image).all()
    assert (crop.label == np.where(np.isin(given.label, [1, PM, NUC]), given.label, 0)).all()
    assert names(crop) == names(given) == ["ecs", "pm", "nuc"]
    assert crop.box is None


def test_two_crops_of_one_name_are_refused_as_a_split_could_not_tell_them_apart(tmp_path):
    crop = new_crop("sim/crop4", SHAPE, annotated=flags("pm"))
    write_crop(tmp_path, 4, crop)
    (place,) = find_crops(tmp_path)
    recon = place.image.parents[1]
    shutil.copytree(recon, recon.with_name("recon-9"))
    with pytest.raises(
        DataError, match=r"recon-4/.*recon-9/.*: got the same name sim/crop4; allowed: one number for each"
    ):
        find_crops(tmp_path)


def test_absent_not_annotated_and_outside_are_three_things(store):
    """pm was looked for and found in part; golgi_mem was looked for and is absent; nobody looked for nuc."""
    store.image(noise(16, 10, 12)).label("pm", ones(*SHAPE, first=2, last=4)).label("golgi_mem", ones(*SHAPE, last=0))
    assert not [path for path in (store.crop / "golgi_mem/s0").rglob("*") if path.name[0] != "." and path.is_file()]
    crop = read(store.root, context=(4, 0, 0))
    assert names(crop) == ["pm", "golgi_mem"]
    assert crop.box == ((0, 8), (0, 10), (0, 12))
    assert crop.image.shape == (12, 10, 12)
    assert (crop.label[2:4] == PM).all() and (crop.label[[0, 1, 4, 5, 6, 7]] == 0).all()
    assert (crop.label[8:] == OUTSIDE).all()


def test_255_in_bytes_is_unknown_and_in_instance_ids_a_label(store):
    values = ones(*SHAPE, last=1)
    values[1] = OUTSIDE
    ids = np.zeros(SHAPE, np.uint16)
    ids[5] = OUTSIDE
    store.image(noise(*SHAPE)).label("pm", values).label("nuc", ids)
    label = read(store.root).label
    assert (label[0] == PM).all() and (label[1] == OUTSIDE).all() and (label[5] == NUC).all()
    assert (label[2:5] == 0).all()


def test_nuc_is_the_union_of_the_ten_parts_of_a_nucleus(store):
    assert [CHALLENGE.index(name) + 1 for name in NUCLEAR] == list(range(20, 30))
    assert (len(CHALLENGE), CHALLENGE.index("nuc") + 1) == (74, 37)
    store.image(noise(*SHAPE))
    for place, name in enumerate(NUCLEAR):
        store.label(name, ones(*SHAPE, first=place % 6, last=place % 6 + 1))
    crop = read(store.root)
    assert names(crop) == ["nuc"]
    assert (crop.label[:6] == NUC).all() and (crop.label[6:] == 0).all()


def test_nine_of_the_ten_parts_are_no_annotation_of_nuc(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE, last=1))
    for name in NUCLEAR[1:]:
        store.label(name, ones(*SHAPE, first=4, last=5))
    assert names(read(store.root)) == ["pm"]


def test_finer_labels_and_images_come_to_the_wanted_scale(store):
    """Labels of 4 nm in the middle of an image of 2 nm, both to 8 nm."""
    image = np.broadcast_to(np.arange(64, dtype=np.uint8) * 3, (32, 48, 64)).copy()
    fine = np.zeros((12, 16, 20), np.uint8)
    fine[:6] = 1
    store.image(image, (2.0, 2.0, 2.0), (1.0, 1.0, 1.0)).label("pm", fine, (4.0, 4.0, 4.0), (10.0, 18.0, 26.0))
    crop = read(store.root)
    assert crop.image.shape == crop.label.shape == (6, 8, 10)
    # a voxel of 8 nm at 24 nm + 8 k has its centre between voxels 13 + 4 k and 14 + 4 k of 2 nm
    assert crop.image[0, 0].tolist() == [round(3 * (13.5 + 4 * k)) for k in range(10)]
    assert (crop.label[:3] == PM).all() and (crop.label[3:] == 0).all()


def test_coarser_labels_are_taken_to_the_nearest_voxel(store):
    coarse = np.zeros((2, 2, 3), np.uint8)
    coarse[0, 0, 0] = 1
    store.image(noise(*SHAPE), VOXEL, (4.0, 4.0, 4.0)).label("pm", coarse, (32.0, 40.0, 32.0), (16.0, 20.0, 16.0))
    label = read(store.root).label
    assert label.shape == SHAPE
    assert (label[:4, :5, :4] == PM).all()
    assert label.astype(bool).sum() == 4 * 5 * 4


def test_the_level_closest_to_the_wanted_scale_is_read(store):
    from assay.studies.organelles.zarr_layout import EM, attributes

    store.image(noise(16, 20, 24), (4.0, 4.0, 4.0), (2.0, 2.0, 2.0)).label("pm", ones(*SHAPE), VOXEL, (4.0, 4.0, 4.0))
    coarse = noise(*SHAPE, seed=1)
    other = type(store)(store.root / "other").image(coarse, VOXEL, (4.0, 4.0, 4.0))
    (other.recon / EM / "s0").rename(store.recon / EM / "s1")
    grids = [("s0", Grid((4.0,) * 3, (2.0,) * 3, (16, 20, 24))), ("s1", Grid(VOXEL, (4.0,) * 3, SHAPE))]
    (store.recon / EM / ".zattrs").write_text(json.dumps(attributes(grids)))
    found = levels(store.recon / EM)
    assert [closest(found, (edge,) * 3).path.name for edge in (2.0, 4.0, 5.0, 6.0, 8.0, 32.0)] == [
        *("s0", "s0", "s0", "s1", "s1", "s1")
    ]
    (place,) = [place for place in find_crops(store.root) if place.dataset == "jrc_hela-2"]
    assert (read_crop(place, VOXEL, (0, 0, 0)).image == coarse).all()


def test_context_is_kept_as_far_as_there_is_image(store):
    image = noise(8, 30, 30)
    store.image(image).label("pm", ones(8, 10, 10), VOXEL, (0.0, 80.0, 160.0))
    crop = read(store.root, context=(4, 4, 100))
    assert crop.image.shape == (8, 18, 30)
    assert crop.box == ((0, 8), (4, 14), (20, 30))
    assert (crop.image == image[:, 6:24]).all()
    assert (crop.label[:, 4:14, 20:] == PM).all()
    assert (crop.label == OUTSIDE).sum() == crop.label.size - 800


def test_labels_beyond_the_image_are_cut_off(store):
    store.image(noise(8, 10, 9)).label("pm", ones(*SHAPE))
    crop = read(store.root)
    assert crop.image.shape == crop.label.shape == (8, 10, 9)


def test_resampling_to_the_same_grid_changes_nothing():
    volume = noise(*SHAPE)
    grid = Grid((4.0, 5.0, 6.0), (1.0, 2.0, 3.0), SHAPE)
    assert (linear(volume, grid, grid) == volume).all()
    assert (nearest(volume, grid, grid) == volume).all()
    assert grid_over(grid.start.tolist(), grid.end.tolist(), grid.scale) == grid


def test_a_linear_ramp_stays_one_at_any_scale():
    ramp = np.add.outer(np.add.outer(np.arange(20.0), np.arange(16.0)), np.arange(12.0)).astype(np.float32)
    source = Grid((4.0, 4.0, 4.0), (0.0, 0.0, 0.0), (20, 16, 12))
    wanted = Grid((5.0, 6.0, 7.0), (3.0, 4.0, 5.0), (10, 8, 5))
    centres = [wanted.centres(axis) / 4 for axis in range(3)]
    expected = np.add.outer(np.add.outer(centres[0], centres[1]), centres[2])
    assert np.allclose(linear(ramp, source, wanted), expected, atol=1e-4)


def test_the_size_of_a_crop_is_known_before_it_is_read(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE))
    (place,) = find_crops(store.root)
    assert voxels_of(place, (16.0, 16.0, 16.0)) == 4 * 5 * 6


def test_other_classes_of_the_challenge_are_left_alone(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE)).label("lyso_mem", ones(*SHAPE)).label("all", ones(*SHAPE))
    assert names(read(store.root)) == ["pm"]


def refused(store, match, **options):
    with pytest.raises(DataError, match=match):
        read(store.root, **options)


def test_a_name_that_is_in_no_class_table_is_refused(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE)).label("vesicle_mem", ones(*SHAPE))
    refused(store, r"crop jrc_hela-2/crop7: got vesicle_mem; allowed: ecs, pm, .*; correct the name")


def test_a_crop_without_a_class_of_the_study_is_refused(store):
    store.image(noise(*SHAPE)).label("lyso_mem", ones(*SHAPE))
    refused(store, r"crop jrc_hela-2/crop7: got lyso_mem; allowed: one or more of ecs, .*; leave it out")


def test_a_constant_image_is_refused(store):
    image = noise(12, 10, 12)
    image[:8] = 0
    store.image(image).label("pm", ones(*SHAPE))
    refused(store, r"crop7: got an image that is 0 everywhere in the label box; allowed: an image with contrast")


def test_an_image_that_does_not_reach_the_labels_is_refused(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE), VOXEL, (64.0, 0.0, 0.0))
    refused(store, r"crop7: got labels from 60, -4, -4 to 124, .* and an image from -4, -4, -4 to 60, .* reaches the")


@pytest.mark.parametrize(("value", "words"), [(np.nan, "nan to nan"), (300.0, "to 300"), (-1.0, "from -1")])
def test_an_image_that_is_no_bytes_or_not_finite_is_refused(value, words, store):
    image = noise(*SHAPE).astype(np.float32)
    image[3, 3, 3] = value
    store.image(image).label("pm", ones(*SHAPE))
    refused(store, rf"crop7: got an image with values .*{words}.*; allowed: finite numbers from 0 to 255")


def test_a_crop_without_an_image_is_refused(store):
    store.label("pm", ones(*SHAPE))
    refused(store, r"crop jrc_hela-2/crop7: got no image in .*fibsem-uint8; allowed: one level or more; fetch it")


def test_classes_that_overlap_are_refused(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE, last=4)).label("ecs", ones(*SHAPE, first=3))
    refused(store, r"crop7: got 120 voxels of both ecs and pm; allowed: classes that do not overlap")


def test_classes_with_different_boxes_are_refused(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE)).label("nuc", ones(4, 10, 12))
    refused(store, r"crop7: got class nuc from .* class pm from .*; allowed: one label box")


@pytest.mark.parametrize(
    ("values", "words"), [(ones(*SHAPE) * 0.5, "type float64 in pm"), (-ones(*SHAPE).astype("i1"), "label -1 in pm")]
)
def test_labels_that_are_none_are_refused(values, words, store):
    store.image(noise(*SHAPE)).label("pm", values)
    refused(store, rf"crop7: got .*{words}; allowed: .*; correct the labels")


def test_an_id_that_is_in_no_class_table_is_refused(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE)).label("all", ones(*SHAPE) * 75)
    refused(store, r"crop7: got label 75 in all; allowed: 0 to 74, or 255 for unknown")


def test_missing_or_damaged_attributes_are_refused(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE))
    (store.crop / "pm/.zattrs").write_text('{"multiscales": [{}]}')
    refused(store, r"pm/.zattrs: is no multiscale of OME-NGFF \(KeyError\('datasets'\)\); fetch it again")
    (store.crop / "pm/.zattrs").unlink()
    refused(store, r"pm/.zattrs: no such file; allowed: scale and translation of OME-NGFF")


def test_a_class_without_a_level_or_with_a_damaged_one_is_refused(store):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE))
    (store.crop / "pm/s0/.zarray").write_text("{}")
    refused(store, r"s0: is no array of three axes in Zarr format 2 \(KeyError: 'shape'\)")
    (store.crop / "pm/s0").rename(store.root / "elsewhere")
    refused(store, r"crop jrc_hela-2/crop7: class pm has no level; allowed: s0; fetch it, or remove the class")


def test_a_folder_without_crops_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"got no crops; allowed: <dataset>/<dataset>.zarr/.*; set data.zarr to the folder"
    ):
        find_crops(tmp_path)


def test_a_missing_package_is_told_with_the_extra_to_install(store, monkeypatch):
    store.image(noise(*SHAPE)).label("pm", ones(*SHAPE))
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(ConfigError, match=r"data.zarr: zarr cannot be imported .*; install assay\[organelles\]"):
        read(store.root)
