"""The organelles study as the engine sees it: model, batches, loss, validation; open it to change what is learnt.

A batch is cut as bytes on the CPU, ahead of its turn, and becomes channels on the device. All of it is keyed by
(seed, batch number, rank), so ranks see different patches and a resumed run the same ones.
"""

import math
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from math import prod

import torch
from torch import Tensor, nn

from assay.engine.distributed import Group
from assay.engine.random import derive, generator
from assay.engine.task import Evaluation, Model, Monitor
from assay.errors import ConfigError
from assay.studies.organelles.augmentation import channels, prepare
from assay.studies.organelles.cache import Crops
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.config import Params
from assay.studies.organelles.crop import Crop
from assay.studies.organelles.evaluation import code, count
from assay.studies.organelles.metrics import PooledCounts
from assay.studies.organelles.patches import PatchBatches, RawBatch
from assay.studies.organelles.segmenter import Segmenter, segmenter
from assay.studies.organelles.splits import Split
from assay.studies.organelles.windows import Windows

AHEAD = 2
"""Batches that are cut while the network works."""
Batch = tuple[Tensor, Tensor]
"""Images (B, 1, *spatial) in 0 to 1, targets (B, C, *spatial) with NaN where nothing is known."""


class OrganelleTask:
    """14 classes from images, of crops of which each is annotated for some of them."""

    monitor = Monitor("dice", "max")

    def __init__(self, params: Params, crops: Crops, split: Split, group: Group) -> None:
        """crops: in the view that training is to have.

        Raises:
            ConfigError: several processes are to train the published loss, or cannot share a batch out evenly.
            DataError: a patch is larger than every crop, or nothing is annotated.
        """
        if params.loss.as_published and group.world > 1:
            given = f"loss.as_published: got true with {group.world} processes"
            raise ConfigError(f"{given}; allowed: false, as its prior moves in validation, which one process does")
        self.params, self.split, self.group = params, split, group
        self.weights = {name: weight for name, weight in params.loss.terms.items() if weight > 0}
        self.frequencies = crops.frequencies(split.train)
        seed = derive(params.seed, "patches")
        size, sampling = group.share.of(params.train.batch_size), params.sampling
        self.patches = PatchBatches(crops, split.train, sampling, seed, size, group.share)
        voxels = sum(crops[number].known_voxels for number in split.train)
        self.samples_per_epoch = max(1, math.ceil(voxels / prod(sampling.patch)))
        judged = crops.seen_as("masked")
        self.validation = [judged[number] for number in split.validation]
        self.built: Segmenter | None = None

    def build(self) -> nn.Module:
        """The network of `model` with its objective."""
        params = self.params
        edges, logits = params.sampling.patch, params.evaluation.logits
        self.built = segmenter(params.model, params.loss, edges, self.frequencies, logits, self.group)
        return self.built

    def batches(self, cursor: int) -> Iterator[Batch]:
        """Augmented batches of this rank from batch `cursor` on."""
        with ThreadPoolExecutor(1, "patches") as pool:
            waiting: deque[Future[RawBatch]] = deque()
            while True:
                while len(waiting) < AHEAD:
                    waiting.append(pool.submit(self._cut, cursor + len(waiting)))
                yield self._prepared(waiting.popleft().result(), cursor)
                cursor += 1

    def loss(self, model: Model, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The terms of `loss`, of annotated voxels."""
        terms: dict[str, Tensor] = model(*batch)
        return terms

    def evaluate(self, model: Model) -> Evaluation:
        """Scores pooled over the annotated voxels of the validation crops, whichever labels training sees."""
        section = self.params.evaluation
        every, size = section.monitor_every, section.batch_size
        windows = Windows(self.params.sampling.patch, 0.0, size, every)
        counts = PooledCounts()
        for crop in self.validation:
            count(crop, lambda image: windows.over(image, model, self.group.device), [counts], [crop])
            self._observe(crop)
        scores = counts.compute()
        of_class = {name: float(value) for name, value in zip(CLASSES, scores.dice, strict=True)}
        metrics = {"dice": scores.mean_dice, "classes": scores.classes} | {
            f"dice_by_class/{name}": value for name, value in of_class.items() if math.isfinite(value)
        }
        if self.built is not None and self.params.loss.adjust != "none":
            metrics |= self.built.prior()
        return Evaluation(metrics)

    def _observe(self, crop: Crop) -> None:
        """The published defect: a running prior takes validation crops in, too."""
        if self.params.loss.as_published and self.built is not None:
            labels, annotated = code(crop)[None], torch.from_numpy(crop.annotated.copy())[None]
            self.built.objective.tversky.observe(channels(labels, annotated).to(self.group.device))

    def _cut(self, number: int) -> RawBatch:
        batch = self.patches.batch(number)
        return batch.pinned() if self.group.device.type == "cuda" else batch

    def _prepared(self, batch: RawBatch, number: int) -> Batch:
        device = self.group.device
        rng = generator(self.params.seed, "augment", number, self.group.rank, device=device)
        return prepare(batch, device, rng, self.params.augmentation)
