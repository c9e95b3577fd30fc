"""Stage fno: train the Fourier neural operator on the same windows, with the same budget, as the baseline to beat."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from assay import progress
from assay.engine.precision import pick_device
from assay.engine.task import Evaluation, Model, Monitor
from assay.studies.burgers import networks
from assay.studies.burgers.config import Params
from assay.studies.burgers.losses import field_error
from assay.studies.burgers.operator import HeldOut
from assay.studies.burgers.training import Upstream, train_stage
from assay.studies.burgers.trajectories import Trajectories
from assay.studies.burgers.windows import Window, Windows


def run(params: Params) -> None:
    """Train; write the network to results/fno.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        ConfigError: the package neuraloperator is not installed.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
    """
    device = pick_device(params.train.device)
    with progress.phase("load", 1, unit="data sets"):
        trajectories = networks.open_data(params)
        task = FnoTask(params, trajectories, device)
    upstream = Upstream(data=trajectories.digest, networks={})
    train_stage("fno", task, params.train, params, task.facts, upstream, device)


class FnoTask:
    """The next fields from one field; of the operator's objective the errors of one step and of the whole rollout."""

    monitor = Monitor("one_step", "min")

    def __init__(self, params: Params, trajectories: Trajectories, device: torch.device) -> None:
        loss = params.loss
        self.params = params
        self.facts = trajectories.statistics._asdict()
        weights = {"one_step": loss.one_step_weight, "rollout": loss.rollout_weight}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self.training = Windows(trajectories, params.data, "training", loss.window, device)
        self.held_out = HeldOut(params, trajectories, device)
        self.samples_per_epoch = self.training.numbers

    def build(self) -> nn.Module:
        """A Fourier neural operator."""
        return networks.build("fno", self.params, self.facts)

    def batches(self, cursor: int) -> Iterator[Window]:
        """The operator's batches."""
        return self.training.batches(self.params.seed, cursor, self.params.train.batch_size, self.params.augmentation)

    def loss(self, model: Model, batch: Window, rng: torch.Generator) -> dict[str, Tensor]:
        """Errors of the first field and of those after it."""
        steps = self.params.loss.window - 1
        fields = roll_out(model, batch.fields[:, 0], batch.dt, batch.nu, steps)
        error = field_error(fields[:, 1:], batch.fields[:, 1:], self.params.loss.kind, self.facts["std"])
        terms = {"one_step": error[:, 0].mean()}
        if "rollout" in self.weights:
            terms["rollout"] = error[:, 1:].mean()
        return {name: term for name, term in terms.items() if name in self.weights}

    def evaluate(self, model: Model) -> Evaluation:
        """Errors on held-out trajectories."""
        return Evaluation(self.held_out.judge(lambda u, dt, nu, steps: roll_out(model, u, dt, nu, steps)))


def roll_out(model: Model, u: Tensor, dt: Tensor, nu: Tensor, steps: int) -> Tensor:
    """Fields at 0, dt, ..., steps dt, (B, steps + 1, cells), from u (B, cells)."""
    fields = [u]
    for _ in range(steps):
        fields.append(model(fields[-1], dt, nu))
    return torch.stack(fields, dim=1)
