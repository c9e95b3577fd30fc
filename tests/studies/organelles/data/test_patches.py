"""Splits, the order of crops, and patches: a function of seed and number, balanced, inside the annotation, flat."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.studies.organelles.data.conftest import flags, new_crop

from assay.engine.distributed import Share
from assay.errors import DataError
from assay.studies.organelles.cache_files import SPLIT
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.crop import Crop
from assay.studies.organelles.data_section import SamplingConfig
from assay.studies.organelles.patches import PatchBatches, first_voxels
from assay.studies.organelles.sampler import BLOCK, CropOrder
from assay.studies.organelles.splits import make_split, read_split, write_split

FLAT = SamplingConfig(patch=(8, 10), crops="balanced")
DEEP = SamplingConfig(patch=(4, 8, 10), crops="balanced")
NAMES = [f"{'abcd'[place % 4]}/crop{place}" for place in range(40)]
DATASETS = [name[0] for name in NAMES]


def data_of(make_params, **changes):
    given = {"split": "crop", "validation_fraction": 0.15, **changes}
    text = {key: "null" if value is None else json.dumps(value) for key, value in given.items()}
    return make_params(*(f"data.{key}={value}" for key, value in text.items())).data


def split_of(make_params, **changes):
    return make_split(NAMES, DATASETS, data_of(make_params, **changes))


def test_a_split_is_a_share_of_the_crops_and_a_function_of_the_seed(make_params):
    first = split_of(make_params)
    assert len(first.validation) == 6 and sorted(first.train + first.validation) == list(range(40))
    assert split_of(make_params) == first
    assert split_of(make_params, seed=1).validation != first.validation


def test_whole_data_sets_are_held_out(make_params):
    drawn = split_of(make_params, split="dataset", validation_fraction=0.5)
    sides = [{DATASETS[place] for place in ids} for ids in (drawn.train, drawn.validation)]
    assert len(sides[0]) == len(sides[1]) == 2 and not sides[0] & sides[1]
    named = split_of(make_params, split="dataset", validation_fraction=None, held_out=["b"])
    assert {DATASETS[place] for place in named.validation} == {"b"}
    assert len(named.validation) == 10


def test_a_split_that_cannot_be_made_is_refused(make_params):
    with pytest.raises(DataError, match=r"data.held_out: got mouse; allowed: a, b, c, d; correct the name"):
        split_of(make_params, split="dataset", validation_fraction=None, held_out=["mouse"])
    with pytest.raises(DataError, match=r"split: got 40 crops of 4 data sets, none of which would train"):
        split_of(make_params, split="dataset", validation_fraction=None, held_out=["a", "b", "c", "d"])


def test_a_stored_split_comes_back_and_an_altered_one_is_refused(make_params, tmp_path):
    split = split_of(make_params)
    write_split(tmp_path / SPLIT, split, NAMES, data_of(make_params))
    assert read_split(tmp_path, NAMES) == split
    shuffled = [NAMES[place] for place in np.random.default_rng(0).permutation(40)]
    again = read_split(tmp_path, shuffled)
    assert {shuffled[place] for place in again.validation} == {NAMES[place] for place in split.validation}
    assert again.digest == split.digest
    document = json.loads((tmp_path / SPLIT).read_text())
    document["validation"].append(document["train"].pop())
    (tmp_path / SPLIT).write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"split.json: has been altered; run assay stage organelles simulate again"):
        read_split(tmp_path, NAMES)
    with pytest.raises(DataError, match=r"split.json: is no split of the crops beside it"):
        read_split(tmp_path, ["other/crop1"])
    (tmp_path / SPLIT).unlink()
    with pytest.raises(DataError, match=r"split.json: no such file"):
        read_split(tmp_path, NAMES)


def showing(number, *names):
    """A crop that shows some classes alone."""
    crop = new_crop(f"a/crop{number}", (4, 10, 12), number)
    return crop._replace(label=np.where(np.isin(crop.label, np.flatnonzero(flags(*names)) + 1), crop.label, 0))


def test_classes_are_seen_alike_though_one_is_rare(make_crops):
    """One crop of twenty shows golgi: drawn alike it would be seen in 5 % of the samples, balanced in every other."""
    crops = make_crops(*(showing(k, "pm", "ecs") for k in range(19)), showing(19, "golgi_mem"))
    for kind, low, high in (("balanced", 0.48, 0.52), ("uniform", 0.02, 0.09)):
        order = CropOrder(crops, range(20), replace(FLAT, crops=kind), seed=3)
        assert low < np.mean([order.at(sample) == 19 for sample in range(BLOCK)]) < high


def test_the_order_is_a_function_of_seed_and_sample(make_crops):
    crops = make_crops(*(showing(k, "pm") for k in range(9)))
    first, second, other = (CropOrder(crops, range(1, 9), FLAT, seed) for seed in (0, 0, 1))
    backwards = [second.at(sample) for sample in reversed(range(3 * BLOCK))]
    forwards = [first.at(sample) for sample in range(3 * BLOCK)]
    assert forwards == backwards[::-1]
    assert forwards != [other.at(sample) for sample in range(3 * BLOCK)]
    assert set(forwards) == set(range(1, 9))


def test_crops_that_show_nothing_are_drawn_alike(make_crops):
    crops = make_crops(*(new_crop(f"a/crop{k}", label=np.zeros((6, 20, 24), np.uint8)) for k in range(3)))
    order = CropOrder(crops, range(3), FLAT, seed=0)
    assert set(Counter(order.at(sample) for sample in range(60))) == {0, 1, 2}


@pytest.mark.parametrize("section", [FLAT, DEEP])
def test_a_batch_is_cut_from_the_crops(section, make_crops):
    given = [new_crop(f"a/crop{k}", seed=k, annotated=flags("pm") if k else flags()) for k in range(3)]
    batch = PatchBatches(make_crops(*given), range(3), section, seed=0, batch_size=16).batch(0)
    assert batch.image.shape == (16, 1, *section.patch)
    assert batch.label.shape == batch.inside.shape == (16, *section.patch)
    assert batch.inside.all()
    assert {sum(row) for row in batch.annotated.tolist()} <= {1, len(CLASSES)}
    windows = [np.lib.stride_tricks.sliding_window_view(crop.image, section.edges) for crop in given]
    for image, label, annotated in zip(batch.image, batch.label, batch.annotated, strict=True):
        found = [k for k in range(3) if (windows[k] == image.numpy().reshape(section.edges)).all((3, 4, 5)).any()]
        assert len(found) == 1
        hidden = set(np.unique(label)) - {0} - set((np.flatnonzero(annotated) + 1).tolist())
        assert not hidden


def test_a_batch_does_not_depend_on_what_was_cut_before(make_crops):
    crops = make_crops(*(new_crop(f"a/crop{k}", seed=k) for k in range(4)))
    one, other = (PatchBatches(crops, range(4), FLAT, seed=0, batch_size=3) for _ in range(2))
    for number in (5, 0, 5):
        one.batch(number)
    assert all(torch.equal(a, b) for a, b in zip(one.batch(9), other.batch(9), strict=True))
    assert not torch.equal(one.batch(9).image, one.batch(10).image)


def test_ranks_share_the_global_batch(make_crops):
    crops = make_crops(*(new_crop(f"a/crop{k}", seed=k) for k in range(4)))
    whole = PatchBatches(crops, range(4), FLAT, seed=0, batch_size=6)
    halves = [PatchBatches(crops, range(4), FLAT, 0, 3, Share(rank, 2)) for rank in (0, 1)]
    for number in (0, 7):
        joined = [torch.cat(parts) for parts in zip(*(half.batch(number) for half in halves), strict=True)]
        assert all(torch.equal(a, b) for a, b in zip(joined, whole.batch(number), strict=True))
    assert not torch.equal(halves[0].batch(0).image, halves[1].batch(0).image)


@given(
    whole=st.integers(4, 40),
    ends=st.tuples(st.integers(0, 39), st.integers(1, 40)),
    edge=st.integers(1, 40),
)
@settings(deadline=None, derandomize=True)
def test_a_patch_has_as_much_annotation_as_it_can(whole, ends, edge):
    start, length = min(ends[0], whole - 1), ends[1]
    box = (start, min(start + length, whole))
    crop = Crop("a", "a", np.zeros((whole, 1, 1), np.uint8), *(None,) * 2, (box, (0, 1), (0, 1)), *(None,) * 4)
    low, high = first_voxels(crop, (edge, 1, 1))[0]
    most = min(edge, box[1] - box[0])
    for first in (low, high):
        inside = min(first + edge, box[1]) - max(first, box[0])
        assert inside == most
        if edge <= whole:
            assert 0 <= first <= whole - edge


def test_every_place_of_a_crop_can_be_in_a_patch(make_crops):
    crop = new_crop(shape=(4, 12, 14))
    patches = PatchBatches(make_crops(crop), [0], FLAT, seed=0, batch_size=1)
    seen = np.zeros(crop.image.shape, bool)
    for number in range(200):
        patch = patches.batch(number).image[0, 0].numpy()
        z, y, x = np.argwhere((_windows(crop) == patch).all((3, 4)))[0]
        seen[z, y : y + 8, x : x + 10] = True
    assert seen.all()


def _windows(crop):
    return np.lib.stride_tricks.sliding_window_view(crop.image, (8, 10), axis=(1, 2))


def test_a_patch_larger_than_one_crop_is_padded_and_larger_than_all_is_refused(make_crops):
    crops = make_crops(new_crop("a/crop1", (4, 6, 30)), new_crop("a/crop2", (4, 12, 14), seed=1))
    batch = PatchBatches(crops, [0, 1], FLAT, seed=0, batch_size=32).batch(0)
    assert sorted({int(inside.sum()) for inside in batch.inside}) == [60, 80]
    outside = ~batch.inside
    assert (batch.image[:, 0][outside] == 0).all() and (batch.label[outside] == 0).all()
    with pytest.raises(
        DataError,
        match=r"sampling.patch: got 16 voxels along y, more than any crop has \(crop a/crop2: 12\); allowed: 12",
    ):
        PatchBatches(crops, [0, 1], replace(FLAT, patch=(16, 10)), seed=0, batch_size=1)
    with pytest.raises(
        DataError, match=r"sampling.patch: got 5 voxels along z, more than any crop has \(crop a/crop1: 4"
    ):
        PatchBatches(crops, [0, 1], replace(DEEP, patch=(5, 8, 10)), seed=0, batch_size=1)


@pytest.mark.parametrize("section", [replace(FLAT, patch=(64, 64)), replace(DEEP, patch=(16, 48, 48))])
def test_memory_stays_flat_over_500_batches(section, make_crops):
    """Of 40 MB of crops, as many as are read again and again, what was read is given back."""
    crops = make_crops(*(new_crop(f"a/crop{k}", (40, 360, 360), seed=k) for k in range(4)))
    patches = PatchBatches(crops, range(4), section, seed=0, batch_size=4)
    process = psutil.Process()
    patches.batch(0)
    before = process.memory_info()
    for number in range(1, 501):
        patches.batch(number)
    after = process.memory_info()
    assert after.rss < 1.05 * before.rss
    assert after.rss - before.rss < 10e6
