"""The asl study as the engine sees it: model, batches, loss, validation; open it to change what is learnt.

Training noise, flips and turns of a sample are keyed by (seed, epoch, sample), the validation noise by sample alone,
so a batch is a function of the seed and the cursor.
"""

import dataclasses
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from assay.engine.random import generator
from assay.engine.task import Evaluation, Model, Monitor
from assay.studies.asl.config import Params
from assay.studies.asl.dataset import Clean, nominal_physics
from assay.studies.asl.losses import data_consistency, loss_mask, negative_log_likelihood, supervised, variance
from assay.studies.asl.model import PUBLISHED_STATISTICS, Prediction, Statistics, build
from assay.studies.asl.noise import NoiseModel
from assay.studies.asl.physics import Physics, reference_signal
from assay.studies.asl.source import Source

VALIDATION_BATCH = 48
WEAK = 0.01  # legacy.weak_noise: the published noise level was computed from a signal a hundred times smaller


class AslBatch(NamedTuple):
    """Noisy signal (B, 2P, H, W), dM/M0; maps and mask (B, 1, H, W); physics (B,).

    `sigma` is the thermal noise's standard deviation, (B, 1, 1, 1), or (B, 1, H, W) with noise.snr_per voxel.
    """

    signal: Tensor
    sigma: Tensor
    cbf: Tensor
    att: Tensor
    mask: Tensor
    physics: Physics


class AslTask:
    """CBF and ATT maps from noisy PCASL and VSASL images."""

    monitor = Monitor("loss", "min")

    def __init__(self, params: Params, source: Source, device: torch.device) -> None:
        self.params, self.source, self.device = params, source, device
        self.statistics: Statistics = PUBLISHED_STATISTICS if params.legacy.published_statistics else source.statistics
        self.noise = noise_model(params)
        self.weights = loss_weights(params)
        self.samples_per_epoch = source.samples_per_epoch
        if params.legacy.steps_per_epoch is not None:
            self.samples_per_epoch = params.legacy.steps_per_epoch * params.train.samples_per_step
        self._held_out: list[AslBatch] | None = None

    def build(self) -> nn.Module:
        """The network of `model`."""
        return build(
            self.params.model,
            plds=self.params.physics.plds,
            physics=nominal_physics(self.params),
            statistics=self.statistics,
        )

    def batches(self, cursor: int) -> Iterator[AslBatch]:
        """Augmented, noisy batches from batch `cursor` on."""
        size = self.params.train.batch_size
        while True:
            clean, keys = self.source.draw(cursor * size, size)
            turns = [generator(self.params.seed, "augment", *key) for key in keys]
            noises = [generator(self.params.seed, "noise", *key, device=self.device) for key in keys]
            yield self._noisy(augment(clean, turns, self.params), noises)
            cursor += 1

    def loss(self, model: Model, batch: AslBatch, rng: torch.Generator) -> dict[str, Tensor]:
        """The enabled terms of the objective; see losses.py."""
        return self._terms(_predict(model, batch), batch)

    def _terms(self, prediction: Prediction, batch: AslBatch) -> dict[str, Tensor]:
        maps = (prediction, batch.cbf, batch.att, batch.mask, self.statistics)
        terms = supervised(*maps, self.params.loss.kind)
        if self.params.loss.nll_weight > 0:
            terms |= negative_log_likelihood(*maps)
        if self.params.loss.variance_weight > 0:
            terms["variance"] = variance(*maps)
        if self.params.loss.dc_weight > 0:
            legacy = self.params.legacy.mismatched_consistency
            plds = self.params.physics.plds
            terms["consistency"] = data_consistency(
                prediction, batch.signal, batch.mask, plds, batch.physics, legacy=legacy
            )
        return {name: term for name, term in terms.items() if name in self.weights}

    def evaluate(self, model: Model) -> Evaluation:
        """Loss, and masked mean absolute errors in ml/100 g/min and ms, on noisy held-out phantoms."""
        totals: dict[str, float] = {"loss": 0.0, "cbf_mae": 0.0, "att_mae": 0.0}
        batches = self.held_out()
        count = sum(len(batch.signal) for batch in batches)
        for batch in batches:
            prediction = _predict(model, batch)
            terms = self._terms(prediction, batch)
            values = {"loss": sum(self.weights[name] * term for name, term in terms.items())}
            values |= {f"{name}_mae": _masked_mae(prediction, batch, name) for name in ("cbf", "att")}
            totals = {name: total + float(values[name]) * len(batch.signal) / count for name, total in totals.items()}
        return Evaluation(totals)

    def held_out(self) -> list[AslBatch]:
        """The validation batches, made once."""
        if self._held_out is None:
            clean = self.source.validation()
            seed = self.params.seed
            count = len(clean.signal)
            noises = [generator(seed, "validation noise", k, device=self.device) for k in range(count)]
            self._held_out = [
                self._noisy(_slice(clean, start, start + VALIDATION_BATCH), noises[start : start + VALIDATION_BATCH])
                for start in range(0, count, VALIDATION_BATCH)
            ]
        return self._held_out

    def _noisy(self, clean: Clean, noises: list[torch.Generator]) -> AslBatch:
        reference = reference_signal(clean.physics) * (WEAK if self.params.legacy.weak_noise else 1.0)
        signal, sigma = self.noise(clean.signal, reference, noises, self.params.physics.plds)
        mask = loss_mask(signal, self.params.loss.mask_percentile)
        return AslBatch(signal, sigma, clean.cbf[:, None], clean.att[:, None], mask, clean.physics)


