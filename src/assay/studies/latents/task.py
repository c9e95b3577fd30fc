"""The latents study as the engine sees it: model, batches, loss, validation; open it to change what is learnt."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.engine.task import Evaluation, Model, Monitor
from assay.errors import DataError
from assay.studies.latents.config import Params
from assay.studies.latents.dataset import Recording
from assay.studies.latents.model import Forecast, build
from assay.studies.latents.samples import Batch, Order, Samples

VALIDATION_ROWS = 2048  # samples of a forward pass in validation: bounds memory
PENALTIES = ("encoder_l1", "evolver_l1", "decoder_l1")


class LatentsTask:
    """The activity of all neurons some steps ahead, by way of a small latent state."""

    monitor = Monitor("mse", "min")

    def __init__(self, params: Params, recording: Recording, device: torch.device) -> None:
        self.params, self.device = params, device
        self.neurons, self.data = recording.neurons, recording.digest
        self.channels = None if params.sampling.stimulus == "none" else recording.channels
        if params.model.latent_dim > self.neurons:
            given, most = params.model.latent_dim, self.neurons
            raise DataError(f"model.latent_dim: got {given}; allowed: <= {most}, the neurons recorded; lower it")
        self.weights = params.loss.weights
        self.training = self._samples(recording, "training")
        self.validation = self._samples(recording, "validation")
        self.samples_per_epoch = self.training.numbers
        size, again = params.train.batch_size, params.sampling.replacement
        self.order = Order(params.seed, self.samples_per_epoch, size, again, device)
        self.connected = self._connections(recording)
        self.penalised = any(name in self.weights for name in PENALTIES)
        self._on, self._off = torch.ones((), device=device), torch.zeros((), device=device)

    def _samples(self, recording: Recording, split: str) -> Samples:
        activity, stimulus = (
            recording.rows(name, *getattr(self.params.data, split)) for name in ("activity", "stimulus")
        )
        return Samples(activity.to(self.device), stimulus.to(self.device), self.params.sampling, self.params.data.seed)

    def _connections(self, recording: Recording) -> Tensor | None:
        """(N, N) bool, whether a neuron (row) hears another or is it; None if no term asks."""
        if "unconnected" not in self.weights or recording.connections is None:
            return None
        known = torch.eye(self.neurons, dtype=torch.bool)
        known[recording.connections[0], recording.connections[1]] = True
        return known.to(self.device)

    def build(self) -> nn.Module:
        """The network of `model`."""
        return build(self.params.model, self.neurons, self.channels)

    def batches(self, cursor: int) -> Iterator[Batch]:
        """Samples gathered by index, from batch `cursor` on."""
        warm = self.params.loss.reconstruction_warmup * self.samples_per_epoch
        while True:
            evolve = self._off if cursor * self.params.train.batch_size < warm else self._on
            yield self.training.batch(self.order.numbers(cursor), evolve)
            cursor += 1

    def loss(self, model: Model, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """The enabled terms. In a reconstruction warm-up those of the evolver are zero, and so are their gradients."""
        forecast: Forecast = model(batch.activity, batch.stimulus, self.training.steps, self.penalised)
        terms = {"evolve": batch.evolve * self._evolve(forecast.predictions, batch)}
        terms["reconstruction"] = self._penalty(forecast.reconstruction, batch.activity).mean()
        terms |= dict(zip(PENALTIES, forecast.l1.unbind(), strict=True))
        terms["evolver_l1"] = batch.evolve * terms["evolver_l1"]
        terms["total_variation"] = batch.evolve * forecast.update
        if self.connected is not None:
            terms["unconnected"] = batch.evolve * self._unconnected(model, batch, forecast, rng)
        return {name: terms[name] for name in self.weights}

    def _penalty(self, found: Tensor, truth: Tensor) -> Tensor:
        if self.params.loss.kind == "huber":
            return functional.huber_loss(found, truth, reduction="none")
        return (found - truth).square()

    def _evolve(self, predictions: Tensor, batch: Batch) -> Tensor:
        """The sum over the observations ahead of the mean error; a neuron is observed once in each."""
        error = self._penalty(predictions, batch.targets)
        if batch.observed is not None:
            error = torch.where(batch.observed, error, 0.0)
        return error.mean((0, 2)).sum()

    def _unconnected(self, model: Model, batch: Batch, forecast: Forecast, rng: torch.Generator) -> Tensor:
        """How far the prediction of some neurons changes when all that they do not hear is set to zero."""
        count = self.params.loss.unconnected_neurons or 1
        chosen = torch.randint(self.neurons, (count,), generator=rng, device=self.device)
        if self.connected is None:
            raise TypeError("the term unconnected needs connections")
        heard = self.connected[chosen].any(0)
        silenced: Forecast = model(batch.activity * heard, batch.stimulus, self.training.steps)
        change = silenced.predictions[:, 0, chosen] - forecast.predictions[:, 0, chosen]
        return change.square().mean()

    def evaluate(self, model: Model) -> Evaluation:
        """Mean squared errors of the held-out range: of the observations ahead, and of the reconstruction."""
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        every = torch.arange(self.validation.numbers, device=self.device)
        for numbers in torch.split(every, VALIDATION_ROWS):
            batch = self.validation.batch(numbers, self._on)
            forecast: Forecast = model(batch.activity, batch.stimulus, self.validation.steps)
            error = (forecast.predictions.float() - batch.targets).square()
            weight = torch.ones_like(error) if batch.observed is None else batch.observed.float()
            share = len(numbers) / len(every)
            totals[0] += share * (error * weight).sum() / weight.sum()
            totals[1] += share * (forecast.reconstruction.float() - batch.activity).square().mean()
        mse, reconstruction = totals.tolist()
        return Evaluation({"mse": mse, "reconstruction_mse": reconstruction})
