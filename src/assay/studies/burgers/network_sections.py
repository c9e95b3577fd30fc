"""The sections that describe the networks of the burgers study, each with its own rules; sections.py has the others.

Field docstrings are the help text and the JSON Schema's descriptions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from assay.config.fields import Bounds, Problem
from assay.engine.config import TrainConfig
from assay.studies.burgers.sections import Count, Positive, indivisible

Backend = Literal["sdpa", "xformers", "naive"]
Attention = Literal["standard", "channel_separated"]
Frequencies = Annotated[tuple[int, ...], Bounds(ge=1)]


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Encoder and decoder between fields and the latent states, and their own training."""

    position_frequencies: Frequencies
    """Waves per domain that tell tokens where they are; empty: equivariant to shifts by a token."""
    latent_norm: bool
    """Layer-normalise the tokens, which compresses large fields."""
    decoder: Literal["patch", "query"]
    """Every token gives its own cells, or any point asks all tokens by cross-attention."""
    decoder_hidden_dim: Count | None
    """Channels inside the decoder (query); null for patch."""
    decoder_layers: Count | None
    """Cross-attention layers (query); null for patch."""
    decoder_heads: Count | None
    """Heads of the cross-attention (query); null for patch."""
    decoder_frequencies: Frequencies | None
    """Waves per domain that describe a queried point (query); null for patch."""
    train: TrainConfig
    """Budget of the stage autoencoder."""

    def conflicts(self) -> Iterator[Problem]:
        """Options of the other decoder, and a decoder that cannot tell places apart."""
        for key in ("decoder_hidden_dim", "decoder_layers", "decoder_heads", "decoder_frequencies"):
            if (getattr(self, key) is None) != (self.decoder == "patch"):
                given = "null" if self.decoder == "query" else str(getattr(self, key))
                yield Problem(key, given, "a value with decoder query, null with patch")
        if self.decoder == "query" and self.decoder_hidden_dim and self.decoder_heads:
            yield from indivisible("decoder_heads", self.decoder_heads, "decoder_hidden_dim", self.decoder_hidden_dim)
        for key in ("position_frequencies", "decoder_frequencies"):
            if self.decoder == "query" and getattr(self, key) == ():
                yield Problem(key, "[]", "one or more with decoder query", "it finds its tokens by their place")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The latent operator, and how it is applied again and again."""

    tokens: Count
    """Patches that the domain is cut into, a divisor of data.cells."""
    latent_dim: Count
    """Channels of a latent token."""
    architecture: Literal["pdet_unet", "pdet_stack"]
    """Blocks at halved and doubled token counts with skips, or at a constant one."""
    hidden_dim: Count
    """Channels inside the operator."""
    depth: Annotated[tuple[int, ...], Bounds(ge=1, items=1)]
    """Blocks: one number for pdet_stack; for pdet_unet those of each level, the last at the fewest tokens."""
    heads: Count
    """Attention heads; with channel_separated, in each group."""
    attention: Attention
    """Every channel sees every other, or only those of its group."""
    group_size: Count | None
    """Channels of a group (channel_separated); null for standard."""
    shared_groups: bool | None
    """One set of attention weights for all groups, or one for each (channel_separated); null for standard."""
    qk_norm: bool
    """RMS-normalise queries and keys."""
    rotary: bool
    """Turn queries and keys by whole periods per domain, so that attention sees distances on the circle."""
    norm: Literal["layer", "rms"]
    """What normalises tokens."""
    ffn_ratio: Positive | None
    """Hidden width of the feed-forward networks / hidden_dim; null: what `parameters` asks for."""
    parameters: Count | None
    """Wanted number of the operator's parameters, met by the feed-forward width; null: what ffn_ratio gives."""
    drop_path: Annotated[float, Bounds(ge=0, lt=1)]
    """Probability of leaving out a residual branch of the last block; rises linearly from 0 at the first."""
    conditioning: Literal["additive", "adaln"]
    """How the time step acts: added to every token, or as shift, scale and gate in every block."""
    viscosity: bool
    """Whether log10 of the viscosity is an input."""
    residual_norm: bool
    """Layer-normalise the predicted change, which fixes its size per token (a published choice; harmful)."""
    backend: Backend
    """What computes attention: torch's fused kernels, xformers', or plain products."""
    rollout: Literal["field", "latent"]
    """A step starts from the last field, encoded anew, or from the last latent state."""
    conserve_mass: bool
    """Give every predicted field the mean of the first one, which the equation keeps."""

    def conflicts(self) -> Iterator[Problem]:
        """Counts that do not divide, options of the other attention or architecture."""
        if (self.ffn_ratio is None) == (self.parameters is None):
            given = f"ffn_ratio {self.ffn_ratio} and parameters {self.parameters}".replace("None", "null")
            yield Problem("ffn_ratio", given, "exactly one of ffn_ratio and parameters", "set the other to null")
        separated = self.attention == "channel_separated"
        for key in ("group_size", "shared_groups"):
            if (getattr(self, key) is not None) != separated:
                given = str(getattr(self, key)).replace("None", "null").lower()
                yield Problem(key, given, "a value with attention channel_separated, null with standard")
        if separated and self.group_size:
            yield from indivisible("group_size", self.group_size, "hidden_dim", self.hidden_dim)
            yield from indivisible("heads", self.heads, "group_size", self.group_size)
        if not separated:
            yield from indivisible("heads", self.heads, "hidden_dim", self.hidden_dim)
        width = (self.group_size if separated and self.group_size else self.hidden_dim) // self.heads
        if self.rotary and width % 2:
            yield Problem("heads", str(self.heads), f"heads of an even number of channels with rotary, not {width}")
        if self.architecture == "pdet_stack" and len(self.depth) > 1:
            yield Problem("depth", str(list(self.depth)), "one number with architecture pdet_stack", "give e.g. [8]")
        if self.architecture == "pdet_unet" and self.tokens < 2 ** (len(self.depth) - 1):
            least = 2 ** (len(self.depth) - 1)
            yield Problem("tokens", str(self.tokens), f">= {least} with {len(self.depth)} levels of depth")


