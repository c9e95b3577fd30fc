"""The scores of a prediction p against the truth t, fields (b, k, x) with frames k and cells x; open it for a formula.

Both are in physical units and on the same cells (`equation.average_cells` brings the truth to the model's). Every score
is computed in float64 and returned as a scalar tensor, or as one value per frame where it says so. `nrmse_frame` is the
primary one, the nRMSE of PDEBench (Takamoto et al. 2022, doi 10.48550/arXiv.2210.07182), whose cRMSE, bRMSE and fRMSE
are here too; PDEBench leaves out the first ten frames, which is left to the caller.
"""

import torch
from torch import Tensor

from assay.errors import DataError
from assay.studies.burgers.equation import energy, mass

TINY = 1e-8  # keeps the scores of the published latent study defined where the truth is 0
BANDS = ((0, 4), (4, 12), (12, None))
"""Wave numbers of the low, middle and high band of `frmse`: first, and one past the last."""


def nrmse(pred: Tensor, true: Tensor) -> Tensor:
    """rms(p - t) / (rms(t) + 1e-8), pooled over all elements, as the published study reported it; of any shape."""
    p, t = _pair(pred, true)
    return (p - t).square().mean().sqrt() / (t.square().mean().sqrt() + TINY)


def nrmse_pooled(pred: Tensor, true: Tensor) -> Tensor:
    """sqrt(sum (p - t)^2 / sum t^2) over everything."""
    p, t = _pair(pred, true)
    return ((p - t).square().sum() / t.square().sum()).sqrt()


def nrmse_trajectory(pred: Tensor, true: Tensor) -> Tensor:
    """Mean over trajectories of sqrt(sum (p - t)^2 / sum t^2), the sums over frames and cells."""
    p, t = _pair(pred, true)
    return ((p - t).square().sum((1, 2)) / t.square().sum((1, 2))).sqrt().mean()


def nrmse_frames(pred: Tensor, true: Tensor) -> Tensor:
    """rms_x(p - t) / rms_x(t) of every frame, (b, k)."""
    p, t = _pair(pred, true)
    return ((p - t).square().mean(-1) / t.square().mean(-1)).sqrt()


def nrmse_frame(pred: Tensor, true: Tensor) -> Tensor:
    """Mean over trajectories and frames of `nrmse_frames`."""
    return nrmse_frames(pred, true).mean()


def nrmse_curve(pred: Tensor, true: Tensor) -> Tensor:
    """Mean over trajectories of `nrmse_frames`, one value per frame, (k,)."""
    return nrmse_frames(pred, true).mean(0)


def mass_drift(pred: Tensor) -> Tensor:
    """Mean of |mass(p_k) - mass(p_0)| over trajectories and frames k >= 1; 0 for an exact solver."""
    total = mass(pred.double())
    return (total[:, 1:] - total[:, :1]).abs().mean()


def mass_gap(pred: Tensor, true: Tensor) -> Tensor:
    """Mean of |mass(p) - mass(t)| over trajectories and frames."""
    p, t = _pair(pred, true)
    return (mass(p) - mass(t)).abs().mean()


def crmse(pred: Tensor, true: Tensor) -> Tensor:
    """PDEBench's conservation error: mean over frames of sqrt(mean_b (sum_x p - sum_x t)^2) / cells."""
    p, t = _pair(pred, true)
    return (mass(p) - mass(t)).square().mean(0).sqrt().mean()


def energy_growth(pred: Tensor) -> Tensor:
    """Mean of max(0, E(p_k+1) - E(p_k)) over trajectories and pairs of frames; 0 for an exact solver."""
    return energy(pred.double()).diff(dim=1).clamp(min=0).mean()


def brmse(pred: Tensor, true: Tensor) -> Tensor:
    """PDEBench's boundary error: mean over frames of the rms of p - t at the first and the last cell."""
    p, t = _pair(pred, true)
    return (p - t)[..., [0, -1]].square().mean(-1).sqrt().mean()


def seam_jump(pred: Tensor, true: Tensor) -> Tensor:
    """Mean of |(p_0 - p_last) - (t_0 - t_last)|: what is wrong where the periodic domain closes."""
    p, t = _pair(pred, true)
    error = p - t
    return (error[..., 0] - error[..., -1]).abs().mean()


def frmse(pred: Tensor, true: Tensor) -> Tensor:
    """PDEBench's spectral error of the low, middle and high band, (3,): mean of sqrt(mean_b |P - T|^2) / cells.

    NaN for a band that fewer than 24 cells do not reach.
    """
    p, t = _pair(pred, true)
    error = torch.fft.rfft(p - t).abs().square().mean(0).sqrt().mean(0) / p.shape[-1]
    return torch.stack([error[first:end].mean() for first, end in BANDS])


def spectral_energy_error(pred: Tensor, true: Tensor) -> Tensor:
    """|mean |P|^2 - mean |T|^2| / (mean |T|^2 + 1e-8), P and T Fourier coefficients along the last axis."""
    p, t = (torch.fft.rfft(field).abs().square().mean() for field in _pair(pred, true))
    error: Tensor = (p - t).abs() / (t + TINY)
    return error


def shock_position_error(pred: Tensor, true: Tensor) -> Tensor:
    """Mean periodic distance, 0 to 1/2, between the places of steepest descent of p and of t."""
    steepest_p, steepest_t = (_steepest_descent(field) for field in _pair(pred, true))
    distance = (steepest_p - steepest_t).abs() / pred.shape[-1]
    return torch.minimum(distance, 1 - distance).mean()


def overshoot(pred: Tensor, initial: Tensor) -> Tensor:
    """Mean over trajectories of how far p leaves the range of `initial` (b, x), upwards or downwards; 0 if never."""
    p, u0 = pred.double(), initial.double()
    above = p.amax((1, 2)) - u0.amax(-1)
    below = u0.amin(-1) - p.amin((1, 2))
    return torch.maximum(above, below).clamp(min=0).mean()


def conservation_gap(pred: Tensor, true: Tensor) -> Tensor:
    """Mean over samples of |sum (p - t)|, the sum over all other axes, as the published study reported it."""
    p, t = _pair(pred, true)
    return (p - t).flatten(1).sum(1).abs().mean()


def boundary_violation(pred: Tensor, true: Tensor) -> Tensor:
    """Mean of |p - t| over the first and the last place of axis 1, as the published study reported it.

    Samples (b, places) or (b, places, channels).
    """
    p, t = _pair(pred, true)
    return (p - t)[:, [0, -1]].abs().mean()


def negativity(pred: Tensor) -> Tensor:
    """Mean of max(0, -p), as the published study reported it; no flaw in u, which may be negative."""
    return pred.double().neg().clamp(min=0).mean()


def _steepest_descent(u: Tensor) -> Tensor:
    """Index of the cell before the largest fall."""
    return (u - u.roll(-1, -1)).argmax(-1).double()


def _pair(pred: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64; DataError unless they are of one shape, for broadcasting would score something else."""
    if pred.shape != true.shape:
        got = f"{tuple(pred.shape)} against {tuple(true.shape)}"
        raise DataError(f"prediction and truth: got shapes {got}; allowed is one shape for both; use average_cells")
    return pred.double(), true.double()
