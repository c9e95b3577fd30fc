"""Trained networks as predictors of whole trajectories; open it to see what is fed back from step to step.

All of them take initial fields (B, cells) in the field's unit, a viscosity nu and a number K of the model's own time
steps, and give the frames 0 to K, frame 0 being the given field. Noise is drawn for all samples at once, so
`batch_size` bounds memory and changes no draw.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from assay.engine.random import derive
from assay.studies.burgers import networks
from assay.studies.burgers.diffusion import Velocity, integrate, to_data
from assay.studies.burgers.model import Forecaster
from assay.studies.burgers.network_sections import CorrectorConfig
from assay.studies.burgers.networks import Facts, Loaded

FLOOR = 1e-3  # standard deviations of the fields: keeps the unit of an error above zero where no change is predicted
Predict = Callable[[Tensor, float, int], Tensor]
"""Initial fields (B, cells), nu, K to trajectories (B, K + 1, cells)."""
Ensemble = Callable[[Tensor, float, int, torch.Generator], Tensor]
"""Initial fields (B, cells), nu, K, random numbers to trajectories (members, B, K + 1, cells)."""
Step = Callable[[Tensor, float], Tensor]
"""Fields (B, cells) and nu to the fields (B, cells) one time step later."""
Draw = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Standard normal noise, predicted fields and the fields before, all (B, cells), to an error of each prediction.

In the field's unit, to be added.
"""


def operator(loaded: Loaded, batch_size: int) -> Predict:
    """Rollouts of the latent operator, from field to field or within the latent space as its parameters say."""
    forecaster = loaded.module

    @torch.no_grad()
    def predict(start: Tensor, nu: float, steps: int) -> Tensor:
        parts = [forecaster(u, *_conditions(loaded, u, nu), steps).fields for u in torch.split(start, batch_size)]
        return torch.cat([start[:, None], torch.cat(parts)[:, 1:]], dim=1)

    return predict


def fno(loaded: Loaded, batch_size: int) -> Predict:
    """Rollouts of the Fourier neural operator."""
    step = one_step(loaded, batch_size)

    def predict(start: Tensor, nu: float, steps: int) -> Tensor:
        frames = [start]
        for _ in range(steps):
            frames.append(step(frames[-1], nu))
        return torch.stack(frames, dim=1)

    return predict


def one_step(loaded: Loaded, batch_size: int) -> Step:
    """A single step of the latent operator or of the Fourier neural operator."""
    module = loaded.module

    @torch.no_grad()
    def step(start: Tensor, nu: float) -> Tensor:
        return torch.cat([advance(module, u, *_conditions(loaded, u, nu)) for u in torch.split(start, batch_size)])

    return step


def advance(module: nn.Module, u: Tensor, dt: Tensor, nu: Tensor) -> Tensor:
    """Fields (B, cells) a time step dt (B,) later at viscosities nu (B,), by either kind of network."""
    found = module(u, dt, nu)
    return cast(Tensor, found.fields[:, 1] if isinstance(module, Forecaster) else found)


def _conditions(loaded: Loaded, u: Tensor, nu: float) -> tuple[Tensor, Tensor]:
    """Time step and viscosity of every sample, (B,)."""
    return u.new_full((len(u),), loaded.params.data.dt), u.new_full((len(u),), nu)


def corrected(base: Loaded, corrector: Loaded, config: CorrectorConfig, batch_size: int) -> Ensemble:
    """Rollouts of the operator `base`, where each member adds an error of its own at every step and feeds it back."""
    return _ensemble(base, flow(corrector.module, corrector.facts, config, batch_size), config.members, batch_size)


def distilled(base: Loaded, student: Loaded, config: CorrectorConfig, batch_size: int) -> Ensemble:
    """The same with the distilled corrector, which needs one call a step."""
    return _ensemble(base, single_call(student.module, student.facts, batch_size), config.members, batch_size)


def flow(network: Velocity, facts: Facts, config: CorrectorConfig, batch_size: int) -> Draw:
    """Errors at the end of a corrector's flow from noise."""
    velocity = in_batches(network, batch_size)

    @torch.no_grad()
    def draw(noise: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
        steps, method = config.sampler_steps, config.sampler
        end = integrate(velocity, noise, predicted, start, steps=steps, method=method)
        return error_unit(predicted, start, facts) * end

    return draw


def single_call(student: Velocity, facts: Facts, batch_size: int) -> Draw:
    """Errors that a distilled corrector makes of noise in one call."""
    velocity = in_batches(student, batch_size)

    @torch.no_grad()
    def draw(noise: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
        end = to_data(velocity, noise, noise.new_zeros(len(noise)), predicted, start)
        return error_unit(predicted, start, facts) * end

    return draw


def error_unit(predicted: Tensor, start: Tensor, facts: Facts) -> Tensor:
    """What the errors of predictions (B, cells) are divided by to be of order one, (B, 1), in the field's unit.

    `scale` times the rms of the predicted change. Errors of a step that changes much are larger by orders of
    magnitude than those of a smooth field that hardly moves: one unit for all would drown the latter in noise.
    """
    change = (predicted - start).square().mean(-1, keepdim=True).sqrt()
    return facts["scale"] * (change + FLOOR * facts["std"])


def in_batches(network: Velocity, batch_size: int) -> Velocity:
    """The network, called with `batch_size` samples at a time."""

    def velocity(x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
        parts = zip(*(torch.split(each, batch_size) for each in (x, s, predicted, start)), strict=True)
        return torch.cat([network(*part) for part in parts])

    return velocity


def correct(base: Loaded, drawn: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
    """Predictions of `base` plus drawn errors, (..., cells), with the mean of `start` if `base` conserves mass."""
    field = predicted + drawn
    if not base.params.model.conserve_mass:
        return field
    return field + (start.mean(-1, keepdim=True) - field.mean(-1, keepdim=True))


def _ensemble(base: Loaded, draw: Draw, members: int, batch_size: int) -> Ensemble:
    step = one_step(base, batch_size)

    def predict(start: Tensor, nu: float, steps: int, rng: torch.Generator) -> Tensor:
        frames = [start.repeat(members, 1)]
        for _ in range(steps):
            u, predicted = frames[-1], step(frames[-1], nu)
            noise = torch.randn(u.shape, generator=rng, device=rng.device, dtype=u.dtype)
            frames.append(correct(base, draw(noise, predicted, u), predicted, u))
        return torch.stack(frames, dim=1).view(members, len(start), steps + 1, -1)

    return predict


def untrained(loaded: Loaded, seed: int) -> Loaded:
    """The null: the same network with fresh weights, drawn from (seed, "null")."""
    device = next(loaded.module.parameters()).device
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "null"))
        module = networks.build(loaded.stage, loaded.params, loaded.facts)
    return loaded._replace(module=module.to(device).eval(), digest=f"untrained-{seed}")
