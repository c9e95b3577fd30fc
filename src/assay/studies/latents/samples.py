"""Training samples: a whole split on the device, batches by index; open it to see what a batch holds.

A sample starts at a time step. It holds the activity observed there, the stimulus of the steps that follow, and the
activity observed after them. The order of samples is a function of seed and position alone; indices are drawn for
many batches at once, so that a batch costs no transfer to the device.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.random import derive, generator
from assay.studies.latents.sections import SamplingConfig

DRAWN = 64  # batches whose indices are drawn at once


class Batch(NamedTuple):
    """Samples: activity (B, N); stimulus (B, S, C) of S steps from then on; targets (B, H, N) at the steps predicted.

    observed: (B, H, N), whether a target was; None if all were. evolve: (), 0 while only the reconstruction is trained.
    """

    activity: Tensor
    stimulus: Tensor | None
    targets: Tensor
    observed: Tensor | None
    evolve: Tensor


class Order:
    """Which samples a batch has: permutations of all of them end to end, or draws with replacement."""

    def __init__(self, seed: int, samples: int, batch_size: int, replacement: bool, device: torch.device) -> None:
        self.seed, self.samples, self.size, self.replacement = seed, samples, batch_size, replacement
        self.device = device
        self._block = lru_cache(maxsize=2)(self._drawn)
        self._epoch = lru_cache(maxsize=2)(self._permuted)

    def numbers(self, cursor: int) -> Tensor:
        """Sample numbers (B,) of batch `cursor`."""
        if self.replacement:
            return self._block(cursor // DRAWN)[cursor % DRAWN]
        epoch, offset = divmod(cursor * self.size, self.samples)
        parts, missing = [], self.size
        while missing:
            part = self._epoch(epoch)[offset : offset + missing]
            parts.append(part)
            missing, epoch, offset = missing - len(part), epoch + 1, 0
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _drawn(self, block: int) -> Tensor:
        rng = generator(self.seed, "draw", block)
        return torch.randint(self.samples, (DRAWN, self.size), generator=rng).to(self.device)

    def _permuted(self, epoch: int) -> Tensor:
        return torch.randperm(self.samples, generator=generator(self.seed, "order", epoch)).to(self.device)


class Samples:
    """All samples of a stretch of a recording: activity (T, N) and stimulus (T, C) on the device.

    steps: those at which a sample has targets. numbers: how many samples there are.
    """

    def __init__(self, activity: Tensor, stimulus: Tensor, sampling: SamplingConfig, phase_seed: int) -> None:
        self.sampling, self.activity = sampling, activity
        self.stimulus = None if sampling.stimulus == "none" else stimulus
        unit, horizon = sampling.time_units, sampling.horizon
        self.every = unit if sampling.acquisition == "time_aligned" else 1
        self.numbers = -(-(len(activity) - horizon) // self.every)
        self.phase: Tensor | None = None
        self.seen = activity
        self.steps = tuple(range(unit, horizon + 1, unit))
        if sampling.acquisition == "staggered":
            drawn = torch.randint(unit, (activity.shape[1],), generator=generator(derive(phase_seed, "phase")))
            self.phase = drawn.to(activity.device)
            self.seen = interpolated(activity, self.phase, unit)
            self.steps = tuple(range(1, horizon + 1))
        self._ahead = torch.tensor(self.steps, device=activity.device)

    def batch(self, numbers: Tensor, evolve: Tensor) -> Batch:
        """The samples of these numbers, (B,) in [0, self.numbers)."""
        start = numbers * self.every
        later = start[:, None] + self._ahead
        observed = None if self.phase is None else (later[:, :, None] - self.phase) % self.sampling.time_units == 0
        return Batch(self.seen[start], self.shown(start), self.activity[later], observed, evolve)

    def shown(self, start: Tensor) -> Tensor | None:
        """The stimulus (B, S, C) that the model is given from each start on."""
        if self.stimulus is None:
            return None
        unit = self.sampling.time_units
        step = torch.arange(self.sampling.horizon, device=start.device)
        if self.sampling.stimulus == "all":
            return self.stimulus[start[:, None] + step]
        before = self.stimulus[start[:, None] + step // unit * unit]
        if self.sampling.stimulus == "held":
            return before
        after = self.stimulus[start[:, None] + (step // unit + 1) * unit]
        return torch.lerp(before, after, (step % unit / unit)[:, None])


def interpolated(activity: Tensor, phase: Tensor, unit: int) -> Tensor:
    """Activity (T, N) of which neuron n is known at time steps t with t % unit == phase[n] only, linear between them.

    Before the first and after the last known value of a neuron it is held.
    """
    last = len(activity) - 1
    t = torch.arange(len(activity), device=activity.device)[:, None]
    before = t - (t - phase) % unit
    final = last - (last - phase) % unit
    low, high = before.clamp(min=phase), torch.minimum(before + unit, final)
    share = ((t - low) / (high - low).clamp(min=1)).clamp(0, 1)
    return torch.lerp(activity.gather(0, low), activity.gather(0, high), share)
