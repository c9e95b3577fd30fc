"""Gradient checkpointing of MONAI's networks; open it for which blocks are computed twice.

A block keeps its input only and is run again in the backward pass (Chen et al. 2016, arXiv 1604.06174). Names and
values of parameters do not change, nor does the result.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

BLOCKS = (
    "TwoConv",
    "UpCat",
    "ResidualUnit",
    "ResBlock",
    "SegResBlock",
    "TransformerBlock",
    "BasicLayer",
    "UnetrBasicBlock",
    "UnetrPrUpBlock",
    "UnetrUpBlock",
    "UnetResBlock",
)
"""Classes of MONAI whose outermost instances are recomputed."""


def recompute_blocks(model: nn.Module) -> None:
    """Let every outermost block of a network be recomputed."""
    for child in model.children():
        if type(child).__name__ in BLOCKS:
            child.forward = partial(_again, child.forward)
        else:
            recompute_blocks(child)


def _again(forward: Any, *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
