"""Stage corrector: learn the distribution of the frozen operator's one-step errors, as a flow from noise to error.

Open it to see which errors it is shown. metrics.json says, beside the validation loss, what the zero map would score,
and what adding drawn errors does to the operator's one-step prediction on the validation pairs.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from assay import progress
from assay.engine.precision import pick_device
from assay.engine.random import generator
from assay.engine.task import Evaluation, Model, Monitor
from assay.files import write_bytes
from assay.studies.burgers import networks, predictors
from assay.studies.burgers.config import Params
from assay.studies.burgers.diffusion import Errors, NoiseTimes, Velocity, flow_loss
from assay.studies.burgers.metrics import nrmse_frame
from assay.studies.burgers.networks import Loaded, load_shared
from assay.studies.burgers.predictors import Draw
from assay.studies.burgers.training import Upstream, train_stage
from assay.studies.burgers.trajectories import Trajectories
from assay.studies.burgers.windows import Window, Windows

SCALE_PAIRS = 1024  # training pairs whose errors fix the scale, evenly spread
VALIDATION_PAIRS = 256  # evenly spread over the split
VALIDATION_DRAWS = 8  # times and noises at which each of them is judged; members of a mean prediction
CHUNK = 256  # pairs through a network at once: bounds memory


def run(params: Params) -> None:
    """Train on the operator's errors; write the network to results/corrector.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        CheckpointError: there is no operator, or it was trained for other fields or data.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
    """
    config = params.corrector
    device = pick_device(config.train.device)
    with progress.phase("load", 1, unit="data sets"):
        trajectories = networks.open_data(params)
        operator = load_shared("operator", params, {"data": trajectories.digest}, device)
        task = CorrectorTask(params, trajectories, operator, device)
    upstream = Upstream(data=trajectories.digest, networks={"operator": operator.digest})
    train_stage("corrector", task, config.train, params, task.facts, upstream, device)
    trained = networks.load(networks.model_path("corrector"), "corrector", device)
    of_zero = task.pairs.flow_loss(zero, config.noise_times)
    found = {
        "validation_flow_of_zero": of_zero,
        **task.pairs.nrmse(predictors.flow(trained.module, task.facts, config, CHUNK)),
    }
    add_metrics(networks.RESULTS / "corrector" / "metrics.json", found)


class CorrectorTask:
    """The velocity from noise to the operator's standardised one-step error."""

    monitor = Monitor("flow", "min")

    def __init__(self, params: Params, trajectories: Trajectories, operator: Loaded, device: torch.device) -> None:
        self.params, self.weights = params, {"flow": 1.0}
        self.pairs = ErrorPairs(params, trajectories, operator, device)
        self.facts = self.pairs.facts
        self.samples_per_epoch = self.pairs.training.numbers

    def build(self) -> nn.Module:
        """A fresh corrector: the zero map."""
        return networks.build("corrector", self.params, self.facts)

    def batches(self, cursor: int) -> Iterator[Errors]:
        """Augmented pairs and the operator's errors on them."""
        return self.pairs.batches(cursor, self.params.corrector.train.batch_size)

    def loss(self, model: Model, batch: Errors, rng: torch.Generator) -> dict[str, Tensor]:
        """The flow-matching loss; see diffusion.py."""
        return {"flow": flow_loss(model, batch, rng, self.params.corrector.noise_times)}

    def evaluate(self, model: Model) -> Evaluation:
        """The same loss on the validation pairs."""
        return Evaluation({"flow": self.pairs.flow_loss(model, self.params.corrector.noise_times)})


