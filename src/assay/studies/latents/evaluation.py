"""How well a latent model follows a recording: one step, ahead, in rollouts, by neuron; open it for a score.

Anything that encodes, steps and decodes is judged alike. The true stimulus is given at every step.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.random import generator
from assay.studies.latents.baselines import PrincipalRidge
from assay.studies.latents.linear import Split
from assay.studies.latents.model import LatentModel

ROWS = 2048  # time steps of a forward pass: bounds memory
LARGEST = 1e6  # errors are cut here, in units of activity squared, for an exploding rollout overflows
BOUNDED = 10.0  # times the variance of activity, up to which a rollout counts as bounded


class Dynamics(NamedTuple):
    """A latent model: state (n, L) of activity (n, N), the next state by stimulus (n, C), activity of a state."""

    encode: Callable[[Tensor], Tensor]
    step: Callable[[Tensor, Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


def of_model(model: LatentModel) -> Dynamics:
    """The dynamics of a network."""
    blind = model.stimulus_encoder is None
    return Dynamics(model.encode, lambda z, e: z + model.update(z, None if blind else e), model.decode)


def of_components(fitted: PrincipalRidge) -> Dynamics:
    """The dynamics of principal components."""
    return Dynamics(fitted.encode, fitted.step, lambda z: fitted.decode(z).float())


@torch.no_grad()
def horizon_curve(dynamics: Dynamics, split: Split, horizons: int) -> list[float]:
    """Mean squared error 0, 1, ..., `horizons` steps ahead, from all time steps that have them; 0 reconstructs."""
    starts = len(split.activity) - horizons
    totals = torch.zeros(horizons + 1, dtype=torch.float64, device=split.activity.device)
    for first in range(0, starts, ROWS):
        end = min(first + ROWS, starts)
        z = dynamics.encode(split.activity[first:end])
        for ahead in range(horizons + 1):
            error = dynamics.decode(z) - split.activity[first + ahead : end + ahead]
            totals[ahead] += error.double().square().sum()
            z = dynamics.step(z, split.stimulus[first + ahead : end + ahead])
    return (totals / (starts * split.activity.shape[1])).tolist()


@torch.no_grad()
def neuron_errors(dynamics: Dynamics, split: Split) -> Tensor:
    """Mean squared one-step error of every neuron, (N,) float64."""
    total = torch.zeros(split.activity.shape[1], dtype=torch.float64, device=split.activity.device)
    steps = len(split.activity) - 1
    for first in range(0, steps, ROWS):
        end = min(first + ROWS, steps)
        z = dynamics.step(dynamics.encode(split.activity[first:end]), split.stimulus[first:end])
        total += (dynamics.decode(z) - split.activity[first + 1 : end + 1]).double().square().sum(0)
    return total / steps


class Rollout(NamedTuple):
    """Squared errors of rollouts: by step and neuron (S, N), mean over starts; by start (starts,), mean over the rest.

    traces: predicted activity (starts, S, n) of some neurons. first: time step at which each begins.
    """

    errors: Tensor
    by_start: Tensor
    traces: Tensor
    first: list[int]


def rollout_starts(time_steps: int, steps: int, count: int) -> list[int]:
    """Where rollouts begin: drawn without replacement, the same at every call."""
    drawn = torch.randperm(time_steps - steps, generator=generator("rollout starts"))[:count]
    return [int(start) for start in drawn.sort().values]


@torch.no_grad()
def rollout(dynamics: Dynamics, split: Split, first: list[int], steps: int, *, latent: bool, traced: Tensor) -> Rollout:
    """Rollouts from each of `first`: in latent space throughout, or (not latent) encoding every prediction anew."""
    starts = torch.tensor(first, device=split.activity.device)
    z = dynamics.encode(split.activity[starts])
    errors, traces = [], []
    by_start = torch.zeros(len(first), dtype=torch.float64, device=split.activity.device)
    for step in range(steps):
        z = dynamics.step(z, split.stimulus[starts + step])
        found = dynamics.decode(z)
        error = (found - split.activity[starts + step + 1]).square().nan_to_num(LARGEST, LARGEST).clamp(max=LARGEST)
        errors.append(error.mean(0))
        by_start += error.double().mean(1) / steps
        traces.append(found[:, traced])
        z = z if latent else dynamics.encode(found)
    return Rollout(torch.stack(errors), by_start, torch.stack(traces, dim=1), first)


def is_bounded(rolled: Rollout, variance: float) -> bool:
    """Whether the mean error over neurons never exceeds BOUNDED times their mean variance."""
    return bool((rolled.errors.mean(1) <= BOUNDED * variance).all())


def participation_ratio(states: Tensor) -> float:
    """How many dimensions states (T, L) use: (sum of principal variances)^2 / sum of their squares."""
    values = principal_variances(states)
    return float(values.sum() ** 2 / values.square().sum())


def principal_variances(states: Tensor) -> Tensor:
    """Variances along the principal axes of states (T, L), largest first, float64."""
    centred = states.double() - states.double().mean(0)
    values: Tensor = torch.linalg.eigvalsh(centred.T @ centred / len(states))
    return values.flip(0).clamp(min=0)


@torch.no_grad()
def encoded(dynamics: Dynamics, split: Split) -> Tensor:
    """Latent states (T, L) of a whole split."""
    return torch.cat([dynamics.encode(part) for part in torch.split(split.activity, ROWS)])


def r2(errors: Tensor, split: Split) -> Tensor:
    """1 - error / variance of every neuron, (N,); the variance is that of the split."""
    variance = split.activity[1:].double().var(0, correction=0)
    return 1 - errors / variance.clamp(min=1e-12)


def one_per_type(types: Tensor) -> Tensor:
    """One neuron of each cell type, (K,), drawn; the same at every call."""
    rng = generator("traced neurons")
    chosen = []
    for kind in torch.unique(types).tolist():
        places = (types == kind).nonzero().flatten()
        chosen.append(places[int(torch.randint(len(places), (1,), generator=rng))])
    return torch.stack(chosen)
