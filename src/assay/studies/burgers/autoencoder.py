"""Stage autoencoder: teach encoder and decoder to give fields back; all later stages see fields through them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from assay import progress
from assay.engine.precision import pick_device
from assay.engine.task import Evaluation, Model, Monitor
from assay.studies.burgers import networks
from assay.studies.burgers.config import Params
from assay.studies.burgers.metrics import nrmse_frame
from assay.studies.burgers.training import Upstream, train_stage
from assay.studies.burgers.trajectories import Trajectories
from assay.studies.burgers.windows import Window, Windows

VALIDATION_FIELDS = 1024  # fields that are reconstructed at a validation, evenly spread over the split


def run(params: Params) -> None:
    """Train; write the network to results/autoencoder.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
    """
    device = pick_device(params.autoencoder.train.device)
    with progress.phase("load", 1, unit="data sets"):
        trajectories = networks.open_data(params)
        task = AutoencoderTask(params, trajectories, device)
    upstream = Upstream(data=trajectories.digest, networks={})
    train_stage("autoencoder", task, params.autoencoder.train, params, task.facts, upstream, device)


class AutoencoderTask:
    """Fields to latent states and back."""

    monitor = Monitor("nrmse", "min")

    def __init__(self, params: Params, trajectories: Trajectories, device: torch.device) -> None:
        self.params, self.weights = params, {"reconstruction": 1.0}
        self.facts = trajectories.statistics._asdict()
        self.training = Windows(trajectories, params.data, "training", 1, device)
        held_out = Windows(trajectories, params.data, "validation", 1, device)
        chosen = torch.linspace(0, held_out.numbers - 1, min(VALIDATION_FIELDS, held_out.numbers)).long()
        self.held_out = held_out.window(chosen).fields
        self.samples_per_epoch = self.training.numbers

    def build(self) -> nn.Module:
        """Encoder and decoder."""
        return networks.build("autoencoder", self.params, self.facts)

    def batches(self, cursor: int) -> Iterator[Window]:
        """Single fields."""
        size = self.params.autoencoder.train.batch_size
        return self.training.batches(self.params.seed, cursor, size, self.params.augmentation)

    def loss(self, model: Model, batch: Window, rng: torch.Generator) -> dict[str, Tensor]:
        """Squared error over mean square of each field, so that weak fields count as much as strong ones."""
        field = batch.fields[:, 0]
        error = (model(field) - field).square().mean(-1) / field.square().mean(-1)
        return {"reconstruction": error.mean()}

    def evaluate(self, model: Model) -> Evaluation:
        """Reconstruction error of held-out fields."""
        return Evaluation({"nrmse": float(nrmse_frame(model(self.held_out[:, 0])[:, None], self.held_out))})
