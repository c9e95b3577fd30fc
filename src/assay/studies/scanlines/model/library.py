"""Image models of the timm library with one input channel; open it to see what is asked of the library."""

import importlib
from typing import Any

from torch import Tensor, nn

from assay.errors import ConfigError
from assay.studies.scanlines.model.lines import normalise
from assay.studies.scanlines.network_section import ModelConfig


class Library(nn.Module):
    """One label for an image, from a model of timm, untrained.

    Raises:
        ConfigError: timm is not installed, or has no model of that name.
    """

    def __init__(self, config: ModelConfig, lines: int, points: int, classes: int) -> None:
        super().__init__()
        self.normalisation, name = config.normalisation, config.library_name or ""
        timm = _timm()
        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "resnet18, convnext_nano"
            raise ConfigError(f"model.library_name: got {name}; allowed: a model of timm, e.g. {near}")
        given: dict[str, Any] = {"pretrained": False, "num_classes": classes, "in_chans": 1}
        if name.startswith("vit"):
            given["img_size"] = (lines, points)
        self.net: nn.Module = timm.create_model(name, **given)

    def forward(self, lines: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, 1, K) of images (B, N, P)."""
        logits: Tensor = self.net(normalise(lines, self.normalisation)[:, None])
        return logits[:, None]


def _timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError:
        remedy = "allowed: another architecture, e.g. cnn; or pip install timm"
        raise ConfigError(f"model.architecture: got library, but timm is not installed; {remedy}") from None
