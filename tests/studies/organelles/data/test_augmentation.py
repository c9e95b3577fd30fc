"""From bytes to channels: NaN where nothing is known, and random changes that keep image and labels together."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import DataError
from assay.studies.organelles.augmentation import augment, blurred, channels, disturb, draw_turns, expand, prepare
from assay.studies.organelles.classes import CLASSES, OUTSIDE
from assay.studies.organelles.data_section import AugmentationConfig
from assay.studies.organelles.patches import RawBatch

OFF = AugmentationConfig(flip=False, transpose=False, rotation=0.0, contrast=0.0, gamma=0.0, noise=0.0, blur=0.0)
ALL = AugmentationConfig(flip=True, transpose=True, rotation=180.0, contrast=0.2, gamma=0.3, noise=0.1, blur=1.0)
COUNT = len(CLASSES)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def raw(seed=0, samples=4, space=(12, 12)):
    """A batch in which a corner is outside, one voxel unknown and some classes are not annotated."""
    draw = rng(seed)
    label = torch.randint(0, COUNT + 1, (samples, *space), generator=draw, dtype=torch.uint8)
    label[0, ..., 5, 5] = OUTSIDE
    inside = torch.ones(samples, *space, dtype=torch.bool)
    inside[..., :3, :4] = False
    image = torch.randint(0, 256, (samples, 1, *space), generator=draw, dtype=torch.uint8)
    return RawBatch(image, label, inside, torch.rand(samples, COUNT, generator=draw) < 0.6)


@pytest.mark.parametrize("space", [(12, 12), (3, 12, 12)])
def test_channels_are_1_0_or_nan(space):
    batch = raw(space=space)
    image, target = expand(batch, "cpu")
    assert image.shape == (4, 1, *space) and target.shape == (4, COUNT, *space)
    assert torch.equal(image, batch.image / 255)
    for place in range(COUNT):
        known = batch.inside & (batch.label != OUTSIDE) & batch.annotated[:, place].view(-1, *(1,) * len(space))
        assert torch.equal(~target[:, place].isnan(), known)
        assert torch.equal(target[:, place][known], (batch.label == place + 1)[known].float())


def test_an_image_that_was_not_scaled_is_refused():
    batch = raw()
    with pytest.raises(DataError, match=r"image: got float32 up to 25\d; allowed: uint8, of which 255 becomes 1"):
        expand(batch._replace(image=batch.image.float()), "cpu")
    image, target = expand(batch, "cpu")
    with pytest.raises(DataError, match=r"image: got values up to 25\d; allowed: 0 to 1; divide uint8 by 255"):
        augment(image * 255, target, rng(), ALL)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_whatever_is_drawn_images_stay_between_0_and_1(seed):
    image, target = prepare(raw(seed), "cpu", rng(seed), ALL)
    assert float(image.min()) >= 0 and float(image.max()) <= 1
    assert set(target.nan_to_num(-1).unique().tolist()) <= {-1, 0, 1}


@pytest.mark.parametrize("space", [(12, 12), (3, 12, 12)])
@pytest.mark.parametrize("section", [ALL, replace(ALL, rotation=0.0), OFF])
def test_turning_one_channel_of_labels_is_turning_all_classes(section, space):
    batch = raw(space=space)
    quick = prepare(batch, "cpu", rng(7), section)
    slow = augment(*expand(batch, "cpu"), rng(7), section)
    assert torch.equal(quick[0], slow[0])
    assert torch.equal(quick[1].nan_to_num(-1), slow[1].nan_to_num(-1))


def test_without_augmentation_nothing_changes():
    image, target = expand(raw(), "cpu")
    same = augment(image, target, rng(), OFF)
    assert torch.equal(same[0], image)
    assert torch.equal(same[1].nan_to_num(-1), target.nan_to_num(-1))


def marked(samples=64, edge=9):
    """Images of distinct values, and a target that is the same."""
    values = torch.linspace(0, 1, edge * edge).view(1, 1, edge, edge).repeat(samples, 1, 1, 1)
    return values, values.clone()


def test_mirrors_and_swaps_give_all_eight_views_of_a_square_and_move_labels_along():
    image, target = marked()
    turned, moved = augment(image, target, rng(), replace(OFF, flip=True, transpose=True))
    assert torch.equal(turned, moved)
    views = {tuple(view.flatten().tolist()) for view in turned}
    square = image[0, 0]
    expected = [square, square.flip(0), square.flip(1), square.flip(0, 1)]
    assert views == {tuple(view.flatten().tolist()) for each in expected for view in (each, each.mT)}


def test_volumes_are_mirrored_along_z_too():
    image = torch.linspace(0, 1, 4 * 36).view(1, 1, 4, 6, 6).repeat(32, 1, 1, 1, 1)
    turned, moved = augment(image, image.clone(), rng(), replace(OFF, flip=True))
    assert torch.equal(turned, moved)
    assert len({tuple(view.flatten().tolist()) for view in turned}) == 8


@pytest.mark.parametrize("angle", [0, 90, 180])
def test_a_rotation_by_right_angles_is_exact(angle, monkeypatch):
    image, target = marked(2)
    turn = math.radians(angle)
    matrix = torch.tensor([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]).repeat(2, 1, 1)
    monkeypatch.setattr("assay.studies.organelles.augmentation.draw_turns", lambda *_: matrix)
    turned, moved = augment(image, target, rng(), replace(OFF, rotation=180.0))
    expected = torch.rot90(image, -angle // 90, (2, 3)), torch.rot90(image, angle // 90, (2, 3))
    assert any(torch.allclose(turned, each, atol=1e-5) and torch.allclose(moved, each) for each in expected)


def test_mirrors_as_matrices_are_mirrors_of_the_array(monkeypatch):
    """The way of rotations and the way of mirrors agree."""
    image, target = marked(32)
    section = replace(OFF, flip=True, transpose=True)
    mirrored = augment(image, target, rng(3), section)[0]
    matrix = draw_turns(32, image.shape[-2:], rng(3), section)
    monkeypatch.setattr("assay.studies.organelles.augmentation.draw_turns", lambda *_: matrix)
    rotated = augment(image, target, rng(3), replace(section, rotation=180.0))[0]
    assert torch.allclose(mirrored, rotated, atol=1e-5)


def test_what_a_rotation_brings_in_is_0_and_not_annotated():
    image, target = torch.full((16, 1, 20, 20), 0.5), torch.ones(16, COUNT, 20, 20)
    turned, moved = augment(image, target, rng(), replace(OFF, rotation=180.0))
    outside = moved.isnan()
    assert (outside == outside[:, :1]).all()
    assert 0.02 < float(outside.float().mean()) < 0.25
    assert (turned[outside[:, :1]] == 0).all()
    assert torch.allclose(turned[~outside[:, :1]], torch.tensor(0.5))
    assert (moved[~outside] == 1).all()


def test_rotations_move_image_and_labels_to_the_same_place():
    square = torch.zeros(24, 1, 33, 33)
    square[:, :, 6:14, 18:30] = 1
    turned, moved = augment(square, square.clone(), rng(), replace(OFF, rotation=180.0, flip=True, transpose=True))
    apart = (turned.gt(0.5).float() - moved.nan_to_num(0)).abs().flatten(1).sum(1)
    assert float(apart.max()) < 16
    assert float(moved.nan_to_num(0).flatten(1).sum(1).min()) > 70


def test_edges_that_differ_cannot_be_swapped():
    image = torch.zeros(2, 1, 8, 12)
    with pytest.raises(DataError, match=r"augmentation.transpose: got patches of 8 x 12; allowed: equal edges; set it"):
        augment(image, image.clone(), rng(), replace(OFF, transpose=True))


def test_each_disturbance_changes_the_image_and_not_the_labels():
    image, target = expand(raw(samples=32, space=(16, 16)), "cpu")
    for name in ("contrast", "gamma", "noise", "blur"):
        changed, same = augment(image, target, rng(), replace(OFF, **{name: 0.9}))
        assert torch.equal(same.nan_to_num(-1), target.nan_to_num(-1)), name
        assert (changed - image).abs().flatten(1).amax(1).gt(1e-3).float().mean() > 0.6, name


def test_disturbances_are_what_they_say():
    flat = torch.full((200, 1, 16, 16), 0.5)
    noisy = disturb(flat, rng(), replace(OFF, noise=0.1))
    spread = noisy.flatten(1).std(1)
    assert float(spread.max()) < 0.12 and float(spread.min()) < 0.02
    bent = disturb(flat, rng(), replace(OFF, gamma=0.3))
    exponents = bent[:, 0, 0, 0].log() / math.log(0.5)
    assert math.exp(-0.3) - 1e-3 <= float(exponents.min()) and float(exponents.max()) <= math.exp(0.3) + 1e-3
    ramp = torch.linspace(0.3, 0.6, 256).view(1, 1, 16, 16).repeat(200, 1, 1, 1)
    stretched = disturb(ramp, rng(), replace(OFF, contrast=0.2))
    factors = (stretched.amax((1, 2, 3)) - stretched.amin((1, 2, 3))) / 0.3
    assert 0.8 <= float(factors.min()) < 0.85 and 1.15 < float(factors.max()) <= 1.2
    means = stretched.mean((1, 2, 3)) / ramp[0].mean()
    assert 0.8 <= float(means.min()) < 0.85 and 1.15 < float(means.max()) <= 1.2
    assert abs(float(torch.corrcoef(torch.stack([means, factors]))[0, 1])) < 0.3


def test_a_blur_is_a_gaussian_that_keeps_constants():
    point = torch.zeros(2, 1, 31, 31)
    point[:, :, 15, 15] = 1
    spread = blurred(point, torch.tensor([1.5, 0.0]))
    offset = (torch.arange(31) - 15.0) ** 2
    assert float((spread[0, 0].sum(0) * offset).sum()) == pytest.approx(1.5**2, rel=1e-3)
    assert torch.equal(spread[1], point[1])
    assert torch.allclose(blurred(torch.ones(2, 1, 3, 9, 9), torch.tensor([0.7, 2.0])), torch.ones(2, 1, 3, 9, 9))


def test_the_same_key_gives_the_same_changes():
    first, again, other = (prepare(raw(), "cpu", rng(seed), ALL)[0] for seed in (4, 4, 5))
    assert torch.equal(first, again) and not torch.equal(first, other)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_a_gpu_expands_to_the_same_channels():
    batch = raw(space=(3, 12, 12))
    here, there = expand(batch, "cpu"), expand(batch, "cuda")
    assert all(torch.equal(a.nan_to_num(-1), b.cpu().nan_to_num(-1)) for a, b in zip(here, there, strict=True))
    image, target = prepare(batch, "cuda", torch.Generator("cuda").manual_seed(0), ALL)
    assert image.is_cuda and target.is_cuda and float(image.max()) <= 1


def test_classes_beyond_the_annotation_vector_are_not_made():
    code = torch.tensor([[[0, 1], [2, OUTSIDE]]], dtype=torch.uint8)
    target = channels(code, torch.tensor([[True, False]]))
    assert target[0, 0].nan_to_num(-1).tolist() == [[0, 1], [0, -1]]
    assert target[0, 1].isnan().all()
