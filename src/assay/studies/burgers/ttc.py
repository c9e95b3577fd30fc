"""Test-time candidate selection: many candidates for the next frame, the best by physics kept, sample by sample.

Open it to add a reward term or to change the search. What the search does with the reward, it also does with a random
score and with the true error (the oracle), on the same candidates: what lies between those two is all there is to win.
Fields are (..., cells) on the periodic unit interval, in their own unit; rewards are <= 0, 0 for no violation.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from assay.errors import ConfigError

Propose = Callable[[Tensor, int], Tensor]
"""Candidates for the next frame: fields (B, cells) and a count n to (n, B, cells)."""
Score = Callable[[Tensor, Tensor, int], Tensor]
"""How good candidates are: fields (B, cells), candidates (n, B, cells), number of the step from 0: (n, B)."""


def mass(u: Tensor, candidate: Tensor) -> Tensor:
    """Minus the change of the mean, which the equation keeps: unit of u."""
    return -(candidate.mean(-1) - u.mean(-1)).abs()


def energy(u: Tensor, candidate: Tensor) -> Tensor:
    """Minus the growth of the mean of u^2 / 2, which can only fall: unit of u squared."""
    return -0.5 * (candidate.square().mean(-1) - u.square().mean(-1)).clamp_min(0.0)


def maximum(u: Tensor, candidate: Tensor) -> Tensor:
    """Minus the mean excess over the largest and below the smallest value, the maximum principle: unit of u."""
    lowest, highest = u.amin(-1, keepdim=True), u.amax(-1, keepdim=True)
    return -((candidate - highest).clamp_min(0.0) + (lowest - candidate).clamp_min(0.0)).mean(-1)


def boundary(u: Tensor, candidate: Tensor) -> Tensor:
    """Minus the jump across the seam in excess of the largest one inside, now or before: unit of u."""
    seam = (candidate[..., 0] - candidate[..., -1]).abs()
    before = (u.roll(-1, dims=-1) - u).abs().amax(-1)
    return -(seam - torch.maximum(candidate.diff(dim=-1).abs().amax(-1), before)).clamp_min(0.0)


def spectrum(u: Tensor, candidate: Tensor) -> Tensor:
    """Minus the root of the energy in waves steeper than the variation of u allows: unit of u.

    Total variation V cannot grow, and summation by parts bounds the amplitude of wave k by V / (2 N sin(pi k / N)).
    """
    cells = u.shape[-1]
    waves = torch.arange(1, cells // 2 + 1, device=u.device)
    variation = (u.roll(-1, dims=-1) - u).abs().sum(-1, keepdim=True)
    bound = variation / (2 * cells * torch.sin(math.pi * waves / cells).to(u.dtype))
    amplitude = torch.fft.rfft(candidate, dim=-1)[..., 1:].abs() / cells
    excess: Tensor = (amplitude - bound).clamp_min(0.0)
    return -excess.square().sum(-1).sqrt()


TERMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mass": mass,
    "energy": energy,
    "maximum": maximum,
    "boundary": boundary,
    "spectrum": spectrum,
}
RESIDUAL = "residual"


def residual(u: Tensor, candidate: Tensor, dt: Tensor, kappa: Tensor) -> Tensor:
    """Minus the root mean square of the Crank-Nicolson finite-volume residual times dt: unit of u.

    Central fluxes u^2 / 2 - kappa u_x (u_t + (u^2 / 2)_x = kappa u_xx), averaged over both times (Crank and Nicolson
    1947, doi 10.1017/S0305004100023197); dt in s and kappa in 1/s, (B,).
    """
    change = candidate - u + 0.5 * dt[:, None] * (_divergence(u, kappa) + _divergence(candidate, kappa))
    return -change.square().mean(-1).sqrt()


def _divergence(u: Tensor, kappa: Tensor) -> Tensor:
    cells = u.shape[-1]
    ahead = u.roll(-1, dims=-1)
    flux = 0.25 * (u.square() + ahead.square()) - kappa[:, None] * cells * (ahead - u)
    return cells * (flux - flux.roll(1, dims=-1))


@dataclass(frozen=True)
class Reward:
    """The weighted sum of the analytical terms, as a `Score`.

    Raises:
        ConfigError: a weight for a term that does not exist, a negative one, or none above zero.
    """

    weights: Mapping[str, float]
    """Of mass, energy, maximum, boundary, spectrum, residual; a term without one is not computed."""
    dt: Tensor
    """Time step, s, (B,)."""
    kappa: Tensor
    """Diffusion coefficient nu / pi, 1/s, (B,)."""

    def __post_init__(self) -> None:
        names = [*TERMS, RESIDUAL]
        for name, weight in self.weights.items():
            if name not in names:
                reason = "the data have one field, u; use one of these"
                raise ConfigError(f"reward.{name}: got a weight; allowed terms: {', '.join(names)}; {reason}")
            if weight < 0:
                raise ConfigError(f"reward.{name}: got {weight:g}; allowed: >= 0; all terms punish violations")
        if not any(self.weights.values()):
            raise ConfigError(f"reward: got no weight above 0; allowed: one or more of {', '.join(names)}; give one")

    def terms(self, u: Tensor, candidates: Tensor) -> dict[str, Tensor]:
        """Each weighted term alone, (n, B), of candidates (n, B, cells) for what follows u (B, cells)."""
        weights = {name: weight for name, weight in self.weights.items() if weight}
        values = {name: TERMS[name](u, candidates) for name in weights if name != RESIDUAL}
        if RESIDUAL in weights:
            beams = len(u) // len(self.dt)
            values[RESIDUAL] = residual(u, candidates, self.dt.repeat(beams), self.kappa.repeat(beams))
        return {name: weights[name] * value for name, value in values.items()}

    def __call__(self, u: Tensor, candidates: Tensor, step: int) -> Tensor:
        return torch.stack(list(self.terms(u, candidates).values())).sum(0)


def oracle_score(truth: Tensor) -> Score:
    """Minus the true mean squared error; `truth` (B, steps, cells) are the frames after the first."""

    def score(u: Tensor, candidates: Tensor, step: int) -> Tensor:
        wanted = truth[:, step].repeat(len(u) // len(truth), 1)
        return -(candidates - wanted).square().mean(-1)

    return score


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How much is tried."""

    steps: int
    """Frames to predict."""
    candidates: int
    """Candidates for what follows one field."""
    beam_width: int
    """Trajectories kept of each sample from step to step; 1 is greedy."""
    max_evaluations: int
    """Candidates that may be made of one sample in all; when they run short, fewer are tried at each step."""

    def __post_init__(self) -> None:
        for key in ("steps", "candidates", "beam_width"):
            if getattr(self, key) < 1:
                raise ConfigError(f"ttc.{key}: got {getattr(self, key)}; allowed: >= 1; give 1 or more")
        if self.max_evaluations < self.steps:
            remedy = "raise it"
            raise ConfigError(
                f"ttc.max_evaluations: got {self.max_evaluations}; allowed: >= steps {self.steps}; {remedy}"
            )


