"""The networks of the burgers study, built from keyword options; open it for the names and for parameter matching."""

from dataclasses import replace

import torch
from torch import nn

from assay.errors import ConfigError
from assay.studies.burgers.model.attention import kernel_name, require_backend
from assay.studies.burgers.model.autoencoder import Autoencoder, fingerprint
from assay.studies.burgers.model.corrector import Corrector
from assay.studies.burgers.model.fno import FNOBaseline, FNOOptions
from assay.studies.burgers.model.forecast import Forecast, Forecaster
from assay.studies.burgers.model.operator import LatentOperator
from assay.studies.burgers.model.options import AutoencoderOptions, BlockOptions, CorrectorOptions, OperatorOptions

__all__ = [
    "Autoencoder",
    "AutoencoderOptions",
    "BlockOptions",
    "Corrector",
    "CorrectorOptions",
    "FNOBaseline",
    "FNOOptions",
    "Forecast",
    "Forecaster",
    "LatentOperator",
    "OperatorOptions",
    "attention_kernel",
    "fingerprint",
    "matched_ffn_ratio",
    "parameter_count",
    "require_backend",
]


def parameter_count(network: nn.Module) -> int:
    """How many numbers training may change."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def matched_ffn_ratio(options: OperatorOptions, parameters: int) -> float:
    """The `ffn_ratio` that brings an operator closest to a number of parameters; the rest stays as it is.

    Raises:
        ConfigError: even a feed-forward network of one channel is too much.
    """
    hidden = options.hidden_dim
    one, two = (_count(replace(options, ffn_ratio=width / hidden)) for width in (1, 2))
    width = 1 + round((parameters - one) / (two - one))
    if width < 1:
        raise ConfigError(f"parameters: got {parameters}; allowed: at least {one} with these options; use fewer blocks")
    return width / hidden


def _count(options: OperatorOptions) -> int:
    with torch.device("meta"):
        return parameter_count(LatentOperator(options))


def attention_kernel(options: BlockOptions, tokens: int, batch: int, device: torch.device, dtype: torch.dtype) -> str:
    """The attention kernel that a network with these options trains with, for the record; `sdpa/flash_attention`.

    Raises:
        ConfigError: the back end cannot be used there.
    """
    groups = 1 if options.attention == "standard" else options.hidden_dim // (options.group_size or 1)
    heads = groups * options.heads
    width = options.hidden_dim // heads
    require_backend(options.backend, device, dtype, width)
    q = torch.zeros(batch, tokens, heads, width, device=device, dtype=dtype, requires_grad=True)
    return kernel_name(options.backend, q, q, q)
