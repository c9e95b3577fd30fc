"""Self- and cross-attention with a choice of back end; open it to see which kernel runs, or to add one.

Tensors are (B, T, heads, width): batch, tokens, heads, channels of a head. All back ends compute
softmax(q k^T / sqrt(width)) v (Vaswani et al. 2017, arXiv 1706.03762).
"""

import importlib
import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend

from assay.errors import ConfigError
from assay.studies.burgers.model.options import Backend, BlockOptions, divide

RMS_EPS = 1e-6


def attend(q: Tensor, k: Tensor, v: Tensor, backend: Backend, mask: Tensor | None = None) -> Tensor:
    """Attention of queries (B, Q, heads, width) to keys and values (B, T, heads, width): (B, Q, heads, width).

    `mask` (B, T) is true for the tokens that may be attended to, at least one per sample. Raises `ConfigError` as
    `require_backend` does, and for a mask with xformers.
    """
    if backend == "xformers":
        if mask is not None:
            raise ConfigError("backend: got xformers with a mask; allowed: sdpa, naive; use sdpa")
        require_backend(backend, q.device, v.dtype, q.shape[-1])
        attended: Tensor = _xformers().memory_efficient_attention(q.to(v.dtype), k.to(v.dtype), v)
        return attended
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    allowed = None if mask is None else mask[:, None, None, :]
    if backend == "sdpa":
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed).transpose(1, 2)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2)


@lru_cache
def require_backend(backend: Backend, device: torch.device, dtype: torch.dtype, width: int) -> None:
    """Refuse a back end that cannot train heads of `width` channels on `device` in `dtype`.

    Raises:
        ConfigError: xformers is not installed, or has no kernel for this; the message has its reason.
    """
    if backend != "xformers":
        return
    remedy = "allowed: sdpa, naive; use sdpa"
    try:
        xformers = _xformers()
    except ImportError as error:
        raise ConfigError(
            f"model.backend: got xformers, which cannot be imported ({error}); {remedy}, or install assay[xformers]"
        ) from error
    tokens = torch.zeros(1, 8, 1, width, device=device, dtype=dtype, requires_grad=True)
    try:
        with torch.enable_grad():
            xformers.memory_efficient_attention(tokens, tokens, tokens).sum().backward()
    except (NotImplementedError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        place = f"{device.type}, {dtype}, heads of {width} channels"
        raise ConfigError(
            f"model.backend: got xformers, which has no kernel for {place} ({reason}); {remedy}"
        ) from error


def kernel_name(backend: Backend, q: Tensor, k: Tensor, v: Tensor) -> str:
    """The kernel that `attend` takes for such tensors, for the record: `sdpa/flash_attention`, `naive`, ..."""
    if backend == "sdpa":
        choice = torch._fused_sdp_choice(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return f"sdpa/{SDPBackend(choice).name.lower()}"
    return f"xformers {importlib.import_module('xformers').__version__}" if backend == "xformers" else backend


def _xformers() -> Any:
    return importlib.import_module("xformers.ops")


class Rotary(nn.Module):
    """Turns the channel pairs (i, i + width / 2) of token t by 2 pi f_i t / T, f_i whole numbers from 1 to T / 4.

    Products of queries and keys then depend on (t - t') mod T alone: rotary embedding (Su et al. 2021, arXiv
    2104.09864) with frequencies that fit the circle. Raises `ConfigError` for an odd width.
    """

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        if width % 2:
            raise ConfigError(
                f"heads: got heads of {width} channels with rotary; allowed: an even number; use fewer heads"
            )
        pairs = width // 2
        exponents = torch.arange(pairs) / max(pairs - 1, 1)
        frequencies = (max(tokens / 4, 1.0) ** exponents).round()
        angles = 2 * math.pi * torch.arange(tokens)[:, None] * frequencies / tokens
        self.cos: Tensor
        self.sin: Tensor
        self.register_buffer("cos", angles.cos()[:, None, :], persistent=False)
        self.register_buffer("sin", angles.sin()[:, None, :], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, heads, width) to the same."""
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * self.cos - second * self.sin, first * self.sin + second * self.cos], dim=-1)


class Attention(nn.Module):
    """Standard multi-head self-attention; 4 (H^2 + H) parameters, and 2 H / heads with `qk_norm`."""

    def __init__(self, options: BlockOptions, tokens: int) -> None:
        super().__init__()
        hidden, self.heads = options.hidden_dim, options.heads
        width = divide(hidden, options.heads, "heads", "hidden_dim")
        self.backend: Backend = options.backend
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.query_norm = nn.RMSNorm(width, eps=RMS_EPS) if options.qk_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(width, eps=RMS_EPS) if options.qk_norm else nn.Identity()
        self.rotary = Rotary(tokens, width) if options.rotary else nn.Identity()
        self.out = nn.Linear(hidden, hidden)

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, T, heads, width) of tokens (B, T, H)."""
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, self.heads, -1).unbind(2)
        return self.rotary(self.query_norm(q)), self.rotary(self.key_norm(k)), v

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, H) to the same; tokens where `mask` (B, T) is false influence no other."""
        out: Tensor = self.out(attend(*self.heads_of(x), self.backend, mask).flatten(2))
        return out


class GroupLinear(nn.Module):
    """A linear layer on each group of channels, (..., G, width) to the same; one set of weights, or one per group."""

    def __init__(self, sets: int, width: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(sets, width, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(sets, width).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return group_linear(x, self.weight, self.bias)


def group_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x (..., G, in), weight (1 or G, out, in), bias (1 or G, out) to (..., G, out)."""
    if weight.shape[0] == 1:
        return functional.linear(x, weight[0], bias[0])
    return torch.einsum("...gi,goi->...go", x, weight) + bias


