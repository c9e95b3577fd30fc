"""Small networks of the burgers study from a fixed seed, and what of them is not trained."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import nn

from assay.studies.burgers.model import OperatorOptions

STACK = OperatorOptions(
    architecture="pdet_stack", tokens=8, latent_dim=6, hidden_dim=16, depth=(2,), heads=2, attention="standard"
)
UNET = replace(STACK, architecture="pdet_unet", depth=(1, 1, 1))
SEPARATED = {"attention": "channel_separated", "group_size": 4}

T = TypeVar("T", bound=nn.Module)


def made(kind: Callable[[Any], T], options: Any, *, moved: bool = False) -> T:
    """A network from a fixed seed; `moved` off its initial values, so that paths that start at zero count."""
    torch.manual_seed(0)
    network = kind(options)
    if moved:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


def idle(network: nn.Module) -> list[str]:
    """Names of the trained tensors without a gradient."""
    return [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
