"""Attention kernels for MONAI's transformers; open it for what `model.attention` does.

MONAI computes the whole matrix of weights. With torch's kernel its ViT drops weights in evaluation too, and its Swin
uses that kernel in evaluation only (MONAI 1.6), so both are given a forward pass here; parameters keep their names.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.errors import ConfigError

Kernel = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def use_attention(model: nn.Module, backend: Literal["naive", "sdpa", "xformers"]) -> None:
    """Let every attention layer of a UNETR or SwinUNETR use a kernel.

    Raises:
        ConfigError: xformers is not installed or there is no GPU.
    """
    if backend == "naive":
        return
    kernel: Kernel = _sdpa if backend == "sdpa" else _xformers()
    for layer in model.modules():
        if type(layer).__name__ == "SABlock":
            layer.forward = partial(global_attention, layer, kernel)
        if type(layer).__name__ == "WindowAttention":
            layer.forward = partial(window_attention, layer)


def global_attention(layer: Any, kernel: Kernel, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """Tokens (B, T, C) to the same; `layer` is MONAI's SABlock."""
    if attn_mask is not None:
        raise ValueError("no mask is used in this study")
    q, k, v = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    attended = kernel(q, k, v, layer.dropout_rate if layer.training else 0.0)
    out: Tensor = layer.drop_output(layer.out_proj(attended.transpose(1, 2).flatten(2)))
    return out


def window_attention(layer: Any, x: Tensor, mask: Tensor | None) -> Tensor:
    """Tokens of windows (windows, T, C) to the same; `layer` is MONAI's WindowAttention.

    mask: (windows per image, T, T), of shifted windows; like the bias of relative positions it is added to the scores
    (Liu et al. 2021, arXiv 2103.14030).
    """
    windows, tokens, _ = x.shape
    q, k, v = layer.qkv(x).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    places = layer.relative_position_index[:tokens, :tokens].reshape(-1)
    bias = layer.relative_position_bias_table[places].reshape(tokens, tokens, -1).permute(2, 0, 1)[None]
    if mask is not None:
        bias = (bias + mask[:, None]).repeat(windows // len(mask), 1, 1, 1)
    drop = layer.attn_drop.p if layer.training else 0.0
    attended = functional.scaled_dot_product_attention(q, k, v, bias.to(q.dtype), dropout_p=drop, scale=layer.scale)
    out: Tensor = layer.proj_drop(layer.proj(attended.transpose(1, 2).flatten(2)))
    return out


def _sdpa(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout)


def _xformers() -> Kernel:
    remedy = "allowed: sdpa, naive; use sdpa"
    if not torch.cuda.is_available():
        raise ConfigError(f"model.attention: got xformers, which has no kernel for a CPU; {remedy}")
    try:
        ops = importlib.import_module("xformers.ops")
    except ImportError as error:
        reason = f"got xformers, which cannot be imported ({error})"
        raise ConfigError(f"model.attention: {reason}; {remedy}, or install assay[xformers]") from None

    def kernel(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> Tensor:
        given = (tensor.transpose(1, 2) for tensor in (q, k, v))
        attended: Tensor = ops.memory_efficient_attention(*given, p=dropout)
        return attended.transpose(1, 2)

    return kernel
