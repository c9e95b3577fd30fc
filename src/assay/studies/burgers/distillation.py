"""Stage distillation: teach a copy of the corrector to reach the end of its flow in one call.

Open it to see what the student is held to. metrics.json compares it with its teacher on the validation pairs; a student
that has shrunk towards zero shows in `correction_ratio`, the rms of its corrections over that of the teacher's.
"""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from assay import progress
from assay.engine.precision import pick_device
from assay.engine.task import Evaluation, Model, Monitor
from assay.studies.burgers import networks, predictors
from assay.studies.burgers.config import Params
from assay.studies.burgers.corrector import CHUNK, ErrorPairs, add_metrics
from assay.studies.burgers.diffusion import Errors, Velocity, distillation_loss
from assay.studies.burgers.metrics import nrmse_frame
from assay.studies.burgers.networks import Loaded, load_shared
from assay.studies.burgers.training import Upstream, train_stage
from assay.studies.burgers.trajectories import Trajectories


def run(params: Params) -> None:
    """Train a student of the corrector; write it to results/distillation.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        CheckpointError: there is no corrector or operator, or they were trained for other fields, data or each other.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
    """
    config = params.distillation
    device = pick_device(config.train.device)
    with progress.phase("load", 1, unit="data sets"):
        trajectories = networks.open_data(params)
        here = {"data": trajectories.digest}
        operator = load_shared("operator", params, here, device)
        teacher = load_shared("corrector", params, {**here, "operator": operator.digest}, device)
        task = DistillationTask(params, trajectories, operator, teacher, device)
    upstream = Upstream(data=trajectories.digest, networks={"operator": operator.digest, "corrector": teacher.digest})
    train_stage("distillation", task, config.train, task.params, task.facts, upstream, device)
    student = networks.load(networks.model_path("distillation"), "distillation", device)
    add_metrics(networks.RESULTS / "distillation" / "metrics.json", task.compare(student.module))


class DistillationTask:
    """Where the teacher's flow ends, from any point of it, in one call."""

    monitor = Monitor("end", "min")

    def __init__(
        self, params: Params, trajectories: Trajectories, operator: Loaded, teacher: Loaded, device: torch.device
    ) -> None:
        self.params = dataclasses.replace(params, corrector=teacher.params.corrector)
        self.weights = {"consistency": 1.0}
        self.teacher, self.facts = teacher, dict(teacher.facts)
        self.pairs = ErrorPairs(params, trajectories, operator, device, teacher.facts["scale"])
        self.samples_per_epoch = self.pairs.training.numbers
        self._ends: Tensor | None = None

    def build(self) -> nn.Module:
        """A copy of the teacher."""
        module = networks.build("distillation", self.params, self.facts)
        module.load_state_dict(self.teacher.module.state_dict())
        return module

    def batches(self, cursor: int) -> Iterator[Errors]:
        """The corrector's batches."""
        return self.pairs.batches(cursor, self.params.distillation.train.batch_size)

    def loss(self, model: Model, batch: Errors, rng: torch.Generator) -> dict[str, Tensor]:
        """Disagreement of the student with itself one step of the teacher further on; see diffusion.py."""
        return {"consistency": self._consistency(model, batch, rng)}

    def _consistency(self, student: Velocity, errors: Errors, rng: torch.Generator) -> Tensor:
        grid = self.params.distillation.grid
        return distillation_loss(student, student, self.teacher.module, errors, grid, rng)

    @torch.no_grad()
    def evaluate(self, model: Model) -> Evaluation:
        """The loss at fixed points of the validation pairs, and how the student's one call compares to the flow."""
        loss = self._consistency(model, self.pairs.held_out, self.pairs.rng())
        return Evaluation({"consistency": float(loss), **self.compare(model)})

    @torch.no_grad()
    def compare(self, student: Velocity) -> dict[str, float]:
        """Student against teacher on the validation pairs and the same noise.

        end: rms difference of their drawn errors over the rms of the teacher's, 1 for a student that draws zeros.
        correction_ratio: rms of the student's drawn errors over that of the teacher's. nrmse_ratio: of the mean
        prediction, one-step nRMSE of the student over that of the teacher.
        """
        wanted = self._teacher_ends()
        found = self.pairs.draw(predictors.single_call(student, self.facts, CHUNK))
        ours, theirs = (
            nrmse_frame(self.pairs.corrected(each).mean(0), self.pairs.held_out.truth) for each in (found, wanted)
        )
        return {
            "end": float(_rms(found - wanted) / _rms(wanted)),
            "correction_ratio": float(_rms(found) / _rms(wanted)),
            "nrmse_ratio": float(ours / theirs),
        }

    def _teacher_ends(self) -> Tensor:
        """What the teacher's flow draws on the validation pairs, made once, in full precision."""
        if self._ends is None:
            flow = predictors.flow(self.teacher.module, self.facts, self.params.corrector, CHUNK)
            self._ends = self.pairs.draw(flow)
        return self._ends


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
