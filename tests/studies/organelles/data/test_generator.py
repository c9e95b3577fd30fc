"""Simulated crops: a function of their number, with the shares that were measured on real ones, and their artefacts."""

from itertools import product

import numpy as np
import pytest
import torch

from assay.engine.random import generator
from assay.studies.organelles.annotation import PROBABILITIES, draw_annotation
from assay.studies.organelles.canvas import Canvas
from assay.studies.organelles.classes import CLASSES, GROUPS
from assay.studies.organelles.draw import Draw
from assay.studies.organelles.fields import basis, field, level_distance
from assay.studies.organelles.generator import paint_objects, simulate_crop
from assay.studies.organelles.imaging import Microscope, blur, curtains, gaussian, image, shift_slices, slice_gain
from assay.studies.organelles.objects import LABEL, endosome, extracellular, mitochondrion, nucleus, ribosomes, vesicle

SHAPE = (64, 128, 128)
PROTOTYPE = {
    "ecs": 25,
    "pm": 2.7,
    "mito_mem": 3.7,
    "mito_lum": 10.1,
    "mito_ribo": 0.02,
    "golgi_mem": 2.6,
    "golgi_lum": 2.1,
    "ves_mem": 0.075,
    "ves_lum": 0.041,
    "endo_mem": 0.29,
    "endo_lum": 0.89,
    "er_mem": 2.7,
    "er_lum": 5.2,
    "nuc": 54,
}
"""Mean share in % of the voxels of those crops of 64 x 128 x 128 that show a class, measured on a prototype of 24."""
PRESENT = {"ecs": 0.55, "mito_lum": 0.7, "golgi_lum": 0.09, "ves_lum": 0.9, "endo_lum": 0.5, "er_lum": 1.0, "nuc": 0.28}


def draw(seed=0):
    return Draw(torch.Generator().manual_seed(seed))


def taken(scene):
    return ~scene.free(scene.whole)


def greys(scene):
    return scene.grey(torch.full(scene.shape, 150.0))


@pytest.fixture(scope="module")
def shares():
    """(crops, C): of 39 crops from three seeds, painted without texture and imaging."""
    found = []
    for seed, number in product(range(3), range(13)):
        scene = Canvas(SHAPE)
        paint_objects(scene, Draw(generator(seed, "shares", number)))
        found.append(torch.bincount(scene.label().flatten(), minlength=len(CLASSES) + 1)[1:] / scene.part.numel())
    return torch.stack(found)


def test_a_crop_depends_on_its_seed_and_number_alone():
    first = simulate_crop(1, 5, (16, 32, 32), 3, 0.35)
    simulate_crop(1, 6, (16, 32, 32), 3, 0.35)
    again = simulate_crop(1, 5, (16, 32, 32), 3, 0.35)
    assert all(torch.equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))
    for seed, number in ((2, 5), (1, 8)):
        assert not torch.equal(simulate_crop(seed, number, (16, 32, 32), 3, 0.35).image, first.image)


def test_shares_are_those_of_the_prototype_within_a_factor_of_two(shares):
    """Of golgi within a factor of three: two of the prototype's 24 crops showed one."""
    for place, name in enumerate(CLASSES):
        some = shares[shares[:, place] > 0, place]
        factor = 3 if name.startswith("golgi") else 2
        assert 1 / factor < 100 * float(some.mean()) / PROTOTYPE[name] < factor, name


def test_classes_are_as_frequent_as_they_should_be(shares):
    for name, wanted in PRESENT.items():
        found = float((shares[:, LABEL[name] - 1] > 0).float().mean())
        spread = (wanted * (1 - wanted) / len(shares)) ** 0.5
        assert found == pytest.approx(wanted, abs=3.5 * spread + 0.04), name


def test_no_class_takes_a_whole_data_set_and_most_crops_have_room_for_other(shares):
    assert float(shares.sum(1).mean()) < 0.6
    assert float(shares.mean(0).max()) < 0.3


def test_splines_add_up_to_1_and_their_slopes_to_0():
    values, slopes = basis(50, 3.7)
    assert torch.allclose(values.sum(1), torch.ones(50), atol=1e-5)
    assert torch.allclose(slopes.sum(1), torch.zeros(50), atol=1e-5)
    near, _ = basis(3, 1e3)
    steps = torch.diff(values, dim=0)
    between = (slopes[1:] + slopes[:-1]) / 2
    assert torch.allclose(steps, between, atol=0.02)
    assert near.shape == (3, 4)


