"""The study's networks; open it to build one.

All take raw lines (B, N, P), normalise them themselves, and give logits (B, R, K) at R read-outs.
"""

from torch import nn

from assay.studies.scanlines.model.convolutions import Cnn, Lrcn, PaperCnn, SingleLine
from assay.studies.scanlines.model.encoders import CausalEncoder, LineEncoder
from assay.studies.scanlines.model.library import Library
from assay.studies.scanlines.network_section import ModelConfig, read_out_lines


def build(config: ModelConfig, lines: int, points: int, classes: int) -> nn.Module:
    """A fresh network.

    Raises:
        ConfigError: a package that it needs is not installed.
    """
    match config.architecture:
        case "line_encoder":
            return LineEncoder(config, lines, points, classes)
        case "causal":
            return CausalEncoder(config, lines, points, classes)
        case "lrcn":
            return Lrcn(config, classes)
        case "cnn":
            return Cnn(config, classes)
        case "paper_cnn":
            return PaperCnn(config, lines, points, classes)
        case "single_line":
            return SingleLine(config, classes)
        case "library":
            return Library(config, lines, points, classes)


def parameter_count(module: nn.Module) -> int:
    """Trained numbers."""
    return sum(tensor.numel() for tensor in module.parameters() if tensor.requires_grad)


__all__ = ["CausalEncoder", "LineEncoder", "build", "parameter_count", "read_out_lines"]
