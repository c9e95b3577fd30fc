"""The parts that the networks of the burgers study share; open it to change a block, a condition or a position."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.errors import ConfigError
from assay.studies.burgers.model.attention import RMS_EPS, Attention, ChannelSeparatedAttention
from assay.studies.burgers.model.options import BlockOptions

TYPICAL = 0.01  # time between stored frames and a common viscosity: conditions are log10 of their ratio to it


def token_norm(options: BlockOptions, *, affine: bool = True) -> nn.Module:
    """The normalisation of tokens (B, T, H) that the options name."""
    if options.norm == "layer":
        return nn.LayerNorm(options.hidden_dim, elementwise_affine=affine)
    return nn.RMSNorm(options.hidden_dim, eps=RMS_EPS, elementwise_affine=affine)


def drop_path(x: Tensor, probability: float, *, training: bool) -> Tensor:
    """Leave out whole samples of x (B, ...), the rest scaled to keep the mean (Huang et al. 2016, arXiv 1603.09382)."""
    if not training or probability == 0.0:
        return x
    kept = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= probability
    return x * kept.to(x.dtype) / (1.0 - probability)


class Block(nn.Module):
    """x += attention(norm(x)); x += FFN(norm(x)).

    With `condition_dim` both branches get shift, scale and gate from a condition, gates starting at 0 (adaLN-Zero,
    Peebles and Xie 2022, arXiv 2212.09748), in place of the norms' own gains.
    """

    def __init__(self, options: BlockOptions, tokens: int, drop: float, condition_dim: int | None = None) -> None:
        super().__init__()
        hidden, inner = options.hidden_dim, round(options.ffn_ratio * options.hidden_dim)
        self.drop = drop
        plain = condition_dim is None
        attention = Attention if options.attention == "standard" else ChannelSeparatedAttention
        self.attention_norm, self.ffn_norm = (token_norm(options, affine=plain) for _ in range(2))
        self.attention = attention(options, tokens)
        self.ffn = nn.Sequential(nn.Linear(hidden, inner), nn.GELU(), nn.Linear(inner, hidden))
        self.modulation = None if condition_dim is None else _zeroed(nn.Linear(condition_dim, 6 * hidden))

    def forward(self, x: Tensor, condition: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Tokens (B, T, H), condition (B, condition_dim), mask (B, T) to tokens (B, T, H)."""
        if self.modulation is None or condition is None:
            x = x + self._drop(self.attention(self.attention_norm(x), mask))
            return x + self._drop(self.ffn(self.ffn_norm(x)))
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = self.modulation(condition)[:, None, :].chunk(6, dim=-1)
        attended = self.attention(torch.addcmul(shift, self.attention_norm(x), 1 + scale), mask)
        x = x + self._drop(gate * attended)
        return x + self._drop(ffn_gate * self.ffn(torch.addcmul(ffn_shift, self.ffn_norm(x), 1 + ffn_scale)))

    def _drop(self, branch: Tensor) -> Tensor:
        return drop_path(branch, self.drop, training=self.training)


def blocks(options: BlockOptions, tokens: Sequence[int], condition_dim: int | None = None) -> list[Block]:
    """One block for each entry of `tokens`, with stochastic depth rising from 0 to `options.drop_path`."""
    if not 0 <= options.drop_path < 1:
        raise ConfigError(f"drop_path: got {options.drop_path:g}; allowed: >= 0, < 1; give e.g. 0.1")
    last = max(len(tokens) - 1, 1)
    return [
        Block(options, count, options.drop_path * index / last, condition_dim) for index, count in enumerate(tokens)
    ]


class Condition(nn.Module):
    """Embeds what a step depends on, one number each, (B, inputs) to (B, width): linear, SiLU, linear."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, values: Tensor) -> Tensor:
        out: Tensor = self.layers(values)
        return out


def decades(value: Tensor) -> Tensor:
    """log10(value / 0.01): near 0 for the time steps (s) and viscosities of the published data."""
    return torch.log10(value / TYPICAL)


def periodic_features(x: Tensor, frequencies: Sequence[int]) -> Tensor:
    """sin and cos of 2 pi f x for points x (...,) of the unit circle: (..., 2 len(frequencies))."""
    angles = 2 * math.pi * x[..., None] * torch.tensor(frequencies, dtype=x.dtype, device=x.device)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class Positions(nn.Module):
    """Adds a linear map of periodic features of the token centres to tokens (B, T, width)."""

    def __init__(self, tokens: int, width: int, frequencies: Sequence[int]) -> None:
        super().__init__()
        centres = (torch.arange(tokens, dtype=torch.float64) + 0.5) / tokens
        self.features: Tensor
        self.register_buffer("features", periodic_features(centres, frequencies).float(), persistent=False)
        self.weight = nn.Linear(2 * len(frequencies), width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = tokens + self.weight(self.features)
        return out


class Neighbours(nn.Module):
    """Adds to each token (B, T, width) what a linear map makes of it and its two neighbours on the circle."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(3 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        active = functional.gelu(tokens)
        around = torch.cat([active.roll(1, dims=1), active, active.roll(-1, dims=1)], dim=-1)
        out: Tensor = tokens + self.weight(around)
        return out


def _zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
