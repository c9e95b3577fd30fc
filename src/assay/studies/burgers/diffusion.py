"""Corrector of an operator's errors as a generative model: flow matching, its sampler, and its distillation.

The standardised one-step error r = (u(t + dt) - prediction) / scale is data at time s = 1, standard normal noise is
at s = 0, and x_s = (1 - s) noise + s r in between. A network learns the velocity dx/ds (flow matching, Lipman et al.
2023, arXiv 2210.02747); integrating it turns noise into draws from the distribution of errors. Every function takes
the network as a callable (x, s, predicted, start) -> velocity, with fields (B, cells) and s (B,).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from assay.errors import ConfigError

Velocity = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
Method = Literal["euler", "heun"]
NoiseTimes = Literal["uniform", "logit_normal"]


@dataclass(frozen=True)
class Errors:
    """B one-step errors to learn from: fields (B, cells) in their own unit, `scale` a typical error in that unit."""

    start: Tensor
    """u(t)."""
    predicted: Tensor
    """What the operator makes of it."""
    truth: Tensor
    """u(t + dt)."""
    scale: float
    """Root mean square of truth - predicted over the training set."""

    @property
    def residual(self) -> Tensor:
        """The standardised error, the process at s = 1."""
        return (self.truth - self.predicted) / self.scale


def draw_times(fields: Tensor, rng: torch.Generator, times: NoiseTimes = "uniform") -> Tensor:
    """A time s in (0, 1) for each of the fields (B, cells).

    Logit-normal times favour the middle (Esser et al. 2024, arXiv 2403.03206).
    """
    if times == "uniform":
        return torch.rand(len(fields), generator=rng, device=rng.device, dtype=fields.dtype)
    return torch.randn(len(fields), generator=rng, device=rng.device, dtype=fields.dtype).sigmoid()


def flow_loss(network: Velocity, errors: Errors, rng: torch.Generator, times: NoiseTimes = "uniform") -> Tensor:
    """Mean squared error of the velocity at random times, 1 + mean r^2 for the zero map."""
    residual = errors.residual
    s = draw_times(residual, rng, times)
    noise = _noise_like(residual, rng)
    x = _between(noise, residual, s)
    velocity = network(x, s, errors.predicted, errors.start)
    return (velocity - (residual - noise)).square().mean()


def integrate(network: Velocity, x: Tensor, predicted: Tensor, start: Tensor, *, steps: int, method: Method) -> Tensor:
    """Carry x from s = 0 to s = 1 in equal steps: euler calls the network `steps` times, heun 2 x `steps` times."""
    grid = time_grid(steps)
    for s, s_next in pairwise(grid):
        x = ode_step(network, x, x.new_full((len(x),), s), x.new_full((len(x),), s_next), predicted, start, method)
    return x


def time_grid(steps: int) -> list[float]:
    """The times 0, 1/steps, ..., 1.

    Raises:
        ConfigError: fewer than one step.
    """
    if steps < 1:
        raise ConfigError(f"steps: got {steps}; allowed: >= 1; give e.g. 8")
    return [index / steps for index in range(steps + 1)]


def ode_step(  # noqa: PLR0913 - the state, its interval, and what the network is told
    network: Velocity, x: Tensor, s: Tensor, s_next: Tensor, predicted: Tensor, start: Tensor, method: Method
) -> Tensor:
    """x(s) to x(s_next) along the flow; s and s_next are (B,)."""
    width = (s_next - s)[:, None]
    slope = network(x, s, predicted, start)
    ahead = x + width * slope
    if method == "euler":
        return ahead
    return x + 0.5 * width * (slope + network(ahead, s_next, predicted, start))


def to_data(student: Velocity, x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
    """The student's guess of r from x at time s: x + (1 - s) v, so exactly x at s = 1."""
    return x + (1.0 - s)[:, None] * student(x, s, predicted, start)


def distillation_loss(
    student: Velocity, target: Velocity, teacher: Velocity, errors: Errors, steps: int, rng: torch.Generator
) -> Tensor:
    """Consistency distillation (Song et al. 2023, arXiv 2303.01469) on the teacher's grid of `steps` steps.

    The student's guess at s_n has to equal the target's guess one Heun step of the teacher further on. No gradient
    reaches target or teacher. `target` is the student itself or a moving average of it. At the last step the guess
    is the teacher's own end point, so shrinking the student to zero does not lower the loss.
    """
    residual = errors.residual
    index = torch.randint(steps, (len(residual),), generator=rng, device=rng.device).to(residual.dtype)
    s, s_next = index / steps, (index + 1) / steps
    x = _between(_noise_like(residual, rng), residual, s)
    with torch.no_grad():
        further = ode_step(teacher, x, s, s_next, errors.predicted, errors.start, "heun")
        wanted = to_data(target, further, s_next, errors.predicted, errors.start)
    return (to_data(student, x, s, errors.predicted, errors.start) - wanted).square().mean()


def _between(noise: Tensor, residual: Tensor, s: Tensor) -> Tensor:
    return torch.lerp(noise, residual, s[:, None])


def _noise_like(fields: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(fields.shape, generator=rng, device=rng.device, dtype=fields.dtype)
