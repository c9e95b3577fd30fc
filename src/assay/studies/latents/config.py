"""The parameters of the latents study as a whole, and what each stage reads of them; sections.py has the single keys.

`STAGES` names the stages in order and the sections or dotted keys that each one reads: `dvc.yaml` lists the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from assay.config.fields import Bounds, Problem
from assay.engine.config import TrainConfig
from assay.studies.latents.sections import (
    SPLITS,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    NetworkConfig,
    SamplingConfig,
)
from assay.studies.latents.sizes import SIZES

STAGES: dict[str, tuple[str, ...]] = {
    "simulate": ("data",),
    "train": ("seed", "data", "sampling", "model", "loss", "train"),
    "validate": ("data", "evaluation"),
}

SMALL = {
    "data.preset": "tiny",
    "data.steps": 1500,
    "data.training": [100, 1000],
    "data.validation": [1000, 1200],
    "data.test": [1200, 1500],
    "evaluation.horizons": 3,
    "evaluation.rollout_steps": 50,
    "evaluation.rollout_starts": 2,
    "evaluation.ridge": [0.01],
    "evaluation.stimulus_window": 2,
}
"""Amounts with which every stage takes seconds: what `assay plan --probe` rehearses with."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of the latents study: does a latent dynamical model earn its place beside linear ones?"""

    seed: Annotated[int, Bounds(ge=0)]
    """Replicate: changes initial weights and the order of samples; the data stay."""
    data: DataConfig
    """The recording."""
    sampling: SamplingConfig
    """Observations and samples."""
    model: ModelConfig
    """The network."""
    loss: LossConfig
    """The training objective."""
    train: TrainConfig
    """Budget, optimiser, precision, compilation."""
    evaluation: EvaluationConfig
    """Baselines and rollouts."""

    def conflicts(self) -> Iterator[Problem]:
        """Contradictions between sections."""
        yield from self._length_conflicts()
        if self.data.preset is not None and self.model.latent_dim > SIZES[self.data.preset].neurons:
            neurons = SIZES[self.data.preset].neurons
            yield Problem("model.latent_dim", str(self.model.latent_dim), f"<= {neurons}, the neurons of data.preset")
        if self.model.batch_norm and self.train.ensemble_size > 1:
            given = str(self.train.ensemble_size)
            yield Problem("train.ensemble_size", given, "1 with model.batch_norm true", "its buffers cannot be stacked")
        if self.model.batch_norm and self.train.batch_size == 1:
            yield Problem("train.batch_size", "1", "> 1 with model.batch_norm true", "one sample has no variance")
        if self.loss.unconnected_weight > 0 and self.data.source == "published":
            given = f"{self.loss.unconnected_weight:g}"
            yield Problem(
                "loss.unconnected_weight", given, "0 with data.source published", "its connections are unknown"
            )
        if self.loss.unconnected_weight > 0 and self.sampling.time_units > 1:
            given = f"{self.loss.unconnected_weight:g}"
            why = "over several steps activity comes by way of others"
            yield Problem("loss.unconnected_weight", given, "0 with sampling.time_units > 1", why)
        if self.loss.unconnected_weight > 0 and self.model.batch_norm:
            given = f"{self.loss.unconnected_weight:g}"
            why = "silenced activity would enter its running statistics"
            yield Problem("loss.unconnected_weight", given, "0 with model.batch_norm true", why)
        if self.train.epochs is not None and self.loss.reconstruction_warmup >= self.train.epochs:
            given, allowed = f"{self.loss.reconstruction_warmup:g}", f"less than train.epochs {self.train.epochs:g}"
            yield Problem("loss.reconstruction_warmup", given, allowed, "the evolver would not be trained")
        for key in ("stimulus_dim", "stimulus_state"):
            value, blind = getattr(self.model, key), self.sampling.stimulus == "none"
            if (value is None) != blind:
                given = "null" if value is None else str(value).lower()
                yield Problem(f"model.{key}", given, "null with sampling.stimulus none, a value with the others")

    def _length_conflicts(self) -> Iterator[Problem]:
        """Splits too short for what is asked of them."""
        horizon = self.sampling.horizon
        for key in SPLITS:
            steps = self.data.split_steps(key)
            if horizon >= steps:
                given = f"a horizon of {horizon} (time_units x evolve_multiple_steps)"
                yield Problem("sampling.time_units", given, f"less than the {steps} time steps of data.{key}")
        starts = self.training_starts
        if self.train.batch_size > starts:
            yield Problem("train.batch_size", str(self.train.batch_size), f"<= {starts}, the samples of data.training")
        test = self.data.split_steps("test")
        if self.evaluation.horizons >= test:
            given = str(self.evaluation.horizons)
            yield Problem("evaluation.horizons", given, f"less than the {test} time steps of data.test")
        longest = test - 1 - self.evaluation.rollout_starts
        if self.evaluation.rollout_steps > longest:
            allowed = f"<= {longest}, the steps between those of data.test less rollout_starts"
            yield Problem("evaluation.rollout_steps", str(self.evaluation.rollout_steps), allowed)
        for key in SPLITS:
            steps = self.data.split_steps(key)
            if self.evaluation.stimulus_window >= steps:
                given = str(self.evaluation.stimulus_window)
                yield Problem("evaluation.stimulus_window", given, f"less than the {steps} time steps of data.{key}")

    @property
    def training_starts(self) -> int:
        """Time steps at which a training sample may begin."""
        every = self.sampling.time_units if self.sampling.acquisition == "time_aligned" else 1
        return max(0, -(-(self.data.split_steps("training") - self.sampling.horizon) // every))


def describe(params: Params) -> str:
    """What a parameter file would run, in one line."""
    model, train = params.model, params.train
    samples = max(1, params.training_starts)
    steps = train.total_steps(samples)
    seen = steps * train.samples_per_step
    network = (
        f"{_name(model.autoencoder)} encoder, {_name(model.evolver)} evolver, {model.latent_dim} latent dimensions"
    )
    return (
        f"{network} x {train.ensemble_size}: {steps} steps, {seen} samples, {seen / samples:.3g} epochs, "
        f"seed {params.seed}"
    )


def _name(network: NetworkConfig) -> str:
    if network.hidden_layers == 0:
        return "linear"
    return f"{network.kind} {network.hidden_layers} x {network.hidden_dim}"