@dataclass(frozen=True, kw_only=True)
class FnoConfig:
    """The Fourier neural operator that is trained beside the model, with the budget of `train`."""

    modes: Count
    """Wave numbers that a layer mixes, at most half of data.cells."""
    width: Count
    """Channels."""
    layers: Count
    """Fourier layers."""
    conserve_mass: bool
    """Give every predicted field the mean of the one before, which the equation keeps."""


@dataclass(frozen=True, kw_only=True)
class CorrectorConfig:
    """The generative model of the operator's one-step error."""

    tokens: Count
    """Patches that a field is cut into, a divisor of data.cells."""
    hidden_dim: Count
    """Channels."""
    depth: Count
    """Blocks."""
    heads: Count
    """Attention heads."""
    ffn_ratio: Positive
    """Hidden width of the feed-forward networks / hidden_dim."""
    position_frequencies: Frequencies
    """Waves per domain that tell tokens where they are; empty: equivariant to shifts by a token."""
    noise_times: Literal["uniform", "logit_normal"]
    """Where between noise (0) and error (1) training looks: everywhere alike, or more in the middle."""
    sampler: Literal["euler", "heun"]
    """How the path from noise to error is followed: one or two calls a step."""
    sampler_steps: Count
    """Steps of the sampler."""
    members: Annotated[int, Bounds(ge=2)]
    """Corrected trajectories drawn for each sample."""
    train: TrainConfig
    """Budget of the stage corrector."""

    def conflicts(self) -> Iterator[Problem]:
        """Heads that do not divide the width."""
        yield from indivisible("heads", self.heads, "hidden_dim", self.hidden_dim)


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """A student of the corrector that needs one call instead of many."""

    grid: Annotated[int, Bounds(ge=2)]
    """Steps of the teacher's path from noise to error between which the student has to be consistent."""
    train: TrainConfig
    """Budget of the stage distillation."""
