"""Masks, attention and transformer blocks; open it for who may attend to whom.

A mask is true where a query may attend to a key, as in torch's scaled_dot_product_attention (nn.MultiheadAttention
reads true as blocked). Tensors of attention are (B, heads, T, width).
"""

import importlib
import math
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.errors import ConfigError

Backend = Literal["sdpa", "naive", "xformers"]


def causal_mask(tokens: int, device: torch.device | None = None) -> Tensor:
    """(T, T): token i attends to itself and to those before it, so no row is blocked."""
    return torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()


def padding_mask(lengths: Tensor, tokens: int, leading: int) -> Tensor:
    """(B, 1, 1, T): `leading` tokens and the first `lengths` (B,) after them may be attended to."""
    return (torch.arange(tokens, device=lengths.device) < (lengths + leading)[:, None])[:, None, None]


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, backend: Backend) -> Tensor:
    """softmax(q k^T / sqrt(width)) v over the keys that the mask admits (Vaswani et al. 2017, arXiv 1706.03762).

    Raises:
        ConfigError: xformers is not installed, or has no kernel for these tensors.
    """
    if backend == "sdpa":
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    if backend == "xformers":
        return _xformers(q, k, v, mask, dropout)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    weights: Tensor = functional.dropout(scores.softmax(-1), dropout)
    return weights @ v


def _xformers(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    remedy = "allowed: sdpa, naive; use sdpa"
    try:
        ops: Any = importlib.import_module("xformers.ops")
    except ImportError as error:
        raise ConfigError(
            f"model.backend: got xformers, which cannot be imported ({error}); {remedy}, or install assay[xformers]"
        ) from None
    bias = None
    if mask is not None:
        shape = (len(q), q.shape[1], q.shape[2], k.shape[2])
        bias = torch.zeros(shape, dtype=q.dtype, device=q.device).masked_fill(~mask, -math.inf)
    try:
        given = (tensor.transpose(1, 2) for tensor in (q, k, v))
        attended: Tensor = ops.memory_efficient_attention(*given, attn_bias=bias, p=dropout)
    except (NotImplementedError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"model.backend: got xformers, which has no kernel here ({reason}); {remedy}") from error
    return attended.transpose(1, 2)


def sinusoidal(tokens: int, width: int) -> Tensor:
    """Positions (tokens, width) of Vaswani et al. 2017."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angle = torch.arange(tokens)[:, None] * rate
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :width]


def rotate(x: Tensor, first: int) -> Tensor:
    """Turn the channel pairs of token t by (first + t) / 10000^(i / pairs) (Su et al. 2021, arXiv 2104.09864)."""
    pairs = x.shape[-1] // 2
    rate = 10000.0 ** (-torch.arange(pairs, device=x.device) / pairs)
    angle = torch.arange(first, first + x.shape[-2], device=x.device)[:, None] * rate
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class BlockOptions(NamedTuple):
    """Size and kind of a block."""

    d_model: int
    heads: int
    ffn_dim: int
    dropout: float
    rotary: bool
    backend: Backend


class Cache(NamedTuple):
    """Keys and values (B, heads, t, width) of the tokens so far."""

    k: Tensor
    v: Tensor


class Block(nn.Module):
    """Pre-norm attention and feed-forward part, each added to its input."""

    def __init__(self, options: BlockOptions) -> None:
        super().__init__()
        d = options.d_model
        self.options = options
        self.attention_norm, self.ffn_norm = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.ffn = nn.Sequential(
            nn.Linear(d, options.ffn_dim), nn.GELU(), nn.Dropout(options.dropout), nn.Linear(options.ffn_dim, d)
        )
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Tokens (B, T, d) to the same."""
        return self._around(x, *self._heads(x, 0), mask)

    def step(self, x: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        """The next token (B, 1, d), which attends to itself and to those in the cache."""
        q, k, v = self._heads(x, 0 if cache is None else cache.k.shape[2])
        if cache is not None:
            k, v = torch.cat([cache.k, k], 2), torch.cat([cache.v, v], 2)
        return self._around(x, q, k, v, None), Cache(k, v)

    def _heads(self, x: Tensor, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens that begin at position `first`."""
        parts = self.qkv(self.attention_norm(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.options.heads, -1)).transpose(1, 2) for part in parts)
        return (rotate(q, first), rotate(k, first), v) if self.options.rotary else (q, k, v)

    def _around(self, x: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        dropout = self.options.dropout if self.training else 0.0
        attended = attend(q, k, v, mask, dropout, self.options.backend).transpose(1, 2).flatten(2)
        x = x + self.dropout(self.out(attended))
        after: Tensor = x + self.dropout(self.ffn(self.ffn_norm(x)))
        return after