@dataclass(frozen=True)
class Found:
    """What a search chose."""

    trajectory: Tensor
    """(B, steps, cells)."""
    score: Tensor
    """Sum over the steps of the score of what was chosen, (B,)."""
    evaluations: int
    """Candidates made of each sample."""


def search(propose: Propose, score: Score, start: Tensor, options: SearchOptions) -> Found:
    """Beam search from fields (B, cells) for the trajectory of the highest summed score, for each sample alone."""
    beams, total = start[None], start.new_zeros(1, len(start))
    trajectories, spent = start.new_empty(1, len(start), 0, start.shape[-1]), 0
    for step in range(options.steps):
        width, count = plan(options, step, spent, len(beams))
        fields = beams[:width].flatten(0, 1)
        candidates = propose(fields, count)
        spent += count * width
        scores = score(fields, candidates, step).view(count, width, -1) + total[:width]
        total, chosen = scores.flatten(0, 1).topk(min(options.beam_width, count * width), dim=0)
        beams = _pick(candidates.reshape(count * width, *start.shape), chosen)
        trajectories = torch.cat([_pick(trajectories, chosen % width), beams[:, :, None]], dim=2)
    return Found(trajectory=trajectories[0], score=total[0], evaluations=spent)


def plan(options: SearchOptions, step: int, spent: int, beams: int) -> tuple[int, int]:
    """Beams to go on with and candidates for each at `step`, so that every later step still has one."""
    left = options.max_evaluations - spent - (options.steps - step - 1)
    width = min(beams, left)
    return width, min(options.candidates, left // width)


def mean_rollout(propose: Propose, start: Tensor, options: SearchOptions) -> Found:
    """The mean of the candidates at every step instead of a choice; its score is 0."""
    count = min(options.candidates, options.max_evaluations // options.steps)
    frames = [start]
    for _ in range(options.steps):
        frames.append(propose(frames[-1], count).mean(0))
    trajectory = torch.stack(frames[1:], dim=1)
    return Found(trajectory=trajectory, score=start.new_zeros(len(start)), evaluations=count * options.steps)


def _pick(beams: Tensor, chosen: Tensor) -> Tensor:
    """Rows `chosen` (W, B) of beams (n, B, ...), for each sample its own: (W, B, ...)."""
    return beams[chosen, torch.arange(beams.shape[1], device=beams.device)]
