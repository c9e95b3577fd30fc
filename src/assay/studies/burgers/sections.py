"""The sections of the burgers study's parameters, each with its own rules; network_sections.py has the networks'.

Field docstrings are the help text and the JSON Schema's descriptions.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from assay.config.fields import Bounds, Incidental, Problem

Positive = Annotated[float, Bounds(gt=0)]
Weight = Annotated[float, Bounds(ge=0)]
Count = Annotated[int, Bounds(ge=1)]
Device = Annotated[Literal["auto", "cpu", "cuda"], Incidental()]


def indivisible(key: str, part: int, of: str, whole: int) -> Iterator[Problem]:
    """The problem of `key` unless `part` divides `whole`, which `of` names."""
    if whole % part:
        divisors = ", ".join(str(n) for n in range(1, whole + 1) if whole % n == 0)
        yield Problem(key, str(part), f"divisors of {of} {whole} ({divisors})", f"change {key} or {of}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Trajectories of the Burgers equation; a row has the same initial condition at every viscosity."""

    path: Annotated[str, Incidental()]
    """Folder of the data set."""
    source: Literal["simulated", "published"]
    """simulated: solved by this study; published: read from the PDEBench files in `published`."""
    published: Annotated[tuple[str, ...], Incidental()] | None
    """PDEBench files, one for each viscosity (published); null for simulated."""
    old_version: Literal["refuse", "correct"] | None
    """What to do with a file from before November 2023, which has another viscosity (published); null for simulated."""
    viscosities: Annotated[tuple[float, ...], Bounds(gt=0, items=1)]
    """The nu of the data; the diffusion coefficient is nu / pi."""
    training: Count
    """Trajectories to train on, of each viscosity."""
    validation: Count
    """Trajectories that decide which weights are kept, of each viscosity."""
    test: Count
    """Trajectories that the results are about, of each viscosity."""
    seed: Annotated[int, Bounds(ge=0)]
    """Of the initial conditions; replicates share their data, so `seed` does not change it."""
    cells: Annotated[int, Bounds(ge=8)]
    """Points of a stored field."""
    cells_internal: Annotated[int, Bounds(ge=8)]
    """Points of the solver's field, averaged to `cells`; for published files those of the file."""
    frames: Annotated[int, Bounds(ge=3)]
    """Stored frames of a trajectory, the initial condition being the first."""
    interval: Positive
    """Time between stored frames."""
    scheme: Literal["auto", "muscl", "spectral"]
    """Solver: finite volumes, pseudo-spectral, or the one that resolves the shocks."""
    exact_period: bool
    """Whether initial conditions close on themselves; false repeats the small seam of the published ones."""
    stride: Count
    """Stored frames that one step of a model spans."""

    def conflicts(self) -> Iterator[Problem]:
        """Viscosities twice, cells that do not divide, frames that a step never reaches, files without a source."""
        if len(set(self.viscosities)) < len(self.viscosities):
            yield Problem("viscosities", str(list(self.viscosities)), "different numbers", "drop repeats")
        yield from indivisible("cells", self.cells, "cells_internal", self.cells_internal)
        if 2 * self.stride >= self.frames:
            yield Problem("stride", str(self.stride), f"< {self.frames / 2:g}, half of frames", "lower it")
        for key in ("published", "old_version"):
            if (self.source == "published") != (getattr(self, key) is not None):
                given = str(getattr(self, key)).replace("None", "null")
                yield Problem(key, given, "a value with source published, null with simulated")

    @property
    def steps(self) -> int:
        """Steps of a model from the first frame to the last it reaches."""
        return (self.frames - 1) // self.stride

    @property
    def dt(self) -> float:
        """Time that one step of a model spans."""
        return self.stride * self.interval


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Symmetries of the equation, applied to training fields."""

    shifts: bool
    """Turn the periodic domain by a random number of cells."""
    reflections: bool
    """Replace u(x) by -u(-x) with probability 0.5."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The operator's objective, in units of the training fields' standard deviation. Weight 0: not computed."""

    kind: Literal["mse", "relative"]
    """Mean squared error, or root mean squared error over root mean square of each true field."""
    one_step_weight: Weight
    """Weight of the error of the first predicted field."""
    rollout_weight: Weight
    """Weight of the mean error of the fields after the first."""
    rollout_steps: Annotated[int, Bounds(ge=2)] | None
    """Fields predicted in a row; null with rollout_weight 0."""
    pushforward: bool | None
    """Whether gradients reach the last step of a rollout only; null with rollout_weight 0."""
    spectral_weight: Weight
    """Weight of the error of the Fourier amplitudes of the first predicted field, along x."""
    inverse_encoding_weight: Weight
    """Weight of the error of decoding what was encoded, in fields; needs train_autoencoder."""
    inverse_decoding_weight: Weight
    """Weight of the error of encoding what was decoded, in latent states; needs train_autoencoder."""
    train_autoencoder: bool
    """Whether encoder and decoder go on learning with the operator; otherwise they are frozen."""

    def conflicts(self) -> Iterator[Problem]:
        """Terms that nothing would learn from, and options of a rollout that there is not."""
        if not any((self.one_step_weight, self.rollout_weight)):
            yield Problem("one_step_weight", "0", "> 0 here or at rollout_weight", "the operator would not be trained")
        for key in ("rollout_steps", "pushforward"):
            if (getattr(self, key) is not None) != (self.rollout_weight > 0):
                given = str(getattr(self, key)).replace("None", "null").lower()
                yield Problem(key, given, "a value with rollout_weight > 0, null with 0")
        for key in ("inverse_encoding_weight", "inverse_decoding_weight"):
            if getattr(self, key) > 0 and not self.train_autoencoder:
                remedy = "it reaches no parameter of the operator"
                yield Problem(key, f"{getattr(self, key):g}", "0 unless train_autoencoder is true", remedy)

    @property
    def window(self) -> int:
        """Frames that a training sample has."""
        return 1 + (self.rollout_steps or 1)


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured on the test trajectories."""

    viscosities: Annotated[tuple[float, ...], Bounds(gt=0, items=1)]
    """The nu to judge at, of those in data.viscosities."""
    reference_viscosity: Positive
    """The nu of the numbers in metrics.json."""
    coarse_cells: Annotated[tuple[int, ...], Bounds(ge=8, items=1)]
    """Cells of the classical solver's grids that stand beside the models, divisors of data.cells; one whose explicit
    diffusion would take minutes at a viscosity (viscosity x cells² of 7,000 and more) is left out there."""
    bootstrap: Annotated[int, Bounds(ge=100)]
    """Resamples of the test trajectories behind an interval."""
    batch_size: Annotated[Count, Incidental()]
    """Trajectories predicted at once."""
    images: Annotated[int, Bounds(ge=1)]
    """Trajectories that are drawn."""
    device: Device
    """Where to evaluate; auto takes a GPU if there is one."""

    def conflicts(self) -> Iterator[Problem]:
        """A reference that is not judged, a viscosity that is judged twice."""
        if len(set(self.viscosities)) < len(self.viscosities):
            yield Problem("viscosities", str(list(self.viscosities)), "different numbers", "drop repeats")
        if self.reference_viscosity not in self.viscosities:
            given = f"{self.reference_viscosity:g}"
            yield Problem("reference_viscosity", given, f"one of viscosities {list(self.viscosities)}")


REWARDS = ("mass", "energy", "maximum", "boundary", "spectrum", "residual")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Test-time candidate selection (TTC): many candidates for the next field, the best by physics kept."""

    trajectories: Count
    """Test trajectories that are searched."""
    candidates: Count
    """Candidates for what follows one field."""
    beam_width: Count
    """Trajectories kept of each sample from step to step; 1 is greedy."""
    max_evaluations: Count
    """Candidates that may be made of one sample in all."""
    source: Literal["corrector", "distilled"]
    """What draws the candidates."""
    keep_operator: bool
    """Whether the operator's own prediction is the first candidate, in place of one of those drawn."""
    reward: dict[str, float]
    """Weight of each physical term: mass, energy, maximum, boundary, spectrum, residual."""

    def conflicts(self) -> Iterator[Problem]:
        """Terms that there are not, and weights that reward violations."""
        for name, weight in self.reward.items():
            if name not in REWARDS:
                remedy = "the data have one field, u"
                yield Problem(f"reward.{name}", f"{weight}", f"terms {', '.join(REWARDS)}", remedy)
            elif not (math.isfinite(weight) and weight >= 0):
                yield Problem(f"reward.{name}", f"{weight:g}", ">= 0", "all terms punish violations")
        if not any(self.reward.values()):
            yield Problem("reward", "no weight above 0", f"one or more of {', '.join(REWARDS)}")


@dataclass(frozen=True, kw_only=True)
class LegacyConfig:
    """Published defects as switches."""

    latent_metric: bool
    """Report the published score too: one step, through a random encoder of 1 x 1 patches, beside persistence."""