@pytest.mark.parametrize("spacing", [2.2, 9, 30])
def test_fields_are_smooth_over_their_spacing_and_standardised(spacing):
    volume = field(SHAPE, spacing, draw())
    assert float(volume.mean()) == pytest.approx(0, abs=0.05)
    assert float(volume.std()) == pytest.approx(1, abs=0.05)
    lag = max(1, round(spacing / 4))
    near = float((volume[..., lag:] * volume[..., :-lag]).mean())
    assert near > 0.8
    far = round(4 * spacing)
    if far < 60:
        assert abs(float((volume[..., far:] * volume[..., :-far]).mean())) < 0.3


def test_level_distance_grows_by_one_voxel_per_voxel_at_the_surface():
    distance = level_distance((40, 60, 60), 30, 0.2, draw(3))
    gradient = torch.stack(torch.gradient(distance)).square().sum(0).sqrt()
    close = gradient[2:-2, 2:-2, 2:-2][distance.abs()[2:-2, 2:-2, 2:-2] < 2]
    assert float(close.median()) == pytest.approx(1, abs=0.1)


def test_plasma_membrane_lies_between_cell_and_outside():
    scene = Canvas(SHAPE)
    extracellular(scene, draw(1))
    outside, membrane = scene.label() == LABEL["ecs"], scene.label() == LABEL["pm"]
    assert outside.any() and membrane.any()
    cell = ~(outside | membrane)
    touching = (outside[..., 1:] & cell[..., :-1]) | (outside[..., :-1] & cell[..., 1:])
    assert float(touching.float().mean()) < 1e-3
    assert (scene.free(scene.whole) == cell).all()


def test_a_nucleus_has_two_dark_membranes_around_light_and_dark_chromatin():
    for seed in range(20):
        scene = Canvas(SHAPE)
        nucleus(scene, draw(seed))
        inside = scene.label() == LABEL["nuc"]
        if inside.float().mean() > 0.2:
            break
    membrane, dark, light, gap = greys(scene)[inside].unique().tolist()
    assert membrane < 86 and gap >= 150
    assert light - dark == pytest.approx(28, abs=1e-3)


def test_a_mitochondrion_has_a_membrane_all_around_cristae_and_ribosomes():
    scene = Canvas(SHAPE)
    mitochondrion(scene, draw(2))
    label = scene.label()
    lumen, other = label == LABEL["mito_lum"], label == 0
    assert not ((lumen[:, 1:] & other[:, :-1]) | (lumen[:, :-1] & other[:, 1:])).any()
    dots = label == LABEL["mito_ribo"]
    assert 0 < int(dots.sum()) <= 27 * round(1.2e-4 * label.numel() / 27)
    assert float(greys(scene)[dots].max()) < float(greys(scene)[lumen].min())


def test_endosomes_have_unlabelled_look_alikes():
    kinds = []
    for seed in range(200):
        scene = Canvas((32, 48, 48))
        endosome(scene, draw(seed))
        if taken(scene).any():
            kinds.append(bool((scene.label() > 0).any()))
    assert np.mean(kinds) == pytest.approx(0.6, abs=0.1)


def test_vesicles_lie_wholly_in_free_space():
    scene = Canvas((32, 48, 48))
    wall = torch.zeros(scene.shape, dtype=torch.bool)
    wall[:, :, 24:] = True
    scene.paint(scene.whole, wall, LABEL["nuc"], 100.0)
    for seed in range(60):
        vesicle(scene, draw(seed))
    label = scene.label()
    assert (label[:, :, :24] == LABEL["ves_lum"]).any()
    assert (label[:, :, 24:] == LABEL["nuc"]).all()


def test_objects_never_overlap():
    """What is painted once stays what it is."""
    scene = Canvas((32, 64, 64))
    for seed in range(6):
        before = scene.part.clone()
        mitochondrion(scene, draw(seed))
        endosome(scene, draw(seed))
        assert torch.equal(scene.part[before > 0], before[before > 0])


def test_a_canvas_that_has_all_its_parts_takes_no_more():
    scene = Canvas((4, 4, 4))
    everything = torch.ones(scene.shape, dtype=torch.bool)
    numbers = [scene.paint(scene.whole, everything & False, 1, 50.0) for _ in range(300)]
    assert numbers[:255] == list(range(1, 256)) and set(numbers[255:]) == {0}
    assert not taken(scene).any()


def test_ribosomes_are_dark_dots_with_their_density():
    dots = ribosomes(SHAPE, draw())
    assert float((dots < 0).float().mean()) == pytest.approx(8 * 0.004, rel=0.05)
    assert -60 <= float(dots.min()) <= -40 and float(dots.max()) == 0


