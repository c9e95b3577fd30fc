"""Pooled scores: against counts by hand and torchmetrics, and when there is none."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.studies.organelles.losses.conftest import COUNT, draw_batch
from torchmetrics.functional.classification import binary_average_precision

from assay.studies.organelles.metrics import PooledCounts


def counted(*batches, **options):
    counts = PooledCounts(COUNT, **options)
    for batch in batches:
        counts.update(*batch)
    return counts


def test_scores_are_ratios_of_counts_over_what_is_annotated():
    logits, target = draw_batch(0, samples=4)
    scores = counted((logits, target)).compute()
    for place in range(COUNT):
        known = ~target[:, place].isnan()
        guess, truth = logits[:, place][known] > 0, target[:, place][known] > 0
        tp, fp, fn = (int(each.sum()) for each in (guess & truth, guess & ~truth, ~guess & truth))
        assert int(scores.annotated[place]) == int(known.sum())
        if known.any():
            found = [float(each[place]) for each in (scores.dice, scores.iou, scores.precision, scores.recall)]
            assert found == pytest.approx(
                [2 * tp / (2 * tp + fp + fn), tp / (tp + fp + fn), tp / (tp + fp), tp / (tp + fn)]
            )
        else:
            assert math.isnan(float(scores.dice[place]))


def test_average_precision_is_torchmetrics_but_for_the_bins():
    logits, target = draw_batch(1, samples=4, annotated=1.0)
    logits = logits + 2 * target.nan_to_num(0)
    found = counted((logits, target)).compute().average_precision
    for place in range(COUNT):
        known = ~target[:, place].isnan()
        theirs = binary_average_precision(logits[:, place][known].sigmoid(), target[:, place][known].long())
        assert float(found[place]) == pytest.approx(float(theirs), abs=0.02)


def test_average_precision_of_one_constant_is_the_share_of_positives():
    _, target = draw_batch(2, annotated=1.0)
    scores = counted((torch.full_like(target, -3.0), target)).compute()
    assert torch.allclose(scores.average_precision, scores.positive / scores.annotated)


@given(seed=st.integers(0, 10**6), pieces=st.integers(1, 4))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_how_batches_are_cut_changes_nothing(seed, pieces):
    logits, target = draw_batch(seed, samples=4)
    parts = zip(logits.chunk(pieces), target.chunk(pieces), strict=True)
    assert torch.equal(counted(*parts).state(), counted((logits, target)).state())


def test_states_of_ranks_add_up():
    logits, target = draw_batch(3, samples=4)
    first, second = counted((logits[:1], target[:1])), counted((logits[1:], target[1:]))
    merged = PooledCounts(COUNT).load(first.state() + second.state()).compute()
    whole = counted((logits, target)).compute()
    assert all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in zip(merged, whole, strict=True))


def test_never_annotated_has_no_score_and_empty_has_the_one_asked_for():
    logits = torch.full((1, COUNT, 4, 4), -1.0)
    target = torch.zeros_like(logits)
    target[0, 0] = math.nan
    target[0, 1, 0] = 1.0
    scores = counted((logits, target)).compute()
    assert scores.classes == 1
    assert (float(scores.dice[1]), scores.mean_dice) == (0.0, 0.0)
    assert scores.dice[2:].isnan().all() and scores.iou[2:].isnan().all()
    generous = counted((logits, target), empty=1.0).compute()
    assert (generous.classes, generous.mean_dice) == (1, 0.0)
    assert math.isnan(float(generous.dice[0]))
    assert (generous.dice[2:] == 1).all()


def test_means_are_over_the_classes_in_the_truth_whatever_is_predicted():
    logits, target = torch.full((1, COUNT, 4, 4), -1.0), torch.zeros(1, COUNT, 4, 4)
    target[0, 1, :2] = 1.0
    logits[0, 1, 0] = 1.0
    careful = counted((logits, target)).compute()
    logits[0, 2:, 3, 3] = 1.0
    careless = counted((logits, target)).compute()
    assert careful.mean_dice == careless.mean_dice == pytest.approx(2 / 3) and careless.classes == 1
    assert float(careless.dice[2]) == 0 and careful.dice[2:].isnan().all()
    assert careless.mean(careless.dice, among=[1, 2]) == careless.mean_dice
    assert math.isnan(careless.mean(careless.dice, among=[2, 3]))


def test_a_false_alarm_in_an_empty_class_scores_0():
    logits, target = torch.full((1, COUNT, 4, 4), 1.0), torch.zeros(1, COUNT, 4, 4)
    scores = counted((logits, target)).compute()
    assert (scores.dice == 0).all() and (scores.precision == 0).all()
    assert scores.recall.isnan().all() and scores.average_precision.isnan().all()


def test_a_logit_of_exactly_0_is_not_positive():
    target = torch.eye(COUNT).view(1, COUNT, COUNT, 1)
    assert (counted((torch.zeros_like(target), target)).compute().recall == 0).all()
    assert (counted((torch.full_like(target, 1e-30), target)).compute().recall == 1).all()


def test_the_confusion_matrix_is_of_voxels_that_are_wholly_annotated():
    logits, target = draw_batch(4, annotated=1.0)
    target[0, 0] = math.nan
    table = counted((logits, target)).compute().confusion
    expected = torch.zeros(COUNT + 1, COUNT + 1, dtype=torch.long)
    whole = ~target.isnan().any(1)
    for z, values in zip(logits.movedim(1, -1)[whole], target.movedim(1, -1)[whole], strict=True):
        truth = int(values.argmax()) + 1 if values.any() else 0
        expected[truth, int(z.argmax()) + 1 if z.max() > 0 else 0] += 1
    assert torch.equal(table, expected)
