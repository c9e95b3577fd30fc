"""Linear maps from one time step to the next, fitted by ridge regression on second moments; open it for the algebra.

Moments are gathered block by block in float64, so memory does not grow with the length of a recording.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.random import derive

BLOCK = 1024  # time steps at once
EXACT_UP_TO = 4000  # neurons; beyond, principal components come from a randomised subspace iteration
OVERSAMPLING, ITERATIONS = 32, 6  # of it (Halko et al. 2011, doi 10.1137/090771806)


class Split(NamedTuple):
    """A stretch of a recording: activity (T, N) and the stimulus (T, C) that leads to the next time step."""

    activity: Tensor
    stimulus: Tensor


class RidgeMap:
    """activity[t + 1] from activity[t], if it is `seen`, and from the `window` last frames of the stimulus.

    fit to the training range for each penalty, a share of the inputs' mean variance; validation picks one.
    """

    def __init__(
        self, training: Split, validation: Split, penalties: tuple[float, ...], *, seen: bool, window: int
    ) -> None:
        self.seen, self.window = seen, window
        moments = self._moments(training)
        errors = []
        for penalty in penalties:
            self.weight, self.centre, self.target = _solved(*moments, penalty)
            errors.append(self.mse(validation))
        best = penalties[errors.index(min(errors))]
        self.weight, self.centre, self.target = _solved(*moments, best)

    def predict(self, activity: Tensor, frames: Tensor) -> Tensor:
        """The next activity (n, N) of activity (n, N) and the window of frames (n, window, C), float64."""
        parts = [activity.double()] if self.seen else []
        inputs = torch.cat([*parts, frames.double().flatten(1)], dim=1)
        return (inputs - self.centre) @ self.weight + self.target

    def mse(self, split: Split) -> float:
        """Mean squared one-step error, from the first time step that has a whole window."""
        total, count = 0.0, 0
        for inputs, target in self._blocks(split):
            error = (inputs - self.centre) @ self.weight + self.target - target
            total += float(error.square().sum())
            count += error.numel()
        return total / count

    def _blocks(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs (n, F) and targets (n, N) of consecutive time steps."""
        lead = max(self.window - 1, 0)
        ahead = torch.arange(1 - self.window, 1, device=split.stimulus.device)
        for start in range(lead, len(split.activity) - 1, BLOCK):
            t = torch.arange(start, min(start + BLOCK, len(split.activity) - 1), device=split.activity.device)
            frames = split.stimulus[t[:, None] + ahead].flatten(1).double()
            parts = [split.activity[t].double(), frames] if self.seen else [frames]
            yield torch.cat(parts, dim=1), split.activity[t + 1].double()

    def _moments(self, split: Split) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Covariance of inputs (F, F) and with targets (F, N), and both means."""
        count, sums, moments = 0, [torch.zeros(())] * 2, [torch.zeros(())] * 2
        for inputs, target in self._blocks(split):
            count += len(inputs)
            device = inputs.device
            sums = [s.to(device) + part.sum(0) for s, part in zip(sums, (inputs, target), strict=True)]
            moments = [m.to(device) + inputs.T @ part for m, part in zip(moments, (inputs, target), strict=True)]
        centre, mean = (s / count for s in sums)
        among, across = moments[0] / count - centre[:, None] * centre, moments[1] / count - centre[:, None] * mean
        return among, across, centre, mean


def _solved(among: Tensor, across: Tensor, centre: Tensor, mean: Tensor, penalty: float) -> tuple[Tensor, ...]:
    """Weight (F, N) under a penalty, and the means of inputs and targets."""
    size = max(penalty * float(among.diagonal().mean()), 1e-12)  # channels that never change have no variance
    ridge = size * torch.eye(len(among), dtype=among.dtype, device=among.device)
    return torch.linalg.solve(among + ridge, across), centre, mean


def principal_components(x: Tensor, dim: int, exact_up_to: int = EXACT_UP_TO) -> tuple[Tensor, Tensor]:
    """Mean (N,) and the `dim` leading principal axes (N, dim) of x (T, N), float64."""
    mean = x.double().mean(0)
    if x.shape[1] <= exact_up_to:
        covariance = torch.zeros(x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        for block in torch.split(x, BLOCK):
            centred = block.double() - mean
            covariance += centred.T @ centred
        return mean, torch.linalg.eigh(covariance).eigenvectors[:, -dim:].flip(1)
    with torch.random.fork_rng():
        torch.manual_seed(derive("principal components"))
        rank = min(dim + OVERSAMPLING, *x.shape)
        _, _, axes = torch.svd_lowrank(x - mean.float(), rank, niter=ITERATIONS)
    return mean, axes[:, :dim].double()
