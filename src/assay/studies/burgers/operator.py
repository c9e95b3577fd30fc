"""Stage operator: teach the latent operator to step fields ahead, judged in field space.

Open it for the terms of the objective. Beside the model it writes gradients.csv: the norm of every term's gradient in
encoder, operator and decoder, with the weights that were kept; 0 in a part that is not trained.
"""

import csv
import dataclasses
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from assay import progress
from assay.engine.precision import pick_device
from assay.engine.random import generator
from assay.engine.task import Evaluation, Model, Monitor
from assay.errors import CheckpointError
from assay.files import write_bytes
from assay.studies.burgers import networks
from assay.studies.burgers.config import Params
from assay.studies.burgers.losses import field_error, loss_weights, spectral_error
from assay.studies.burgers.metrics import nrmse_frame
from assay.studies.burgers.model import Forecast, Forecaster, attention_kernel
from assay.studies.burgers.training import Upstream, train_stage
from assay.studies.burgers.trajectories import Trajectories
from assay.studies.burgers.windows import Window, Windows

VALIDATION_WINDOWS = 256  # one-step pairs that are judged at a validation, evenly spread over the split
LATENT = ("model.tokens", "model.latent_dim")


def run(params: Params) -> None:
    """Train from the autoencoder's weights; write the network to results/operator.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        CheckpointError: there is no autoencoder, or it was trained for other fields, data or latent states.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
    """
    device = pick_device(params.train.device)
    with progress.phase("load", 1, unit="data sets"):
        trajectories = networks.open_data(params)
        autoencoder = networks.load_shared("autoencoder", params, {"data": trajectories.digest}, device)
        networks.require_same(networks.model_path("autoencoder"), autoencoder, params, LATENT)
        task = OperatorTask(params, trajectories, autoencoder, device)
        progress.announce("burgers", "operator", attention=kernel(params, device))
    upstream = Upstream(data=trajectories.digest, networks={"autoencoder": autoencoder.digest})
    train_stage("operator", task, params.train, task.params, task.facts, upstream, device)
    trained = networks.load(networks.model_path("operator"), "operator", device)
    write_gradients(networks.RESULTS / "operator" / "gradients.csv", task, trained.module)


