"""The scanlines study as the engine sees it: model, batches, loss, validation; open it to change what is learnt.

The images lie on the device, where a batch is a gather, or are drawn there; both, and the augmentation, are keyed by
(seed, batch number).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from assay.engine.random import DataOrder, derive, generator
from assay.engine.task import Evaluation, Model, Monitor
from assay.studies.scanlines.augmentation import augment
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import Dataset, Rows, drawn_rows
from assay.studies.scanlines.losses import Truth, classification, position_weights, targets
from assay.studies.scanlines.metrics import score
from assay.studies.scanlines.model import build, read_out_lines

VALIDATION_BATCH = 64


class Batch(NamedTuple):
    """Raw images (B, N, P), lines scanned (B,) if they are cut short, and targets (B, R) at every read-out."""

    images: Tensor
    lengths: Tensor | None
    target: Tensor


class ScanTask:
    """The tip's state from raw images."""

    monitor = Monitor("balanced_accuracy", "max")

    def __init__(self, params: Params, dataset: Dataset, device: torch.device) -> None:
        self.params, self.device = params, device
        self.weights = {"cross_entropy": 1.0}
        self.training = dataset.part("training").to(device)
        self.validation = dataset.part("validation").to(device)
        self.points = self.training.images.shape[2]
        own = torch.bincount(self.training.labels.cpu(), minlength=params.data.classes)
        every = torch.bincount(dataset.rows.labels, minlength=params.data.classes)
        self.own_counts = own
        self.counts = (every if params.legacy.weights_from_all else own).to(device)
        self.lines = torch.tensor(read_out_lines(params.model, params.data.lines), device=device)
        self.positions = position_weights(self.lines, params.loss.first_line, params.loss.rising)
        self.samples_per_epoch = len(self.training.labels)

    def build(self) -> nn.Module:
        """The network of `model`."""
        return build(self.params.model, self.params.data.lines, self.points, self.params.data.classes)

    def batches(self, cursor: int) -> Iterator[Batch]:
        """Augmented batches from batch `cursor` on."""
        order = DataOrder(derive(self.params.seed, "data"), range(self.samples_per_epoch))
        while True:
            rows = self._drawn(cursor) if self.params.augmentation.redraw else self._stored(order, cursor)
            rng = generator(self.params.seed, "augment", cursor, device=self.device)
            images, lengths, switch = augment(rows.images, rows.switch, self.params.augmentation, rng)
            truth = Truth(rows.labels, rows.first_labels, switch, images.shape[1])
            yield Batch(images, lengths, targets(truth, self.lines, self.params.loss.line_targets))
            cursor += 1

    def _stored(self, order: DataOrder, cursor: int) -> Rows:
        size = self.params.train.batch_size
        chosen = torch.tensor([sample for _, sample in order.at(cursor * size, size)], device=self.device)
        return Rows(*(column[chosen] for column in self.training))

    def _drawn(self, cursor: int) -> Rows:
        rng = generator(self.params.seed, "drawn", cursor, device=self.device)
        return drawn_rows(self.params.data, self.params.train.batch_size, rng)

    def loss(self, model: Model, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Cross-entropy, weighted as the parameters say."""
        logits = model(batch.images, batch.lengths)
        return classification(logits, batch.target, self.positions, self.counts, self.params.loss)

    def evaluate(self, model: Model) -> Evaluation:
        """Scores at the last read-out on the validation part, by its own, noisy labels."""
        parts = [model(images, None)[:, -1] for images in torch.split(self.validation.images, VALIDATION_BATCH)]
        found = score(torch.cat(parts).float().softmax(-1).cpu(), self.validation.labels.cpu())
        names = ("balanced_accuracy", "accuracy", "cross_entropy")
        return Evaluation({name: getattr(found, name) for name in names})