class ChannelSeparatedAttention(nn.Module):
    """Attention within groups of channels; groups do not see each other. S (4 (g^2 + g) + 2 g) parameters.

    g channels to a group, S sets of weights: 1 with `shared_groups`, else one per group; 2 g S only with `qk_norm`.
    """

    def __init__(self, options: BlockOptions, tokens: int) -> None:
        super().__init__()
        if options.group_size is None:
            raise ConfigError("group_size: got null; allowed: a divisor of hidden_dim with channel_separated; give it")
        self.width = options.group_size
        self.groups = divide(options.hidden_dim, self.width, "group_size", "hidden_dim")
        self.heads = self.groups * options.heads
        head_width = divide(self.width, options.heads, "heads", "group_size")
        self.backend: Backend = options.backend
        sets = 1 if options.shared_groups else self.groups
        self.query, self.key, self.value, self.out = (GroupLinear(sets, self.width) for _ in range(4))
        self.query_norm = nn.Parameter(torch.ones(sets, self.width)) if options.qk_norm else None
        self.key_norm = nn.Parameter(torch.ones(sets, self.width)) if options.qk_norm else None
        self.rotary = Rotary(tokens, head_width) if options.rotary else nn.Identity()

    def heads_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, T, groups x heads, width) of tokens (B, T, H).

        The gains of the two norms are folded into the projections, so that both share one pass over the tokens.
        """
        grouped = x.view(*x.shape[:2], self.groups, self.width)
        weights: list[Tensor] = [self.query.weight, self.key.weight]
        normalised = grouped
        if self.query_norm is not None and self.key_norm is not None:
            normalised = functional.rms_norm(grouped, (self.width,), eps=RMS_EPS)
            weights = [weights[0] * self.query_norm[:, None, :], weights[1] * self.key_norm[:, None, :]]
        biases = torch.cat([self.query.bias, self.key.bias], dim=1)
        q, k = group_linear(normalised, torch.cat(weights, dim=1), biases).chunk(2, dim=-1)
        q, k, v = (part.reshape(*x.shape[:2], self.heads, -1) for part in (q, k, self.value(grouped)))
        return self.rotary(q), self.rotary(k), v

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, T, H) to the same; tokens where `mask` (B, T) is false influence no other."""
        attended = attend(*self.heads_of(x), self.backend, mask)
        out: Tensor = self.out(attended.reshape(*x.shape[:2], self.groups, self.width))
        return out.flatten(2)
