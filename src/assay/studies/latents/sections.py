"""The sections of the latents study's parameters, each with its own rules; open it for a key, its unit and its range.

Field docstrings are the help text and the JSON Schema's descriptions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from assay.config.fields import Bounds, Incidental, Problem
from assay.studies.latents.sizes import SCENE_STEPS

Weight = Annotated[float, Bounds(ge=0)]
Count = Annotated[int, Bounds(ge=1)]
Range = Annotated[tuple[int, int], Bounds(ge=0)]
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """A recording: activity of N neurons and the stimulus at T time steps, split by time."""

    path: Annotated[str, Incidental()]
    """Folder of the data set."""
    source: Literal["simulated", "published"]
    """simulated: by this study's network; published: read from the recording in `published`."""
    published: Annotated[str, Incidental()] | None
    """x_list_0.npy, or the folder of a Zarr store split into columns (published); null for simulated."""
    column: Literal["voltage", "calcium", "fluorescence"] | None
    """What stands for activity (published); null for simulated."""
    preset: Literal["tiny", "small", "full"] | None
    """Size of the network: 304, 976 or 14,105 neurons (simulated); null for published."""
    steps: Annotated[int, Bounds(ge=100)]
    """Time steps of 20 ms; of a published recording its first."""
    seed: Annotated[int, Bounds(ge=0)]
    """Of network, stimulus and noise; replicates share their data, so `seed` does not change it."""
    noise: Annotated[float, Bounds(ge=0)] | None
    """Standard deviation of the noise of each step, in units of activity (simulated); null for published."""
    scenes: Literal["fresh", "replayed"] | None
    """fresh: no scene comes twice; replayed: after the training range its scenes come again; null for published."""
    training: Range
    """First time step to train on, and one past the last."""
    validation: Range
    """Those that decide which weights are kept."""
    test: Range
    """Those that the results are about."""

    def conflicts(self) -> Iterator[Problem]:
        """Options of the other source; splits that overlap, are empty, past the end, or share what they must not."""
        for key in ("preset", "noise", "scenes"):
            if (getattr(self, key) is not None) != (self.source == "simulated"):
                yield Problem(key, _given(getattr(self, key)), "a value with source simulated, null with published")
        for key in ("published", "column"):
            if (getattr(self, key) is not None) != (self.source == "published"):
                yield Problem(key, _given(getattr(self, key)), "a value with source published, null with simulated")
        yield from self._split_conflicts()
        yield from self._scene_conflicts()

    def _split_conflicts(self) -> Iterator[Problem]:
        for key in SPLITS:
            first, end = getattr(self, key)
            if not first < end <= self.steps:
                allowed = f"[first, end] with first < end <= steps {self.steps}"
                yield Problem(key, str([first, end]), allowed, "move it, or raise steps")
        ordered = sorted(SPLITS, key=lambda key: getattr(self, key))
        for key, later in pairwise(ordered):
            if getattr(self, later)[0] < getattr(self, key)[1]:
                given = f"{list(getattr(self, later))}, which overlaps {key} {list(getattr(self, key))}"
                yield Problem(later, given, "splits without common time steps", "move one of them")

    def _scene_conflicts(self) -> Iterator[Problem]:
        """Splits that show the same scene although all are fresh, or another one although they are to repeat."""
        if self.scenes == "replayed":
            first = self.training[1] <= min(self.validation[0], self.test[0])
            if not (first and self.training_scenes):
                allowed = f"fresh, or training before validation and test and with a whole scene of {SCENE_STEPS} steps"
                yield Problem("scenes", "replayed", allowed, "move training")
        elif self.scenes == "fresh":
            ordered = sorted(SPLITS, key=lambda key: getattr(self, key))
            for key, later in pairwise(ordered):
                end, begin = getattr(self, key)[1], getattr(self, later)[0]
                if end <= begin and (end - 1) // SCENE_STEPS == begin // SCENE_STEPS:
                    given = f"{list(getattr(self, later))}, which begins within the last scene of {key}"
                    allowed = "splits without common scenes with scenes fresh"
                    yield Problem(later, given, allowed, f"begin it at a multiple of {SCENE_STEPS}")

    @property
    def training_scenes(self) -> range:
        """Numbers of the scenes that lie whole in the training range."""
        first, end = self.training
        return range(-(-first // SCENE_STEPS), end // SCENE_STEPS)

    def split_steps(self, key: str) -> int:
        """Time steps of a split."""
        first, end = getattr(self, key)
        return int(end - first)


def _given(value: object) -> str:
    return "null" if value is None else str(value)


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """What is observed of the recording, how far is predicted, and in which order training samples come."""

    time_units: Count
    """Time steps between two observations, each one step of the evolver."""
    evolve_multiple_steps: Count
    """Observations ahead that are predicted; the loss is their sum."""
    acquisition: Literal["all", "time_aligned", "staggered"]
    """all: from any time step; time_aligned: every neuron at multiples of time_units; staggered: each at its own."""
    stimulus: Literal["all", "none", "held", "interpolated"]
    """Given at every time step, never, held between observations, or interpolated between them."""
    replacement: bool
    """true: every sample is drawn at random, as published; false: every epoch is a permutation."""

    def conflicts(self) -> Iterator[Problem]:
        """Options that make no difference when every step is observed."""
        if self.time_units == 1 and self.acquisition != "all":
            yield Problem("acquisition", self.acquisition, "all with time_units 1", "every step is observed")
        if self.time_units == 1 and self.stimulus in ("held", "interpolated"):
            yield Problem("stimulus", self.stimulus, "all or none with time_units 1", "every step is observed")

    @property
    def horizon(self) -> int:
        """Time steps from the first to the last observation that a sample needs."""
        return self.time_units * self.evolve_multiple_steps


Activation = Literal["relu", "gelu", "tanh", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """A multi-layer perceptron. With no hidden layer it is linear."""

    kind: Literal["plain", "skip"]
    """plain: layers in a row; skip: every layer also sees a linear projection of the input."""
    hidden_layers: Annotated[int, Bounds(ge=0)]
    """Hidden layers; 0 is a linear map."""
    hidden_dim: Count | None
    """Units of a hidden layer; null with hidden_layers 0."""
    activation: Activation | None
    """Of the hidden layers; null with hidden_layers 0."""

    def conflicts(self) -> Iterator[Problem]:
        """Options that a linear map would ignore."""
        for key in ("hidden_dim", "activation"):
            if (getattr(self, key) is not None) != (self.hidden_layers > 0):
                yield Problem(key, _given(getattr(self, key)), "a value with hidden_layers > 0, null with 0")
        if self.kind == "skip" and self.hidden_layers == 0:
            yield Problem("kind", "skip", "plain with hidden_layers 0", "both are the same linear map")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Encoder, evolver, decoder, and a second encoder for the stimulus."""

    latent_dim: Count
    """Size of the latent state."""
    batch_norm: bool
    """Batch norm in the hidden layers of plain encoder, evolver and decoder."""
    autoencoder: NetworkConfig
    """Encoder and decoder, alike."""
    evolver: NetworkConfig
    """What is added to the latent state at every time step."""
    zero_init: bool
    """Whether the evolver starts as zero: an untrained model then keeps its latent state."""
    stimulus: NetworkConfig
    """The stimulus encoder; there is none with sampling.stimulus none."""
    stimulus_dim: Count | None
    """Size of the encoded stimulus; null with sampling.stimulus none."""
    stimulus_state: bool | None
    """true: the evolver's update is as wide as state and stimulus together and the latter's part is dropped, as first
    published; false: it is as wide as the state; null with sampling.stimulus none."""

    def conflicts(self) -> Iterator[Problem]:
        """Batch norm where there is no layer for it."""
        networks = (self.autoencoder, self.evolver)
        if self.batch_norm and not any(net.kind == "plain" and net.hidden_layers for net in networks):
            remedy = "skip networks and linear maps have none"
            yield Problem("batch_norm", "true", "false without a plain network with hidden layers", remedy)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The training objective: a weighted sum of named terms. Weight 0: not computed."""

    kind: Literal["mse", "huber"]
    """Penalty on errors of activity."""
    evolve_weight: Weight
    """Weight of the error of predicted activity, summed over the observations ahead."""
    reconstruction_weight: Weight
    """Weight of the error of decoding what was encoded."""
    reconstruction_warmup: Annotated[float, Bounds(ge=0)]
    """Epochs at the start in which only the reconstruction is trained."""
    encoder_l1: Weight
    """Weight of the sum over the encoder's tensors of their mean absolute value."""
    evolver_l1: Weight
    """The same of the evolver."""
    decoder_l1: Weight
    """The same of the decoder."""
    total_variation: Weight
    """Weight of the mean absolute update of the latent state."""
    unconnected_weight: Weight
    """Weight of the change of prediction when everything unconnected to some neurons is set to zero."""
    unconnected_neurons: Count | None
    """Neurons that are drawn for it; null with unconnected_weight 0."""

    def conflicts(self) -> Iterator[Problem]:
        """Nothing to train, and options that nothing reads."""
        if self.evolve_weight == 0:
            yield Problem("evolve_weight", "0", "> 0", "the evolver would not be trained")
        if (self.unconnected_neurons is not None) != (self.unconnected_weight > 0):
            given = _given(self.unconnected_neurons)
            yield Problem("unconnected_neurons", given, "a value with unconnected_weight > 0, null with 0")
        if self.reconstruction_warmup > 0 and self.reconstruction_weight == 0:
            given = f"{self.reconstruction_warmup:g}"
            yield Problem("reconstruction_warmup", given, "0 with reconstruction_weight 0", "nothing would be trained")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each enabled term."""
        weights = {
            "evolve": self.evolve_weight,
            "reconstruction": self.reconstruction_weight,
            "encoder_l1": self.encoder_l1,
            "evolver_l1": self.evolver_l1,
            "decoder_l1": self.decoder_l1,
            "total_variation": self.total_variation,
            "unconnected": self.unconnected_weight,
        }
        return {name: weight for name, weight in weights.items() if weight > 0}


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured on the test range, beside baselines."""

    horizons: Count
    """Time steps ahead of the horizon curve."""
    rollout_steps: Count
    """Time steps of a rollout."""
    rollout_starts: Count
    """Rollouts, from as many places of the test range."""
    ridge: Annotated[tuple[float, ...], Bounds(ge=0, items=1)]
    """Penalties of the linear baselines, as shares of the mean variance of their inputs; validation picks one."""
    ridge_neurons: Count
    """Neurons of the full linear map; a random subset where there are more."""
    stimulus_window: Count
    """Frames that the stimulus-only map sees."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Incidental()]
    """Where to evaluate; auto takes a GPU if there is one."""
