"""The parameters of the asl study as a whole, and what each stage reads of them; sections.py has the single keys.

`STAGES` names the stages in order and the sections or dotted keys that each one reads: `dvc.yaml` lists the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from assay.config.fields import Bounds, Problem
from assay.engine.config import TrainConfig
from assay.studies.asl.sections import (
    AugmentationConfig,
    DataConfig,
    EvaluationConfig,
    LegacyConfig,
    LossConfig,
    ModelConfig,
    NoiseConfig,
    PhysicsConfig,
    PredictConfig,
    SensitivityConfig,
)

PHANTOMS = ("data.image_size", "data.ranges", "data.lesions", "data.blur_sigma")
"""What held-out phantoms are drawn with."""

STAGES: dict[str, tuple[str, ...]] = {
    "simulate": ("seed", "data", "physics", "legacy.inactive_randomisation"),
    "train": (
        "seed",
        "data",
        "physics",
        "augmentation",
        "noise",
        "model",
        "loss",
        "train",
        "legacy.weak_noise",
        "legacy.inactive_randomisation",
        "legacy.steps_per_epoch",
        "legacy.published_statistics",
        "legacy.mismatched_consistency",
    ),
    "validate": (
        *PHANTOMS,
        "physics",
        "evaluation",
        "legacy.inactive_randomisation",
        "legacy.mispaired_evaluation",
    ),
    "sensitivity": (
        *PHANTOMS,
        "physics",
        "sensitivity",
        "legacy.inactive_randomisation",
        "legacy.published_sensitivity",
    ),
    "predict": ("predict",),
}

SMALL = {
    "data.phantoms": 12,
    "data.validation_phantoms": 2,
    "data.image_size": 32,
    "train.batch_size": 2,
    "evaluation.phantoms": 2,
    "evaluation.families": ["voronoi"],
    "evaluation.bootstrap": 100,
    "evaluation.images": 1,
    "sensitivity.phantoms": 2,
    "sensitivity.null_seeds": 1,
}
"""Amounts with which every stage takes seconds: what `assay plan --probe` rehearses with."""

FIELD_OF_VIEW = 192
"""Edge of the reference brain's slices in mm and voxels: the brain is 145 x 181 mm."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of the asl study: do amplitude-aware networks estimate perfusion better than least squares?"""

    seed: Annotated[int, Bounds(ge=0)]
    """Replicate: changes data, initial weights, order and noise."""
    data: DataConfig
    """Simulated brains."""
    physics: PhysicsConfig
    """The signal model."""
    augmentation: AugmentationConfig
    """Symmetries of the training images."""
    noise: NoiseConfig
    """Training noise."""
    model: ModelConfig
    """The network."""
    loss: LossConfig
    """The training objective."""
    train: TrainConfig
    """Budget, optimiser, precision."""
    evaluation: EvaluationConfig
    """Comparison with least squares."""
    sensitivity: SensitivityConfig
    """Amplitude tests."""
    legacy: LegacyConfig
    """Published defects as switches."""
    predict: PredictConfig
    """Measured data."""

    def conflicts(self) -> Iterator[Problem]:
        """Contradictions between sections."""
        if self.loss.nll_weight > 0 and not self.model.learned_variance:
            yield Problem("loss.nll_weight", f"{self.loss.nll_weight:g}", "0 unless model.learned_variance is true")
        if self.loss.nll_weight == 0 and self.model.learned_variance:
            remedy = "the variances would not be trained"
            yield Problem("model.learned_variance", "true", "false unless loss.nll_weight > 0", remedy)
        weights = (self.loss.cbf_weight, self.loss.att_weight * self.loss.att_scale, self.loss.nll_weight)
        if not any(weights):
            yield Problem("loss", "no positive weight", "a positive cbf, att or nll weight", "nothing would be trained")
        if self.legacy.mismatched_consistency and self.loss.dc_weight == 0:
            yield Problem("legacy.mismatched_consistency", "true", "false with loss.dc_weight 0")
        depth = len(self.model.hidden_sizes or (0, 0, 0))
        size, least = self.data.image_size, 2 ** (depth - 1)
        if size < least:
            yield Problem("data.image_size", str(size), f">= {least} with {depth} hidden_sizes")
        if size > FIELD_OF_VIEW and "brain" in self.evaluation.families:
            remedy = "the reference brain has no finer image; leave brain out of evaluation.families"
            yield Problem("data.image_size", str(size), f"<= {FIELD_OF_VIEW} with the family brain", remedy)
        if self.legacy.steps_per_epoch is not None and self.train.epochs is None:
            remedy = "give train.epochs or set it to null"
            yield Problem("legacy.steps_per_epoch", str(self.legacy.steps_per_epoch), "null with train.steps", remedy)
        if self.legacy.inactive_randomisation and self.physics.randomise == "none":
            remedy = "there is no randomisation to leave out"
            yield Problem("legacy.inactive_randomisation", "true", "false with physics.randomise none", remedy)


def describe(params: Params) -> str:
    """What a parameter file would run, in one line."""
    train, data = params.train, params.data
    samples = data.phantoms - (data.validation_phantoms if data.source == "disk" else 0)
    if params.legacy.steps_per_epoch is not None:
        samples = params.legacy.steps_per_epoch * train.samples_per_step
    steps = train.total_steps(samples)
    seen = steps * train.samples_per_step
    widths = f" {list(params.model.hidden_sizes)}" if params.model.hidden_sizes else ""
    network = f"{params.model.architecture}{widths} x {train.ensemble_size}"
    return f"{network}: {steps} steps, {seen} samples, {seen / samples:.3g} epochs, seed {params.seed}"
