"""Scores against their definitions, and the controls that every one is shown beside."""

import math

import pytest
import torch

from assay.studies.scanlines.evaluation import constant, merged, padded
from assay.studies.scanlines.metrics import auroc_by_class, balanced_accuracy, interval, score


def certain(labels, classes=3):
    return torch.nn.functional.one_hot(torch.tensor(labels), classes).float()


def test_balanced_accuracy_is_the_mean_recall_over_the_classes_present():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    found = score(certain([0, 0, 0, 0, 0, 1]), labels)
    assert found.accuracy == pytest.approx(5 / 6)
    assert found.balanced_accuracy == pytest.approx((1 + 0.5) / 2)
    assert math.isnan(found.recall[2])


def test_rows_of_the_confusion_matrix_are_the_truth():
    found = score(certain([0, 1, 1, 2]), torch.tensor([0, 0, 1, 1]))
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert found.precision.tolist() == [1, 0.5, 0] and found.recall[:2].tolist() == [0.5, 0.5]
    assert found.f1.tolist() == pytest.approx([2 / 3, 0.5, 0])


def test_ties_count_half_in_the_area_and_an_absent_class_is_left_out():
    labels = torch.tensor([0, 0, 1, 1])
    areas = auroc_by_class(torch.tensor([[0.5, 0.5, 0.0]] * 4), labels)
    assert areas[:2].tolist() == [0.5, 0.5] and math.isnan(areas[2])
    areas = auroc_by_class(torch.tensor([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.4, 0.6, 0], [0.1, 0.9, 0]]), labels)
    assert float(areas[1]) == pytest.approx(3.5 / 4)


def test_the_area_of_the_whole_is_the_mean_over_the_classes_present():
    found = score(torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), torch.tensor([0, 1]))
    assert found.auroc == 1


def test_calibration_error_is_the_gap_between_confidence_and_accuracy():
    probabilities = torch.tensor([[0.8, 0.2]] * 10)
    found = score(probabilities, torch.tensor([0] * 5 + [1] * 5), bins=10)
    assert found.calibration_error == pytest.approx(0.3, abs=1e-6)


def test_scores_are_of_all_samples_and_not_a_mean_over_batches():
    """As the published analyser averaged them: the batch of one would count as much as that of nine."""
    probabilities, labels = certain([0] * 9 + [1]), torch.tensor([0] * 10)
    parts = [balanced_accuracy(probabilities[rows], labels[rows]) for rows in (slice(0, 9), slice(9, 10))]
    assert sum(parts) / 2 == 0.5
    assert balanced_accuracy(probabilities, labels) == pytest.approx(0.9)


def test_the_interval_is_of_groups_and_repeats():
    labels = torch.arange(400) % 2
    predicted = torch.where(torch.arange(400) // 2 % 4 == 0, 1 - labels, labels)
    alone, copies = (interval(predicted, labels, torch.arange(400) // size, 2, 500) for size in (2, 8))
    assert alone == interval(predicted, labels, torch.arange(400) // 2, 2, 500)
    assert alone[0] < 0.75 < alone[1]
    assert copies == (0.75, 0.75)


def test_the_interval_covers_95_percent_of_what_resampling_would_give():
    """Of one class with n right and n wrong: a share with a standard error of 0.5 / sqrt(2 n)."""
    labels = torch.arange(1000) % 2
    predicted = torch.where((labels == 0) & (torch.arange(1000) % 4 == 0), 1, labels)  # recall 0.5 of 0, 1 of 1
    low, high = interval(predicted, labels, torch.arange(1000), 2, 4000)
    wanted = 1.96 * 0.5 * (0.25 / 500) ** 0.5  # half of the recall of the first
    assert (0.75 - low, high - 0.75) == pytest.approx((wanted, wanted), rel=0.1)
    few = torch.where(torch.arange(1000) % 10 == 0, 0, 1)  # 100 of the first, of which half are called the second
    called = torch.where(torch.arange(1000) % 20 == 0, 1, few)
    low, high = interval(called, few, torch.arange(1000), 2, 4000)
    assert low < 0.75 < high


def test_the_constant_knows_the_shares_of_the_training_part_alone():
    probabilities = constant(torch.tensor([10, 30]), 4)
    found = score(probabilities, torch.tensor([0, 1, 1, 1]))
    assert found.accuracy == 0.75 and found.balanced_accuracy == 0.5 and found.auroc == 0.5
    assert found.cross_entropy == pytest.approx(-(math.log(0.25) + 3 * math.log(0.75)) / 4)


def test_probabilities_of_merged_classes_add_up():
    assert merged(torch.tensor([[0.1, 0.2, 0.3, 0.4]]), (0, 1, 1, 0)).tolist() == [[0.5, 0.5]]
    many = torch.randn(10_000, 6, generator=torch.Generator().manual_seed(0)).mul(20).softmax(-1)
    assert float(merged(many, (0, 1, 1, 0, 1, 1)).max()) <= 1  # rounding made 1.0000001 of some


def test_lines_that_have_not_been_seen_are_0_or_the_seen_ones_again():
    image = torch.arange(1, 6).view(1, 5, 1).float()
    assert padded(image, 2, "zero").flatten().tolist() == [1, 2, 0, 0, 0]
    assert padded(image, 2, "tile").flatten().tolist() == [1, 2, 1, 2, 1]