def _predict(model: Model, batch: AslBatch) -> Prediction:
    prediction = model(batch.signal, batch.sigma)
    if not isinstance(prediction, Prediction):
        raise TypeError(f"a model of this study returns a Prediction, not {type(prediction).__name__}")
    return prediction


def _masked_mae(prediction: Prediction, batch: AslBatch, name: Literal["cbf", "att"]) -> Tensor:
    error: Tensor = (getattr(prediction, name) - getattr(batch, name)).abs()
    return error[batch.mask].mean()


def noise_model(params: Params) -> NoiseModel:
    """The training noise of a parameter file."""
    return NoiseModel(**{field.name: getattr(params.noise, field.name) for field in dataclasses.fields(NoiseModel)})


def loss_weights(params: Params) -> dict[str, float]:
    """Weight of each enabled term; a term of weight zero is not computed."""
    loss = params.loss
    weights = {
        "cbf": loss.cbf_weight,
        "att": loss.att_weight * loss.att_scale,
        "cbf_nll": loss.nll_weight,
        "att_nll": loss.nll_weight,
        "variance": loss.variance_weight,
        "consistency": loss.dc_weight,
    }
    return {name: weight for name, weight in weights.items() if weight > 0}


def augment(clean: Clean, random: list[torch.Generator], params: Params) -> Clean:
    """Mirror and turn each sample, signal and maps alike, by its own generator."""
    if not (params.augmentation.flips or params.augmentation.rotations):
        return clean
    stacked = torch.cat([clean.signal, clean.cbf[:, None], clean.att[:, None]], dim=1)
    turned = torch.stack([_turn(image, rng, params) for image, rng in zip(stacked, random, strict=True)])
    return clean._replace(signal=turned[:, :-2], cbf=turned[:, -2], att=turned[:, -1])


def _turn(image: Tensor, random: torch.Generator, params: Params) -> Tensor:
    draws = torch.rand(3, generator=random).tolist()
    if params.augmentation.flips:
        axes = [axis for axis, draw in zip((1, 2), draws, strict=False) if draw < 0.5]
        image = image.flip(axes) if axes else image
    if params.augmentation.rotations:
        image = image.rot90(int(4 * draws[2]), (1, 2))
    return image


def _slice(clean: Clean, start: int, stop: int) -> Clean:
    physics = clean.physics.map(lambda value: value[start:stop] if isinstance(value, Tensor) else value)
    return Clean(clean.signal[start:stop], clean.cbf[start:stop], clean.att[start:stop], physics)
