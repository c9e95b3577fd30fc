"""Errors against time and energies against wave number of rollouts; open it for what the curves of validate are."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.burgers.equation import average_cells
from assay.studies.burgers.evaluation import TAIL, Case
from assay.studies.burgers.metrics import nrmse_frames

SHARES = (0.25, 0.5, 1.0)  # of the rollout, at whose ends spectra are taken
TRUTH = "truth"


class Curve(NamedTuple):
    """A mean over trajectories and its 95 % interval at every frame after the first, (K,)."""

    value: Tensor
    low: Tensor
    high: Tensor


def errors(case: Case, rollouts: Mapping[str, Tensor], weights: Tensor) -> dict[str, Curve]:
    """Rollout error (nrmse_frames) by time of each (b, 1, K + 1, cells), of an ensemble that of its mean."""
    return {name: _curve(_rollout_errors(case, fields).cpu(), weights) for name, fields in rollouts.items()}


def _rollout_errors(case: Case, fields: Tensor) -> Tensor:
    mean = fields.double().mean(0) if fields.dim() == 5 else fields.double()
    truth = average_cells(case.truth.double(), fields.shape[-1])
    return nrmse_frames(mean[:, 0, 1:], truth[:, 1:])


def _curve(values: Tensor, weights: Tensor) -> Curve:
    """The mean of values (b, K) and percentiles of its resamples."""
    resampled = weights @ values / len(values)
    low, high = (resampled.quantile(q, dim=0) if len(values) > 1 else values[0] * torch.nan for q in (TAIL, 1 - TAIL))
    return Curve(values.mean(0), low, high)


def times(case: Case) -> Tensor:
    """Times of the frames after the first, (K,)."""
    return case.dt * torch.arange(1, case.truth.shape[1], dtype=torch.float64)


def spectrum_frames(case: Case) -> list[int]:
    """Frames at which spectra are taken."""
    steps = case.truth.shape[1] - 1
    return sorted({max(round(share * steps), 1) for share in SHARES})


def spectra(case: Case, rollouts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Energy by frame and wave number 0, 1, ... of the truth and each rollout, (frames, waves), on its own cells.

    Mean over trajectories, of an ensemble also over its members: the mean of members would lack what they disagree on.
    """
    fields = {TRUTH: case.truth[:, None], **rollouts}
    frames = spectrum_frames(case)
    return {name: energy_spectrum(each[..., 0, frames, :].flatten(0, -3)).mean(0) for name, each in fields.items()}


def energy_spectrum(u: Tensor) -> Tensor:
    """Energy of each wave number of u (..., cells), (..., cells // 2 + 1); their sum is the energy mean(u^2) / 2."""
    cells = u.shape[-1]
    power: Tensor = torch.fft.rfft(u.double()).abs().square() / cells**2
    alone = [0, cells // 2] if cells % 2 == 0 else [0]  # the others stand for wave numbers k and -k
    power[..., alone] /= 2
    return power
