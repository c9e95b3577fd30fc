"""What is judged: windows over volumes, the grey values' control, and every number of validate against one by hand."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.studies.organelles.data.conftest import flags, keep, new_crop

from assay.engine.progress import phase
from assay.studies.organelles import evaluation, networks, simulate, train, validate
from assay.studies.organelles.cache import Crops, open_crops
from assay.studies.organelles.classes import CLASSES, OUTSIDE
from assay.studies.organelles.metrics import PooledCounts
from assay.studies.organelles.model.library import head
from assay.studies.organelles.splits import open_split
from assay.studies.organelles.windows import SLICES, Piece, Windows

CPU = torch.device("cpu")


def volume(*shape: int) -> torch.Tensor:
    """Random bytes."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def joined(pieces, shape) -> torch.Tensor:
    """Logits of one channel at their places, NaN elsewhere."""
    found = torch.full(shape, torch.nan)
    for piece in pieces:
        found[piece.places] = piece.logits[:, 0] if piece.logits.ndim == 4 else piece.logits[0, 0]
    return found


@pytest.mark.parametrize(("every", "judged"), [(1, slice(0, None)), (4, slice(2, None, 4)), (99, slice(39, None))])
@pytest.mark.parametrize("edges", [(16, 24), (8, 16)])
def test_a_network_of_slices_is_shown_whole_slices_as_training_scales_them(edges, every, judged):
    image = volume(SLICES + 24, 16, 24)
    found = joined(Windows(edges, 0.25, 3, every).over(image, lambda part: part, CPU), image.shape)
    expected = torch.full(image.shape, torch.nan)
    expected[judged] = image[judged] / 255
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=1e-6)


@pytest.mark.parametrize("edges", [(8, 16, 24), (4, 8, 8)])
def test_a_network_of_volumes_is_shown_whole_volumes_as_training_scales_them(edges):
    image = volume(8, 16, 24)
    (piece,) = Windows(edges, 0.5, 2).over(image, lambda part: part, CPU)
    torch.testing.assert_close(joined([piece], image.shape), image / 255, rtol=0, atol=1e-6)


def test_windows_that_overlap_count_less_towards_their_ends():
    """Of two windows that give 0 and 1 everywhere."""
    image = torch.zeros(1, 8, 12, dtype=torch.uint8)
    image[..., 4] = 255
    windows = Windows((8, 8), 0.5, 4)
    found = joined(windows.over(image, lambda part: part[..., :1].repeat(1, 1, 1, 8), CPU), image.shape)[0, 0]
    assert (found[:4] == 0).all() and (found[8:] == 1).all()
    assert (found[4:8].diff() >= 0).all() and float(found[4]) < 0.4 and float(found[7]) > 0.6


def test_grey_values_are_chosen_for_the_highest_dice_of_what_is_annotated(tmp_path):
    """Against all subsets of four values. A crop in which pm was not looked for, and unknown voxels, say nothing."""
    rng = np.random.default_rng(1)
    pm, nuc = CLASSES.index("pm"), CLASSES.index("nuc")
    label = rng.choice([0, pm + 1, nuc + 1, OUTSIDE], (6, 20, 24), p=[0.5, 0.2, 0.2, 0.1]).astype(np.uint8)
    others = rng.choice([0, 1], label.shape, p=[0.9, 0.1])
    image = np.where(label == pm + 1, rng.integers(1, 4, label.shape), others).astype(np.uint8)
    image[label == OUTSIDE] = 3
    seen = new_crop("a/crop1", image=image, label=label)
    other = new_crop("a/crop2", image=np.full_like(seen.image, 2), label=np.zeros_like(label), annotated=flags("nuc"))
    chosen = evaluation.shades(Crops.open(keep(tmp_path / "crops", seen, other)), [0, 1]).chosen
    known, truth = label != OUTSIDE, label == pm + 1

    def dice(greys: torch.Tensor) -> float:
        guess = greys.numpy()[image]
        return 2 * (guess & truth & known).sum() / ((guess & known).sum() + truth.sum())

    subsets = [torch.zeros(256, dtype=torch.bool) for _ in range(16)]
    for subset, bits in zip(subsets, product([False, True], repeat=4), strict=True):
        subset[:4] = torch.tensor(bits)
    best = max(subsets[1:], key=dice)
    assert best[1]  # half of its voxels are wrong, and yet it pays
    assert chosen[pm].nonzero().flatten().tolist() == best.nonzero().flatten().tolist()
    assert dice(best) > dice(torch.ones(256, dtype=torch.bool)) + 0.1


def test_grey_values_decide_in_the_slices_that_are_judged():
    chosen = torch.zeros(len(CLASSES), 256, dtype=torch.bool)
    chosen[3, 128:] = True
    image = volume(9, 4, 5)
    pieces = list(evaluation.Shades(chosen).pieces(image, 1, 4))
    assert [piece.places for piece in pieces] == [slice(1, 2), slice(5, 6)]
    for piece in pieces:
        assert ((piece.logits[0, 3] > 0) == (image[piece.places][0] >= 128)).all()
        assert (piece.logits[0, :3] < 0).all()


