"""Probabilities of every model on the test part, in the classes that are judged; open it for what a baseline knows."""

from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import Dataset, Rows
from assay.studies.scanlines.losses import priors
from assay.studies.scanlines.metrics import Scores, interval, score
from assay.studies.scanlines.model import read_out_lines
from assay.studies.scanlines.networks import Classifier
from assay.studies.scanlines.templates import matches, references

NETWORK, NULL, CONSTANT, TEMPLATE = "network", "untrained", "constant", "template"


class Judged(NamedTuple):
    """A model's scores on the test part, with a 95 % interval of its balanced accuracy over groups."""

    scores: Scores
    low: float
    high: float


def judge(probabilities: Tensor, labels: Tensor, group: Tensor, params: Params) -> Judged:
    """Scores of probabilities (n, K)."""
    predicted = probabilities.argmax(1)
    ends = interval(predicted, labels, group, probabilities.shape[1], params.evaluation.bootstrap)
    return Judged(score(probabilities, labels, params.evaluation.bins), *ends)


def merged(probabilities: Tensor, merge: tuple[int, ...]) -> Tensor:
    """Probabilities (..., K) summed over the classes that `merge` makes one; rounding makes none more than 1."""
    matrix = torch.nn.functional.one_hot(torch.tensor(merge)).to(probabilities)
    return (probabilities @ matrix).clamp(max=1)


def whole_image(model: Classifier, images: Tensor, params: Params, scanned: int | None = None) -> Tensor:
    """Probabilities (n, K) of the model's own classes at its last read-out, of images with `scanned` lines."""
    return model.probabilities(images, params.evaluation.batch_size, params.evaluation.vote, scanned)[:, -1]


def padded(images: Tensor, lines: int, kind: str) -> Tensor:
    """Images of which only the first `lines` are known: the others are 0, or the known ones again."""
    if kind == "zero":
        return torch.cat([images[:, :lines], torch.zeros_like(images[:, lines:])], 1)
    return images[:, torch.arange(images.shape[1]) % lines]


def by_lines(model: Classifier, images: Tensor, params: Params) -> dict[int, Tensor]:
    """Probabilities (n, K) of the model's classes after each of evaluation.lines_seen lines.

    A model that reads line by line is asked once; the label after a window stands until the next. One that wants
    whole images is asked anew each time. There is none for fewer lines than the first window.
    """
    settings = params.evaluation
    read_outs = torch.tensor(read_out_lines(model.params.model, params.data.lines))
    if not model.params.model.per_line:
        return {n: whole_image(model, padded(images, n, settings.padding), params, n) for n in settings.lines_seen}
    every = model.probabilities(images, settings.batch_size, settings.vote)
    places = {n: int((read_outs <= n).sum()) - 1 for n in settings.lines_seen}
    return {n: every[:, place] for n, place in places.items() if place >= 0}


def constant(counts: Tensor, images: int) -> Tensor:
    """The class shares of the training part for every image (n, K): accuracy and loss of what has learnt only these."""
    return priors(counts.float()).expand(images, -1)


def template_probabilities(dataset: Dataset, test: Rows, params: Params) -> Tensor:
    """Of the judged classes, (n, K): a softmax of the best correlations, whose order alone has a meaning.

    A class that is made of several of the model's has the best of theirs; sums would favour it.
    """
    training, merge = dataset.part("training"), torch.tensor(params.evaluation.merge)
    known = references(training.images, training.labels, params.data.classes)
    found = matches(test.images, known, params.evaluation.template_angles)
    best = [found[:, merge == label].amax(1) for label in range(int(merge.max()) + 1)]
    return (10 * torch.stack(best, 1)).softmax(1)
