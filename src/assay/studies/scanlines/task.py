"""The scanlines study as the engine sees it: model, batches, loss, validation; open it to change what is learnt.

The images lie on the device; a batch is a gather, and its augmentation is keyed by (seed, batch number).
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from assay.engine.random import DataOrder, derive, generator
from assay.engine.task import Evaluation, Model, Monitor
from assay.studies.scanlines.augmentation import augment
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import Dataset
from assay.studies.scanlines.losses import classification, position_weights, targets
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
        every = dataset.rows.labels if params.legacy.weights_from_all else self.training.labels.cpu()
        self.counts = torch.bincount(every, minlength=params.data.classes).to(device)
        self.lines = torch.tensor(read_out_lines(params.model, params.data.lines), device=device)
        self.positions = position_weights(self.lines, params.loss.first_line, params.loss.rising)
        self.samples_per_epoch = len(self.training.labels)

    def build(self) -> nn.Module:
        """The network of `model`."""
        return build(self.params.model, self.params.data.lines, self.points, self.params.data.classes)

    def batches(self, cursor: int) -> Iterator[Batch]:
        """Augmented batches from batch `cursor` on."""
        seed, size, rows = self.params.seed, self.params.train.batch_size, self.training
        order = DataOrder(derive(seed, "data"), range(self.samples_per_epoch))
        while True:
            chosen = torch.tensor([sample for _, sample in order.at(cursor * size, size)], device=self.device)
            rng = generator(seed, "augment", cursor, device=self.device)
            images, lengths = augment(rows.images[chosen], self.params.augmentation, rng)
            kind = self.params.loss.line_targets
            target = targets(rows.labels[chosen], rows.first_labels[chosen], rows.switch[chosen], self.lines, kind)
            yield Batch(images, lengths, target)
            cursor += 1

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
