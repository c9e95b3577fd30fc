"""The terms of the training objective, each alone and unweighted; open it to see what a weight multiplies.

All are pure functions of tensors, without branches on values, so they work under `torch.func.vmap` and
`grad`. Maps are (B, 1, H, W). Errors are z-scores: (value - mean) / (std + 1e-6) of the model's statistics,
for prediction and target alike. Averages are over the mask, with 1e-6 added to the count so that an empty
mask gives zero.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from assay.studies.asl.model.outputs import ATT_LIMITS, INPUT_SCALE, Prediction
from assay.studies.asl.physics import Delays, Physics, joint_signal
from assay.studies.asl.statistics import Statistics

Kind = Literal["l1", "l2", "huber"]

LEGACY_RECONSTRUCTION_SCALE = 100.0


def loss_mask(signal: Tensor, percentile: float = 5.0) -> Tensor:
    """Voxels of (B, C, H, W) whose mean absolute signal exceeds the image's percentile: bool (B, 1, H, W).

    It drops that share of every image, mostly cerebrospinal fluid, where there is no perfusion to learn.
    """
    level = signal.abs().mean(dim=1, keepdim=True)
    threshold = torch.quantile(level.flatten(1), percentile / 100.0, dim=1)
    return level > threshold[:, None, None, None]


def supervised(
    pred: Prediction, cbf: Tensor, att: Tensor, mask: Tensor, statistics: Statistics, kind: Kind
) -> dict[str, Tensor]:
    """Terms `cbf` and `att`: the mean penalty of the standardised error.

    `kind` is l1 |e|, l2 e^2, or huber: e^2 / 2 within 1, |e| - 1/2 beyond (Huber 1964, doi
    10.1214/aoms/1177703732).
    """
    errors = _errors(pred, cbf, att, statistics)
    return {name: _masked_mean(_penalty(error, kind), mask) for name, error in errors.items()}


def negative_log_likelihood(
    pred: Prediction, cbf: Tensor, att: Tensor, mask: Tensor, statistics: Statistics
) -> dict[str, Tensor]:
    """Terms `cbf_nll` and `att_nll`: mean of (e^2 exp(-s) + s) / 2, s the predicted log variance.

    Gaussian, without its constant (Nix and Weigend 1994, doi 10.1109/ICNN.1994.374138).
    """
    errors = _errors(pred, cbf, att, statistics)
    log_vars = {"cbf": pred.log_var_cbf, "att": pred.log_var_att}
    likelihoods = {
        f"{name}_nll": 0.5 * (torch.exp(-log_vars[name]) * error.square() + log_vars[name])
        for name, error in errors.items()
    }
    return {name: _masked_mean(values, mask) for name, values in likelihoods.items()}


def variance(pred: Prediction, cbf: Tensor, att: Tensor, mask: Tensor, statistics: Statistics) -> Tensor:
    """Mean over images of how much less the prediction varies than the truth, CBF and ATT added.

    Variances are of z-scores over the masked voxels of an image, with ddof 1; varying more costs nothing.
    """
    deficit = [
        torch.relu(_masked_variance(true, mask) - _masked_variance(predicted, mask))
        for predicted, true in (
            (_z_cbf(pred.cbf, statistics), _z_cbf(cbf, statistics)),
            (_z_att(pred.att, statistics), _z_att(att, statistics)),
        )
    ]
    return torch.stack(deficit).sum(dim=0).mean()


def data_consistency(
    pred: Prediction, x: Tensor, mask: Tensor, plds: Delays, physics: Physics, *, legacy: bool = False
) -> Tensor:
    """Mean absolute difference of the predicted maps' signal from x, dM/M0 (B, 2P, H, W), times 1000.

    CBF is limited to >= 0 and ATT to [0, 5000] ms first. No step of the signal equation is smoothed: it is
    continuous in ATT. `legacy` repeats a published defect: the reconstruction times 100 against x times 1000.
    """
    cbf, att = pred.cbf.clamp_min(0.0), pred.att.clamp(*ATT_LIMITS)
    reconstruction = joint_signal(cbf.squeeze(1), att.squeeze(1), plds, physics)
    scale = LEGACY_RECONSTRUCTION_SCALE if legacy else INPUT_SCALE
    return _masked_mean((scale * reconstruction - INPUT_SCALE * x).abs().mean(dim=1, keepdim=True), mask)


def _z_cbf(cbf: Tensor, statistics: Statistics) -> Tensor:
    return (cbf - statistics.cbf_mean) / (statistics.cbf_std + 1e-6)


def _z_att(att: Tensor, statistics: Statistics) -> Tensor:
    return (att - statistics.att_mean) / (statistics.att_std + 1e-6)


def _errors(pred: Prediction, cbf: Tensor, att: Tensor, statistics: Statistics) -> dict[str, Tensor]:
    return {
        "cbf": _z_cbf(pred.cbf, statistics) - _z_cbf(cbf, statistics),
        "att": _z_att(pred.att, statistics) - _z_att(att, statistics),
    }


def _penalty(error: Tensor, kind: Kind) -> Tensor:
    match kind:
        case "l1":
            return error.abs()
        case "l2":
            return error.square()
        case "huber":
            return nn.functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=1.0)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    weight = mask.to(values.dtype)
    return (values * weight).sum() / (weight.sum() + 1e-6)


def _masked_variance(values: Tensor, mask: Tensor) -> Tensor:
    """Of each image: (B, 1, H, W) to (B,)."""
    weight = mask.to(values.dtype)
    count = weight.sum(dim=(1, 2, 3), keepdim=True)
    mean = (values * weight).sum(dim=(1, 2, 3), keepdim=True) / (count + 1e-6)
    squares = ((values - mean).square() * weight).sum(dim=(1, 2, 3))
    return squares / (count.flatten() - 1.0).clamp_min(1.0)
