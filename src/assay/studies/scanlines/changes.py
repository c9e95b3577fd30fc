"""Tip changes told from the labels after each line; open it for when one is reported and what counts as a hit."""

from typing import NamedTuple

import torch
from torch import Tensor


class Change(NamedTuple):
    """A change of state, reported after `line` lines, of which the first `onset` - 1 showed the old state."""

    line: int
    onset: int
    before: int
    after: int


class Detector:
    """Reports a change once a new label has stayed for `hold` lines; fed with the label after each read-out."""

    def __init__(self, hold: int) -> None:
        self.hold = hold
        self.state: int | None = None
        self.candidate: int | None = None
        self.since = 0

    def feed(self, line: int, label: int | None) -> Change | None:
        """The change that is known after `line` lines, if one is. A label of None says nothing new."""
        if self.state is None:
            self.state = label
        if label is None or label == self.state or self.state is None:
            self.candidate = None
            return None
        if label != self.candidate:
            self.candidate, self.since = label, line
        if line - self.since + 1 < self.hold:
            return None
        found = Change(line, self.since, self.state, label)
        self.state, self.candidate = label, None
        return found


def detect(labels: Tensor, lines: Tensor, hold: int, first: int) -> list[Change]:
    """All changes in the labels (R,) after `lines` (R,) lines of one image, those before line `first` being ignored."""
    detector = Detector(hold)
    fed = [
        detector.feed(line, label) for line, label in zip(lines.tolist(), labels.tolist(), strict=True) if line >= first
    ]
    return [change for change in fed if change is not None]


class Detection(NamedTuple):
    """How well tip changes are found: `images` with a change, `reports` of changes in all images.

    A report within `tolerance` lines of the true line is a hit; recall is the share of images with one, precision the
    share of reports that are one. delay: mean lines from the change to its hit, NaN without hits; late_recall: share
    of images with any report from the change on.
    """

    images: int
    reports: int
    hits: int
    precision: float
    recall: float
    late_recall: float
    delay: float


def judge(labels: Tensor, lines: Tensor, switch: Tensor, tolerance: int, hold: int, first: int) -> Detection:
    """Of labels (n, R) after `lines` (R,), with the true switch line (n,), the last line or more where there is none.

    The first line of the new state is number `switch` from 0, so it is the last of `switch` + 1 lines.
    """
    last = int(lines[-1])
    images = reports = hits = late = 0
    delays: list[int] = []
    for row, true in zip(labels, switch.tolist(), strict=True):
        found = [change.line - (true + 1) for change in detect(row, lines, hold, first)]
        reports += len(found)
        if true >= last:
            continue
        images += 1
        near = [delay for delay in found if abs(delay) <= tolerance]
        late += any(delay >= 0 for delay in found)
        hits += bool(near)
        delays += near[:1]
    delay = sum(delays) / len(delays) if delays else torch.nan
    precision = hits / reports if reports else torch.nan
    share = (hits / images, late / images) if images else (torch.nan, torch.nan)
    return Detection(images, reports, hits, precision, *share, delay)