def test_a_crop_counts_in_its_label_box_alone_and_in_each_view(make_params, tmp_path):
    crop = new_crop(annotated=flags("pm"), box=((1, 4), (2, 18), (0, 24)))
    crops = Crops.open(keep(tmp_path / "crops", crop))
    counts = [PooledCounts(), PooledCounts()]
    everything = torch.ones(6, len(CLASSES), 20, 24)
    views = [crops.seen_as("full")[0], crops[0]]
    evaluation.count(crops[0], lambda image: [Piece(slice(0, len(image)), everything)], counts, views)
    full, masked = (each.compute() for each in counts)
    inside = crop.label[1:4, 2:18]
    assert (full.annotated == inside.size).all() and int(masked.annotated.sum()) == inside.size
    assert full.positive.tolist() == [int((inside == place + 1).sum()) for place in range(len(CLASSES))]
    pm = CLASSES.index("pm")
    assert int(masked.positive[pm]) == full.positive[pm]


WHOLE = ("sampling.patch=[64,64]", "evaluation.overlap=0", "train.steps=2", "evaluation.logits=adjusted")


def by_hand(params, module, view, shifted=True):
    """Per class TP, FP, FN of the judged slices, and the share of voxels whose label is right."""
    crops = open_crops(params.data, view)
    sums, right, known = torch.zeros(3, len(CLASSES)), 0, 0
    for number in open_split(params.data, crops.names).validation:
        crop = crops[number]
        label = torch.from_numpy(crop.shown[crop.label][2::4].copy())
        image = torch.from_numpy(crop.image[2::4].copy())[:, None] / 255
        with torch.no_grad():
            logits = module.network(image)
        a = module.objective.tversky.adjustment.view(-1, 1, 1)
        guess = (logits + a if shifted else logits) > 0
        for place in np.flatnonzero(crop.annotated):
            truth, found = label == place + 1, guess[:, place]
            sums[:, place] += torch.stack([(found & truth).sum(), (found & ~truth).sum(), (~found & truth).sum()])
        best, place = (logits + a if shifted else logits).max(1)
        right += int((torch.where(best > 0, place + 1, 0) == label).sum())
        known += label.numel()
    return sums, right / known


def mean_of(sums, numerator, denominator, among=None):
    """Of ratios over the classes that the truth shows."""
    tp, fp, fn = sums
    there = [k for k in range(len(CLASSES)) if tp[k] + fn[k] > 0 and (among is None or CLASSES[k] in among)]
    return float((numerator(tp, fp, fn) / denominator(tp, fp, fn))[there].nanmean())


def dice_of(sums, among=None):
    return mean_of(sums, lambda tp, fp, fn: 2 * tp, lambda tp, fp, fn: 2 * tp + fp + fn, among)


def test_the_headlines_are_those_counted_by_hand(make_params):
    params = make_params(*WHOLE)
    for stage in (simulate, train, validate):
        stage.run(params)
    found = json.loads(Path("results/validate/metrics.json").read_text())
    model = networks.load(networks.FOLDER, CPU)
    full, accuracy = by_hand(params, model.module, "full")
    expected = {
        "dice": dice_of(full),
        "dice_rare": dice_of(full, validate.RARE),
        "iou": mean_of(full, lambda tp, fp, fn: tp, lambda tp, fp, fn: tp + fp + fn),
        "precision": mean_of(full, lambda tp, fp, fn: tp, lambda tp, fp, fn: tp + fp),
        "recall": mean_of(full, lambda tp, fp, fn: tp, lambda tp, fp, fn: tp + fn),
        "dice_other_logits": dice_of(by_hand(params, model.module, "full", shifted=False)[0]),
        "dice_masked": dice_of(by_hand(params, model.module, "masked")[0]),
        "dice_untrained": dice_of(by_hand(params, networks.untrained(model).module, "full")[0]),
        "voxel_accuracy": accuracy,
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5, nan_ok=True)
    kinds = ("dice", "dice_other_logits", "dice_masked", "dice_untrained")
    assert len({round(found[name], 5) for name in kinds}) == 4, {name: found[name] for name in kinds}
    assert found["dice_intensity"] == pytest.approx(of_grey_values(params), abs=1e-5)


def test_a_network_that_predicts_nothing_is_right_where_no_class_is(make_params):
    params = make_params("train.steps=1")
    simulate.run(params)
    train.run(params)
    model = networks.load(networks.FOLDER, CPU)
    with torch.no_grad():
        head(model.module.network, len(CLASSES)).weight.zero_()
        head(model.module.network, len(CLASSES)).bias.fill_(-50)
    crops = open_crops(params.data)
    split = open_split(params.data, crops.names)
    with phase("validate", 2, unit="crops") as shown:
        numbers = validate.headlines(validate.evaluate(params, model, crops, split, shown), model)
    judged = np.stack([crops[number].label[2::4] for number in split.validation])
    assert numbers["voxel_accuracy"] == pytest.approx((judged == 0).mean()) and 0 < numbers["voxel_accuracy"] < 1
    assert numbers["dice"] == numbers["dice_masked"] == numbers["recall"] == 0


def of_grey_values(params) -> float:
    """Mean Dice of the grey values that training crops choose, on the judged slices."""
    crops = open_crops(params.data, "masked")
    split = open_split(params.data, crops.names)
    chosen = evaluation.shades(crops, split.train).chosen
    sums, full = torch.zeros(3, len(CLASSES)), crops.seen_as("full")
    for number in split.validation:
        grey, label = (torch.from_numpy(each[2::4].copy()) for each in (full[number].image, full[number].label))
        for place in range(len(CLASSES)):
            guess, truth = chosen[place][grey.long()], label == place + 1
            sums[:, place] += torch.stack([(guess & truth).sum(), (guess & ~truth).sum(), (~guess & truth).sum()])
    return dice_of(sums)
