"""Networks of the organelles study; `build` makes one, untrained, from its section of the parameters."""

from collections.abc import Sequence

import torch
from torch import nn

from assay.studies.organelles.model.attention import use_attention
from assay.studies.organelles.model.library import freeze_unused, network
from assay.studies.organelles.model.recompute import recompute_blocks
from assay.studies.organelles.network_section import ModelConfig


def build(config: ModelConfig, classes: int, edges: Sequence[int]) -> nn.Module:
    """Takes (B, 1, *edges) to logits (B, classes, *edges); only `vit` is bound to these edges.

    Raises:
        ConfigError: MONAI is not installed.
    """
    model = network(config, classes, edges)
    freeze_unused(model)
    if config.attention is not None:
        use_attention(model, config.attention)
    if config.recompute:
        recompute_blocks(model)
    if config.channels_last:
        for layer in model.modules():
            if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
                layer.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    return model
