"""MONAI's segmentation networks behind one set of options; open it to see what is asked of the library."""

import importlib
from collections.abc import Sequence
from typing import Any

from torch import nn

from assay.errors import ConfigError
from assay.studies.organelles.network_section import ModelConfig

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def network(config: ModelConfig, classes: int, edges: Sequence[int]) -> nn.Module:
    """The architecture, with one input channel and `classes` output channels."""
    given: dict[str, Any] = {"in_channels": 1, "out_channels": classes, "spatial_dims": config.dimensions}
    first, dropout = config.features, config.dropout
    if config.architecture == "unet":
        levels = (*(first * 2**level for level in range(5)), first)
        return _monai("BasicUNet", given, features=levels, dropout=dropout)
    if config.architecture == "residual_unet":
        levels = tuple(first * 2**level for level in range(5))
        return _monai("UNet", given, channels=levels, strides=(2,) * 4, num_res_units=2, dropout=dropout)
    if config.architecture == "resnet":
        return _monai("SegResNet", given, init_filters=first, dropout_prob=dropout or None)
    if config.architecture == "resnet_deep":
        return _monai("SegResNetDS", given, init_filters=first, blocks_down=(1, 2, 2, 4, 4), norm="instance")
    if config.architecture == "swin":
        return _monai("SwinUNETR", given, feature_size=first, use_v2=True, drop_rate=dropout)
    if config.hidden is None or config.heads is None:
        raise ValueError("a vit needs hidden and heads")
    sizes = {"hidden_size": config.hidden, "mlp_dim": 4 * config.hidden, "num_heads": config.heads}
    return _monai("UNETR", given, img_size=tuple(edges), feature_size=first, dropout_rate=dropout, **sizes)


def freeze_unused(model: nn.Module) -> None:
    """Take MONAI's cross attention, which its ViT has and never calls, out of what is trained.

    A parameter without a gradient would keep the ranks of a distributed training waiting for it.
    """
    for name, layer in model.named_modules():
        if name.endswith(("cross_attn", "norm_cross_attn")):
            layer.requires_grad_(False)


def head(model: nn.Module, classes: int) -> nn.Module:
    """The convolution that gives the logits: the last one with a channel for each class."""
    found = [layer for layer in model.modules() if isinstance(layer, CONVOLUTIONS) and layer.out_channels == classes]
    return found[-1]


def _monai(name: str, given: dict[str, Any], **options: Any) -> nn.Module:
    try:
        nets = importlib.import_module("monai.networks.nets")
    except ImportError as error:
        raise ConfigError(
            f"model.architecture: wants MONAI, which cannot be imported ({error}); install assay[organelles]"
        ) from None
    made: nn.Module = getattr(nets, name)(**given, **options)
    return made
