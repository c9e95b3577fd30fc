"""The terms of the operator's objective; open it for a formula. Errors are in standard deviations of the fields."""

from typing import Literal

import torch
from torch import Tensor

from assay.studies.burgers.sections import LossConfig

TINY = 1e-6  # keeps relative errors finite for a field that is zero; mean squares are of order 1


def loss_weights(loss: LossConfig) -> dict[str, float]:
    """Weight of each enabled term; a term of weight zero is not computed."""
    weights = {
        "one_step": loss.one_step_weight,
        "rollout": loss.rollout_weight,
        "spectral": loss.spectral_weight,
        "inverse_encoding": loss.inverse_encoding_weight,
        "inverse_decoding": loss.inverse_decoding_weight,
    }
    return {name: weight for name, weight in weights.items() if weight > 0}


def field_error(pred: Tensor, true: Tensor, kind: Literal["mse", "relative"], std: float) -> Tensor:
    """Error of each field (..., cells), (...): mean square over std^2, or root mean square over that of the truth."""
    square = (pred - true).square().mean(-1)
    if kind == "mse":
        return square / std**2
    return (square / (true.square().mean(-1) + TINY * std**2) + TINY).sqrt()


def spectral_error(pred: Tensor, true: Tensor, std: float) -> Tensor:
    """Mean squared difference of the Fourier amplitudes along x of fields (B, cells), as a share of std^2."""
    amplitudes = [torch.fft.rfft(field, dim=-1, norm="ortho").abs() for field in (pred, true)]
    error: Tensor = (amplitudes[0] - amplitudes[1]).square().mean() / std**2
    return error