class ErrorPairs:
    """Pairs of fields a step apart and what the frozen operator makes of the first.

    facts: those of the operator, and `scale`: that of errors relative to the predicted change, over training pairs,
    unless it is given; see predictors.error_unit.
    """

    def __init__(
        self,
        params: Params,
        trajectories: Trajectories,
        operator: Loaded,
        device: torch.device,
        scale: float | None = None,
    ) -> None:
        self.params, self.operator = params, operator
        self.training, validation = (
            Windows(trajectories, params.data, split, 2, device) for split in ("training", "validation")
        )
        scale = typical_error(operator, self.training) if scale is None else scale
        self.facts = {**operator.facts, "scale": scale}
        self.held_out = one_step_errors(operator, spread(validation, VALIDATION_PAIRS), self.facts)

    def batches(self, cursor: int, size: int) -> Iterator[Errors]:
        """Endless augmented training batches from batch `cursor` on."""
        for window in self.training.batches(self.params.seed, cursor, size, self.params.augmentation):
            yield one_step_errors(self.operator, window, self.facts)

    @torch.no_grad()
    def flow_loss(self, velocity: Velocity, times: NoiseTimes) -> float:
        """Flow-matching loss on the validation pairs, at the same times and noises at every call."""
        rng = self.rng()
        losses = [flow_loss(velocity, self.held_out, rng, times) for _ in range(VALIDATION_DRAWS)]
        return float(torch.stack(losses).mean())

    def draw(self, draw: Draw) -> Tensor:
        """Errors drawn for every validation pair, from the same noise at every call: (draws, pairs, cells)."""
        errors, rng = self.held_out, self.rng()
        noises = torch.randn((VALIDATION_DRAWS, *errors.start.shape), generator=rng, device=rng.device)
        return torch.stack([draw(noise, errors.predicted, errors.start) for noise in noises])

    def corrected(self, drawn: Tensor) -> Tensor:
        """The operator's predictions of the validation pairs with drawn errors (draws, pairs, cells) added."""
        return predictors.correct(self.operator, drawn, self.held_out.predicted, self.held_out.start)

    def nrmse(self, draw: Draw) -> dict[str, float]:
        """nRMSE on the validation pairs: of the operator, with one drawn error added, and with the mean of several."""
        corrected = self.corrected(self.draw(draw))
        fields = {"operator": self.held_out.predicted, "drawn": corrected[0], "mean": corrected.mean(0)}
        return {f"validation_nrmse_{name}": float(nrmse_frame(u, self.held_out.truth)) for name, u in fields.items()}

    def rng(self) -> torch.Generator:
        """Random numbers of the validation, from their beginning."""
        return generator("burgers corrector validation", device=self.held_out.start.device)


@dataclass(frozen=True)
class RelativeErrors(Errors):
    """One-step errors, standardised by a unit that depends on the predicted change."""

    unit: Tensor
    """(B, 1), in the field's unit; see predictors.error_unit."""

    @property
    def residual(self) -> Tensor:
        """The standardised error, the process at s = 1."""
        return (self.truth - self.predicted) / self.unit


def one_step_errors(operator: Loaded, window: Window, facts: networks.Facts) -> RelativeErrors:
    """The operator's errors on pairs of fields, in full precision: rounding would add errors that are not its own."""
    start, truth = window.fields.unbind(1)
    parts = zip(*(torch.split(each, CHUNK) for each in (start, window.dt, window.nu)), strict=True)
    with torch.no_grad(), torch.autocast(start.device.type, enabled=False):
        predicted = torch.cat([predictors.advance(operator.module, *part) for part in parts])
    unit = predictors.error_unit(predicted, start, facts)
    return RelativeErrors(start=start, predicted=predicted, truth=truth, scale=facts["scale"], unit=unit)


def typical_error(operator: Loaded, training: Windows) -> float:
    """Rms over training pairs of the operator's one-step error divided by the rms of the predicted change."""
    errors = one_step_errors(operator, spread(training, SCALE_PAIRS), {**operator.facts, "scale": 1.0})
    return float(errors.residual.square().mean().sqrt())


def spread(windows: Windows, count: int) -> Window:
    """`count` windows, or all if there are fewer, evenly spread over the split."""
    return windows.window(torch.linspace(0, windows.numbers - 1, min(count, windows.numbers)).long())


def zero(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
    """The velocity of an untrained corrector."""
    return torch.zeros_like(x)


def add_metrics(path: Path, found: Mapping[str, float]) -> None:
    """Write further numbers into a stage's metrics.json."""
    merged = {**json.loads(path.read_bytes()), **found}
    write_bytes(path, (json.dumps(merged, indent=2) + "\n").encode())