def test_a_gaussian_has_weight_1_and_the_blur_keeps_the_mean():
    weights = gaussian(0.9)
    assert weights[0] + 2 * sum(weights[1:]) == pytest.approx(1)
    volume = torch.zeros(9, 11, 13)
    volume[4, 5, 6] = 1
    spread = blur(volume, 1.1, 0.6)
    assert float(spread.sum()) == pytest.approx(1, abs=1e-5)
    along = [float((spread.sum((1, 2)) * (torch.arange(9) - 4) ** 2).sum()), 1.1**2]
    assert along[0] == pytest.approx(along[1], rel=0.05)


def test_some_slices_are_shifted_by_less_than_a_voxel_or_two():
    volume = torch.arange(64.0).expand(200, 8, 64).clone()
    shift_slices(volume, draw())
    moved = (volume[:, :, 8:-8] - torch.arange(8.0, 56.0)).abs().amax((1, 2))
    assert 0.08 < float((moved > 1e-4).float().mean()) < 0.24
    assert float(moved.max()) < 2.5


def test_noise_has_a_variance_proportional_to_the_grey_value():
    microscope = Microscope(blur_z=0.6, blur=0.5, gain=1.0, offset=0.0, noise=100.0)
    for grey in (65.0, 130.0):
        seen = image(torch.full((8, 200, 200), grey), microscope, draw()).float()
        columns = seen - seen.mean(1, keepdim=True)
        assert float(columns.var()) == pytest.approx(100 * grey / 130, rel=0.15)


def test_gain_and_offset_act_on_what_the_microscope_saw():
    plain, changed = (
        image(torch.full((4, 60, 60), 100.0), Microscope(0.6, 0.5, gain, offset, 1e-6), draw()).float()
        for gain, offset in ((1.0, 0.0), (1.2, 15.0))
    )
    assert torch.allclose(changed, 1.2 * plain + 15, atol=1.2)


def test_slices_differ_in_brightness_by_a_jitter_and_a_slow_walk():
    gains = slice_gain(4000, draw())[:, 0, 0]
    assert float(gains.diff().std()) == pytest.approx((2 * 0.015**2 + 0.002**2) ** 0.5, rel=0.1)
    far = gains[1000:] - gains[:-1000]
    assert float(far.std()) < 3 * 0.002 * 1000**0.5


def test_curtains_are_dark_streaks_of_2_to_12_percent_along_y():
    depths = [1 - float(curtains(32, 200, draw(seed)).min()) for seed in range(30)]
    assert 0.015 < min(depths) < 0.05 and 0.09 < max(depths) <= 0.12
    streaks = curtains(32, 200, draw())
    assert streaks.shape == (32, 1, 200) and float(streaks.max()) == 1
    assert 0.02 < float((streaks < 1).float().mean()) < 0.3


def test_a_specimen_has_one_microscope_and_specimens_differ():
    means = {name: [] for name in ("simulated-01", "simulated-02", "simulated-03")}
    for number in range(12):
        crop = simulate_crop(0, number, (16, 48, 48), 3, 0.35)
        means[crop.dataset].append(float(crop.image.float().mean()))
    assert [len(each) for each in means.values()] == [4, 4, 4]
    between = np.std([np.mean(each) for each in means.values()])
    assert between > 3


def test_annotation_comes_by_groups_with_their_probabilities():
    drawn = torch.stack([draw_annotation(0.0, draw(seed)) for seed in range(1500)])
    often = dict(zip([group[0] for group in GROUPS], PROBABILITIES, strict=True))
    expected = {"ecs": 0.66, "mito_mem": 0.57, "mito_ribo": 0.24, "golgi_mem": 0.12, "er_mem": 0.78, "nuc": 0.28}
    assert {name: often[name] for name in expected} == expected
    for group, wanted in zip(GROUPS, PROBABILITIES, strict=True):
        columns = drawn[:, [LABEL[name] - 1 for name in group]]
        assert (columns == columns[:, :1]).all()
        assert float(columns.float().mean()) == pytest.approx(wanted, abs=0.05)
    assert drawn.any(1).all()


def test_a_share_of_the_crops_is_annotated_fully():
    full = [bool(draw_annotation(0.35, draw(seed)).all()) for seed in range(1000)]
    assert np.mean(full) == pytest.approx(0.35, abs=0.05)
    assert all(bool(draw_annotation(1.0, draw(seed)).all()) for seed in range(20))
