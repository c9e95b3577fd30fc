"""Predictions for a learned model to beat, from constant to the simulator itself; open it for what a name means."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.random import generator
from assay.errors import DataError
from assay.studies.latents.linear import RidgeMap, Split, principal_components

CONSTANT, MEAN, AR1 = "constant", "mean", "ar1"
PCA, PCA_STIMULUS, PCA_RECONSTRUCTION = "pca_ridge", "pca_ridge_stimulus", "pca_reconstruction"
RIDGE, RIDGE_STIMULUS = "ridge", "ridge_stimulus"
STIMULUS, STIMULUS_WINDOW = "stimulus_ridge", "stimulus_window_ridge"
ORACLE = "simulator"
BLOCK = 1024  # time steps at once
TINY = 1e-12  # keeps the slope of a neuron that never changes defined


class Splits(NamedTuple):
    """The parts of a recording: training fits, validation picks the penalty, test is reported."""

    training: Split
    validation: Split
    test: Split

    def of(self, neurons: Tensor) -> "Splits":
        """The same of some neurons."""
        return Splits(*(Split(split.activity[:, neurons], split.stimulus) for split in self))


def constant_model_mse(x: Tensor, horizon: int) -> float:
    """Mean over all time steps t with t + horizon in x (T, N), and all neurons, of (x[t + horizon] - x[t])^2.

    Raises:
        DataError: x is no matrix, has a value that is not finite, or is not longer than the horizon.
    """
    require_activity(x)
    pairs = len(x) - horizon
    if horizon < 0 or pairs < 1:
        raise DataError(f"horizon: got {horizon}; allowed: 0 to {len(x) - 1} with {len(x)} time steps; lower it")
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    for start in range(0, pairs, BLOCK):
        end = min(start + BLOCK, pairs)
        total += (x[start + horizon : end + horizon].double() - x[start:end].double()).square().sum()
    return float(total) / (pairs * x.shape[1])


def require_activity(x: Tensor) -> None:
    """Refuse what is no activity.

    Raises:
        DataError: x has not two dimensions, or a value is not finite.
    """
    if x.dim() != 2:
        raise DataError(f"activity: got shape {tuple(x.shape)}; allowed: (time steps, neurons); take one column")
    if not bool(x.isfinite().all()):
        step, neuron = (~x.isfinite()).nonzero()[0].tolist()
        got = f"{float(x[step, neuron])} at time step {step}, neuron {neuron}"
        raise DataError(f"activity: got {got}; allowed: finite numbers; repair the recording")


def mean_mse(training: Split, test: Split) -> float:
    """Error of each neuron's mean over the training range."""
    mean = training.activity.double().mean(0)
    return float((test.activity[1:].double() - mean).square().mean())


def ar1_mse(training: Split, test: Split) -> float:
    """Error of x[t + 1] = a x[t] + b, fitted to each neuron's training range by least squares."""
    before, after = (part.double() for part in (training.activity[:-1], training.activity[1:]))
    centre, target = before.mean(0), after.mean(0)
    covariance = ((before - centre) * (after - target)).mean(0)
    slope = covariance / before.var(0, correction=0).clamp(min=TINY)
    error = test.activity[1:].double() - (slope * (test.activity[:-1].double() - centre) + target)
    return float(error.square().mean())


class PrincipalRidge:
    """PCA to `dim` components, a ridge map from them (and the stimulus) to those of the next step, PCA back.

    This is dynamic mode decomposition (with control): the linear relative of encoder, evolver and decoder.
    """

    def __init__(self, splits: Splits, penalties: tuple[float, ...], dim: int, stimulus: bool) -> None:
        self.mean, self.basis = principal_components(splits.training.activity, dim)
        self.window = int(stimulus)
        training, validation = (self._inner(split) for split in (splits.training, splits.validation))
        self.map = RidgeMap(training, validation, penalties, seen=True, window=self.window)

    def _inner(self, split: Split) -> Split:
        return Split(self.encode(split.activity), split.stimulus)

    def encode(self, x: Tensor) -> Tensor:
        """Components (T, L) of activity (T, N)."""
        return torch.cat([(part.double() - self.mean) @ self.basis for part in torch.split(x, BLOCK)])

    def decode(self, z: Tensor) -> Tensor:
        """Activity (T, N) of components (T, L)."""
        return z @ self.basis.T + self.mean

    def step(self, z: Tensor, stimulus: Tensor) -> Tensor:
        """Components (n, L) of the next time step, with stimulus (n, C)."""
        return self.map.predict(z, stimulus[:, None][:, : self.window])

    def reconstruction_mse(self, split: Split) -> float:
        """Error of encoding and decoding all time steps but the first."""
        x = split.activity[1:]
        errors = [self.decode(self.encode(part)) - part for part in torch.split(x, BLOCK)]
        return float(sum(error.square().sum() for error in errors)) / x.numel()

    def mse(self, split: Split) -> float:
        """One-step error: that of the components, and beside it, for the axes are orthogonal, what they leave out."""
        share = self.basis.shape[1] / self.basis.shape[0]
        return share * self.map.mse(self._inner(split)) + self.reconstruction_mse(split)


def baselines(
    splits: Splits, penalties: tuple[float, ...], dim: int, ridge_neurons: int, window: int
) -> dict[str, float]:
    """Mean squared one-step errors on the test range, by name; ridge maps see a random subset of many neurons."""
    training, validation, test = splits
    found = {CONSTANT: constant_model_mse(test.activity, 1), MEAN: mean_mse(training, test)}
    found[AR1] = ar1_mse(training, test)
    for name, frames in ((STIMULUS, 1), (STIMULUS_WINDOW, window)):
        found[name] = RidgeMap(training, validation, penalties, seen=False, window=frames).mse(test)
    for name, stimulus in ((PCA, False), (PCA_STIMULUS, True)):
        fitted = PrincipalRidge(splits, penalties, dim, stimulus)
        found[name] = fitted.mse(test)
        found[PCA_RECONSTRUCTION] = fitted.reconstruction_mse(test)
    some = splits.of(_subset(training.activity.shape[1], ridge_neurons))
    for name, frames in ((RIDGE, 0), (RIDGE_STIMULUS, 1)):
        found[name] = RidgeMap(some.training, some.validation, penalties, seen=True, window=frames).mse(some.test)
    return found


def _subset(neurons: int, most: int) -> Tensor:
    if neurons <= most:
        return torch.arange(neurons)
    return torch.randperm(neurons, generator=generator("ridge neurons"))[:most].sort().values


def skill(errors: Mapping[str, float], mse: float, floor: float) -> float:
    """What share of the way from the constant prediction's error to the floor an error has gone."""
    return (errors[CONSTANT] - mse) / (errors[CONSTANT] - floor)
