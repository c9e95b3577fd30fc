"""What the network sees: scenes of drifting waves, cut every 50 steps; open it to change the stimulus.

A scene is a base level and five plane waves on the hexagonal sheet, clipped to [0, 1]. Scene number n is a function of
(seed, name, n) alone.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from assay.engine.random import generator
from assay.studies.latents.sizes import SCENE_STEPS

WAVES = 5
LEVEL = (0.25, 0.65)  # of the base luminance
SPATIAL = (0.15, 1.6)  # rad per column spacing, log-uniform
AMPLITUDE = (0.05, 0.22)


def scene(seed: int, name: str, number: int, places: Tensor) -> Tensor:
    """Luminance (SCENE_STEPS, C) float32 of one scene at column places (C, 2)."""
    rng = generator(seed, name, number)
    level, frequency, direction, phase, amplitude = torch.rand(5, WAVES, generator=rng, dtype=torch.float64)
    drift = torch.randn(WAVES, generator=rng, dtype=torch.float64)  # rad per step
    low, high = (math.log(end) for end in SPATIAL)
    wave = (low + (high - low) * frequency).exp()
    angle = 2 * math.pi * direction
    along = places @ torch.stack([wave * angle.cos(), wave * angle.sin()])
    time = torch.arange(SCENE_STEPS, dtype=torch.float64)
    total = along[None] + 2 * math.pi * phase + time[:, None, None] * drift
    height = AMPLITUDE[0] + (AMPLITUDE[1] - AMPLITUDE[0]) * amplitude
    base = LEVEL[0] + (LEVEL[1] - LEVEL[0]) * level[0]
    luminance: Tensor = (base + (height * total.sin()).sum(-1)).clamp(0, 1)
    return luminance.float()


def scenes(seed: int, name: str, numbers: Iterable[int], places: Tensor) -> Tensor:
    """Several scenes one after the other, (SCENE_STEPS * n, C)."""
    return torch.cat([scene(seed, name, number, places) for number in numbers])
