"""Tip changes told from labels: when one is reported, and what counts as a hit."""

import math

import pytest
import torch

from assay.studies.scanlines.changes import Change, Detector, detect, judge

LINES = torch.arange(1, 21)


def labels(*runs):
    return torch.tensor([label for label, count in runs for _ in range(count)])


def test_a_change_is_reported_once_it_has_lasted():
    found = detect(labels((0, 10), (3, 10)), LINES, hold=3, first=1)
    assert found == [Change(line=13, onset=11, before=0, after=3)]


def test_a_flicker_is_none():
    assert detect(labels((0, 8), (3, 2), (0, 10)), LINES, hold=3, first=1) == []
    assert detect(labels((0, 8), (3, 2), (1, 2), (3, 8)), LINES, hold=3, first=1) == [Change(15, 13, 0, 3)]


def test_lines_are_counted_and_not_read_outs():
    """A network that reads out every fourth line knows of a change after line 10 with its next two read-outs."""
    lines = torch.arange(4, 21, 4)
    assert detect(torch.tensor([0, 0, 3, 3, 3]), lines, hold=3, first=1) == [Change(16, 12, 0, 3)]
    assert detect(torch.tensor([0, 0, 3, 3, 3]), lines, hold=1, first=1) == [Change(12, 12, 0, 3)]


def test_a_doubtful_line_begins_the_count_anew():
    detector = Detector(hold=2)
    fed = [detector.feed(line, label) for line, label in enumerate([None, 0, 3, None, 3, 3], start=1)]
    assert fed == [None] * 5 + [Change(6, 5, 0, 3)]


def test_the_first_lines_are_ignored():
    assert detect(labels((1, 4), (0, 16)), LINES, hold=1, first=5) == []


def test_hits_are_within_the_tolerance_and_everything_else_costs_precision():
    """Three images: found after two lines, found after nine, and a report where there is none."""
    table = torch.stack([labels((0, 10), (3, 10)), labels((0, 17), (3, 3)), labels((1, 5), (2, 15))])
    found = judge(table, LINES, torch.tensor([10, 10, 20]), tolerance=5, hold=3, first=1)
    assert (found.images, found.reports, found.hits) == (2, 3, 1)
    assert found.precision == pytest.approx(1 / 3) and found.recall == 0.5
    assert found.delay == 2 and found.late_recall == 1


def test_without_changes_and_reports_there_is_nothing_to_judge():
    found = judge(labels((0, 20))[None], LINES, torch.tensor([20]), 5, 3, 1)
    assert math.isnan(found.precision) and math.isnan(found.recall) and math.isnan(found.delay)