def kernel(params: Params, device: torch.device) -> str:
    """The attention kernel that training takes here, for the run's record.

    Raises:
        ConfigError: model.backend cannot be used on this device.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[params.train.precision]
    options = networks.operator_options(params)
    return attention_kernel(options, params.model.tokens, params.train.batch_size, device, dtype)


class OperatorTask:
    """The next fields from one field."""

    monitor = Monitor("one_step", "min")

    def __init__(
        self, params: Params, trajectories: Trajectories, autoencoder: networks.Loaded, device: torch.device
    ) -> None:
        self.params = _with_autoencoder(params, autoencoder)
        self.autoencoder = autoencoder
        self.facts = dict(autoencoder.facts)
        self.weights = loss_weights(params.loss)
        self.training = Windows(trajectories, params.data, "training", params.loss.window, device)
        self.held_out = HeldOut(params, trajectories, device)
        self.samples_per_epoch = self.training.numbers

    def build(self) -> nn.Module:
        """Encoder and decoder as the autoencoder stage left them, the operator fresh: as a whole, persistence."""
        module = networks.build("operator", self.params, self.facts)
        if not isinstance(module, Forecaster):
            raise TypeError(f"the operator stage trains a Forecaster, not {type(module).__name__}")
        module.autoencoder.load_state_dict(self.autoencoder.module.state_dict())
        module.autoencoder.requires_grad_(self.params.loss.train_autoencoder)
        return module

    def batches(self, cursor: int) -> Iterator[Window]:
        """Windows as long as a rollout."""
        return self.training.batches(self.params.seed, cursor, self.params.train.batch_size, self.params.augmentation)

    def loss(self, model: Model, batch: Window, rng: torch.Generator) -> dict[str, Tensor]:
        """The enabled terms; see losses.py."""
        std, loss = self.facts["std"], self.params.loss
        forecast = self._forecast(model, batch)
        error = field_error(forecast.fields[:, 1:], batch.fields[:, 1:], loss.kind, std)
        terms = {"one_step": error[:, 0].mean()}
        if loss.rollout_weight > 0:
            terms["rollout"] = error[:, -1].mean() if loss.pushforward else error[:, 1:].mean()
        if loss.spectral_weight > 0:
            terms["spectral"] = spectral_error(forecast.fields[:, 1], batch.fields[:, 1], std)
        if loss.inverse_encoding_weight > 0:
            terms["inverse_encoding"] = field_error(forecast.fields[:, 0], batch.fields[:, 0], loss.kind, std).mean()
        if loss.inverse_decoding_weight > 0:
            again = model(forecast.fields[:, 0], batch.dt, batch.nu, 0).latents[:, 0]
            terms["inverse_decoding"] = (again - forecast.latents[:, 0].detach()).square().mean()
        return {name: term for name, term in terms.items() if name in self.weights}

    def _forecast(self, model: Model, batch: Window) -> Forecast:
        """All steps of the window; with pushforward (Brandstetter et al. 2022, arXiv 2202.03376) the last one starts
        from a field that no gradient flows through, and stands after the first in the result."""
        start, steps = batch.fields[:, 0], self.params.loss.window - 1
        if not self.params.loss.pushforward:
            forecast: Forecast = model(start, batch.dt, batch.nu, steps)
            return forecast
        first: Forecast = model(start, batch.dt, batch.nu, 1)
        with torch.no_grad():
            pushed = model(start, batch.dt, batch.nu, steps - 1).fields[:, -1]
        last: Forecast = model(pushed, batch.dt, batch.nu, 1)
        between = first.fields[:, 1:].detach().expand(-1, steps - 1, -1)[:, 1:]
        fields = torch.cat([first.fields, between, last.fields[:, 1:]], dim=1)
        return Forecast(fields, first.latents)

    def evaluate(self, model: Model) -> Evaluation:
        """Errors on held-out trajectories."""
        return Evaluation(self.held_out.judge(lambda u, dt, nu, steps: model(u, dt, nu, steps).fields))


class HeldOut:
    """The validation trajectories: pairs for the error of one step, and all of them from their start for a rollout."""

    def __init__(self, params: Params, trajectories: Trajectories, device: torch.device) -> None:
        pairs = Windows(trajectories, params.data, "validation", 2, device)
        chosen = torch.linspace(0, pairs.numbers - 1, min(VALIDATION_WINDOWS, pairs.numbers)).long()
        self.pairs = pairs.window(chosen)
        whole = Windows(trajectories, params.data, "validation", params.data.steps + 1, device)
        self.rollouts = whole.window(torch.arange(0, whole.numbers, whole.starts))

    def judge(self, predict: Model) -> dict[str, float]:
        """nRMSE per frame of `predict(u, dt, nu, steps) -> (B, steps + 1, cells)`: of one step, and to the end."""
        found = {}
        for name, window in (("one_step", self.pairs), ("rollout", self.rollouts)):
            truth = window.fields[:, 1:]
            fields = predict(window.fields[:, 0], window.dt, window.nu, truth.shape[1])[:, 1:]
            found[name] = float(nrmse_frame(fields, truth))
        return found


def _with_autoencoder(params: Params, autoencoder: networks.Loaded) -> Params:
    """The parameters, with the section of the autoencoder that there is: this stage reads it from its file."""
    return dataclasses.replace(params, autoencoder=autoencoder.params.autoencoder)


def write_gradients(path: Path, task: OperatorTask, module: nn.Module) -> None:
    """2-norms of the gradient of each weighted term in each part of the network, on the first training batch."""
    parts = gradient_parts(module)
    for name, part in parts.items():
        part.requires_grad_(name == "operator" or task.params.loss.train_autoencoder)
    terms = task.loss(module, next(task.batches(0)), generator(task.params.seed, "gradients"))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["term", *parts])
    for name, term in terms.items():
        rows.writerow([name, *(f"{norm:.4g}" for norm in gradient_norms(term * task.weights[name], parts))])
    write_bytes(path, text.getvalue().encode())


def gradient_parts(module: nn.Module) -> dict[str, nn.Module]:
    """Encoder, operator and decoder of a forecaster."""
    if not isinstance(module, Forecaster):
        raise CheckpointError(f"results/operator: holds a {type(module).__name__}, not a forecaster; train again")
    return {"encoder": module.autoencoder.encoder, "operator": module.operator, "decoder": module.autoencoder.decoder}


def gradient_norms(term: Tensor, parts: Mapping[str, nn.Module]) -> list[float]:
    """The norm of a term's gradient in each part; 0 where it does not reach, or nothing is trained."""
    norms = []
    for part in parts.values():
        trained = [weight for weight in part.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(term, trained, retain_graph=True, allow_unused=True) if trained else ()
        squares = [g.square().sum() for g in gradients if g is not None]
        norms.append(float(torch.stack(squares).sum().sqrt()) if squares else 0.0)
    return norms
