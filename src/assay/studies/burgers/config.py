"""The parameters of the burgers study as a whole, and what each stage reads of them; sections.py has the single keys.

`STAGES` names the stages in order and the sections or dotted keys that each one reads: `dvc.yaml` lists the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated

from assay.config.fields import Bounds, Problem
from assay.engine.config import TrainConfig
from assay.studies.burgers.network_sections import (
    AutoencoderConfig,
    CorrectorConfig,
    DistillationConfig,
    FnoConfig,
    ModelConfig,
)
from assay.studies.burgers.sections import (
    AugmentationConfig,
    DataConfig,
    EvaluationConfig,
    LegacyConfig,
    LossConfig,
    SearchConfig,
    indivisible,
)

SOLUTIONS = tuple(f"data.{field.name}" for field in fields(DataConfig) if field.name != "stride")
"""What trajectories are made or taken with: all of `data` but which of their frames the networks see."""
SAMPLING = ("corrector.sampler", "corrector.sampler_steps")
"""What drawing from a trained corrector reads."""

JUDGED = tuple(f"evaluation.{key}" for key in ("reference_viscosity", "batch_size", "bootstrap", "device"))
"""What the search reads of how estimators are judged."""
CORRECTOR = (
    *(f"corrector.{key}" for key in ("tokens", "hidden_dim", "depth", "heads", "ffn_ratio", "position_frequencies")),
    *(f"corrector.{key}" for key in ("noise_times", "sampler", "sampler_steps", "train")),
)
"""What training a corrector reads: all but how many draws are made of it later."""
ROLLOUT = ("loss.kind", "loss.one_step_weight", "loss.rollout_weight", "loss.rollout_steps")
"""The terms of the objective that need no latent states."""

STAGES: dict[str, tuple[str, ...]] = {
    "simulate": SOLUTIONS,
    "autoencoder": ("seed", "data", "augmentation", "model.tokens", "model.latent_dim", "autoencoder"),
    "operator": ("seed", "data", "augmentation", "model", "loss", "train"),
    "fno": ("seed", "data", "augmentation", "model.viscosity", *ROLLOUT, "fno", "train"),
    "corrector": ("seed", "data", "augmentation", *CORRECTOR),
    "distillation": ("seed", "data", "augmentation", "distillation"),
    "validate": ("data", *SAMPLING, "corrector.members", "evaluation", "legacy"),
    "search": ("data", *SAMPLING, *JUDGED, "search"),
}

SMALL = {
    "data.training": 4,
    "data.validation": 2,
    "data.test": 2,
    "data.cells": 256,
    "data.cells_internal": 256,
    "data.frames": 9,
    "autoencoder.train.batch_size": 4,
    "train.batch_size": 2,
    "corrector.train.batch_size": 4,
    "corrector.members": 2,
    "distillation.train.batch_size": 4,
    "evaluation.bootstrap": 100,
    "evaluation.images": 1,
    "search.trajectories": 2,
    "search.max_evaluations": 40,
}
"""Amounts with which every stage takes seconds: what `assay plan --probe` rehearses with."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of the burgers study: what makes a latent operator follow the Burgers equation?"""

    seed: Annotated[int, Bounds(ge=0)]
    """Replicate: changes initial weights, order and noise; the data stay."""
    data: DataConfig
    """Trajectories."""
    augmentation: AugmentationConfig
    """Symmetries of the training fields."""
    autoencoder: AutoencoderConfig
    """Encoder and decoder."""
    model: ModelConfig
    """The latent operator."""
    loss: LossConfig
    """The operator's objective."""
    train: TrainConfig
    """Budget of the operator, and of the Fourier neural operator beside it."""
    fno: FnoConfig
    """The baseline that is trained."""
    corrector: CorrectorConfig
    """The generative model of the operator's errors."""
    distillation: DistillationConfig
    """The corrector in one call."""
    evaluation: EvaluationConfig
    """Comparison on test trajectories."""
    search: SearchConfig
    """Test-time candidate selection."""
    legacy: LegacyConfig
    """Published defects as switches."""

    def conflicts(self) -> Iterator[Problem]:
        """Contradictions between sections."""
        cells = self.data.cells
        yield from indivisible("model.tokens", self.model.tokens, "data.cells", cells)
        yield from indivisible("corrector.tokens", self.corrector.tokens, "data.cells", cells)
        for count in self.evaluation.coarse_cells:
            yield from indivisible("evaluation.coarse_cells", count, "data.cells", cells)
        if self.fno.modes > cells // 2:
            yield Problem("fno.modes", str(self.fno.modes), f"<= {cells // 2}, half of data.cells")
        if self.loss.window > self.data.steps + 1:
            given, most = str(self.loss.rollout_steps), f"<= {self.data.steps}, the steps that data.frames hold"
            yield Problem("loss.rollout_steps", given, most)
        yield from self._viscosity_conflicts()
        yield from self._ensemble_conflicts()
        if self.model.conserve_mass and self.search.reward.get("mass", 0) > 0:
            weight, remedy = f"{self.search.reward['mass']:g}", "every candidate has the same mass"
            yield Problem("search.reward.mass", weight, "0 or none unless model.conserve_mass is false", remedy)
        if self.search.trajectories > self.data.test:
            yield Problem("search.trajectories", str(self.search.trajectories), f"<= data.test {self.data.test}")
        if self.search.max_evaluations < self.data.steps:
            allowed = f">= {self.data.steps}, the steps of a trajectory"
            yield Problem("search.max_evaluations", str(self.search.max_evaluations), allowed)

    def _ensemble_conflicts(self) -> Iterator[Problem]:
        """The Fourier operator's package cannot be stacked, and later stages build on one network."""
        budgets = {
            "autoencoder.train": self.autoencoder.train,
            "train": self.train,
            "corrector.train": self.corrector.train,
            "distillation.train": self.distillation.train,
        }
        for name, budget in budgets.items():
            if budget.ensemble_size > 1:
                given = str(budget.ensemble_size)
                yield Problem(f"{name}.ensemble_size", given, "1 in this study", "replicate by seeds")

    def _viscosity_conflicts(self) -> Iterator[Problem]:
        known = self.data.viscosities
        for nu in self.evaluation.viscosities:
            if nu not in known:
                remedy = "no model has been trained for it"
                yield Problem("evaluation.viscosities", f"{nu:g}", f"those of data.viscosities {list(known)}", remedy)
        if self.model.viscosity != (len(known) > 1):
            given, wanted = str(self.model.viscosity).lower(), "true with several data.viscosities, false with one"
            yield Problem("model.viscosity", given, wanted, "the model has to know which of them it steps with")


def describe(params: Params) -> str:
    """What a parameter file would run, in one line."""
    model, data, train = params.model, params.data, params.train
    starts = data.frames - (params.loss.window - 1) * data.stride
    samples = len(data.viscosities) * data.training * starts
    steps = train.total_steps(samples)
    network = f"{model.architecture} {list(model.depth)} x {model.hidden_dim}, {model.tokens} tokens, {model.attention}"
    seen = steps * train.samples_per_step
    return f"{network}: {steps} steps, {seen} samples, {seen / samples:.3g} epochs, seed {params.seed}"
