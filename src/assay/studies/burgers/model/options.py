"""What each network of the burgers study is built from, one keyword per decision; open it to see a unit or a range."""

from dataclasses import dataclass
from typing import Literal

from assay.errors import ConfigError

Backend = Literal["sdpa", "xformers", "naive"]


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """A transformer block: attention, then a feed-forward network, both on normalised tokens and both residual."""

    hidden_dim: int
    """Channels of a token inside the network."""
    heads: int
    """Attention heads; with channel_separated, in each group."""
    attention: Literal["standard", "channel_separated"]
    """Every channel sees every other, or only those of its group: then the feed-forward network alone mixes groups."""
    group_size: int | None = None
    """Channels of a group (channel_separated)."""
    shared_groups: bool = True
    """One set of attention weights for all groups, or one for each (channel_separated)."""
    qk_norm: bool = False
    """RMS-normalise queries and keys: after the projection, per head (standard); before it (channel_separated)."""
    rotary: bool = False
    """Turn queries and keys by whole periods per domain, so that attention sees distances on the circle."""
    norm: Literal["layer", "rms"] = "layer"
    """What normalises tokens before attention and feed-forward network."""
    ffn_ratio: float = 4.0
    """Hidden width of the feed-forward network / hidden_dim."""
    drop_path: float = 0.0
    """Probability of leaving out a residual branch of the last block; rises linearly from 0 at the first."""
    backend: Backend = "sdpa"
    """What computes attention: torch's fused kernels, xformers', or plain products."""


@dataclass(frozen=True, kw_only=True)
class OperatorOptions(BlockOptions):
    """The network that moves a latent state (B, tokens, latent_dim) one step ahead."""

    architecture: Literal["pdet_unet", "pdet_stack"]
    """Blocks at halved and doubled token counts with skips, or at a constant one."""
    tokens: int
    """Tokens that the domain is cut into."""
    latent_dim: int
    """Channels of a latent token."""
    depth: tuple[int, ...]
    """Blocks: one number for pdet_stack; for pdet_unet those of each level, the last at the fewest tokens."""
    conditioning: Literal["additive", "adaln"] = "additive"
    """How the time step acts: added to every token, or as shift, scale and gate in every block."""
    viscosity: bool = False
    """Whether log10 of the viscosity is an input."""
    residual_norm: bool = False
    """Layer-normalise the predicted change, which fixes its size per token (a published choice; harmful)."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderOptions:
    """The networks between fields (B, cells) and latent states (B, tokens, latent_dim)."""

    cells: int
    """Points of a field."""
    tokens: int
    """Patches that a field is cut into."""
    latent_dim: int
    """Channels of a latent token."""
    mean: float
    """Mean of the training fields, in the field's unit."""
    std: float
    """Standard deviation of the training fields, in the field's unit."""
    position_frequencies: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Waves per domain that tell the tokens where they are; empty: equivariant to shifts by a token."""
    latent_norm: bool = False
    """Layer-normalise the tokens, which compresses large fields."""
    decoder: Literal["patch", "query"] = "patch"
    """Every token gives its own cells, or any point asks all tokens by cross-attention."""
    decoder_hidden_dim: int = 256
    """Channels inside the decoder (query)."""
    decoder_layers: int = 3
    """Cross-attention layers (query)."""
    decoder_heads: int = 4
    """Heads of the cross-attention (query)."""
    decoder_frequencies: tuple[int, ...] = (1, 2, 4, 8)
    """Waves per domain that describe a queried point (query)."""


@dataclass(frozen=True, kw_only=True)
class CorrectorOptions(BlockOptions):
    """The network that learns the distribution of an operator's one-step error; fields are (B, cells)."""

    cells: int
    """Points of a field."""
    tokens: int
    """Patches that a field is cut into."""
    depth: int
    """Blocks."""
    mean: float
    """Mean of the training fields, in the field's unit."""
    std: float
    """Standard deviation of the training fields, in the field's unit."""
    position_frequencies: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Waves per domain that tell the tokens where they are; empty: equivariant to shifts by a token."""


def divide(whole: int, part: int, key: str, of: str) -> int:
    """`whole` / `part`, if that is a whole number.

    Raises:
        ConfigError: it is not; the message names `key`, which is `part`, and `of`, which is `whole`.
    """
    if part < 1 or whole % part:
        divisors = [n for n in range(1, whole + 1) if whole % n == 0]
        allowed = ", ".join(map(str, divisors))
        raise ConfigError(f"{key}: got {part}; allowed: divisors of {of} {whole} ({allowed}); change {key} or {of}")
    return whole // part
