"""What a scan shows beside surface and tip: offsets, relief, steps, streaks; open it for an amplitude.

Heights in units of the surface's corrugation. `add_...` change images (B, N, P) in place.
"""

import math

import torch
from torch import Tensor

from assay.studies.scanlines.draw import Draw

WALK = 0.05  # sd of the change of the offset from line to line
SLOW_TILT = 0.6
STEP_SHARE = 0.25
SHORTEST_STREAK = 8  # points


def line_offsets(count: int, lines: int, draw: Draw) -> Tensor:
    """Offset of every line (B, N): a tilt, a random walk and a jitter."""
    tilt = draw.normal(SLOW_TILT, count, 1) * torch.linspace(-1, 1, lines, device=draw.rng.device)
    jitter = draw.normal(1.0, count, lines) * draw.uniform(0.05, 0.25, count, 1)
    return tilt + draw.normal(WALK, count, lines).cumsum(1) + jitter


def relief(sd: Tensor, lines: int, points: int, waves: int, draw: Draw) -> tuple[Tensor, Tensor]:
    """Factors (B, N, waves) and (B, waves, P) of a smooth relief of standard deviation `sd` (B,)."""
    count = len(sd)

    def wave(size: int) -> Tensor:
        place = torch.arange(size, device=sd.device) / size
        turns, start = draw.uniform(0.3, 2.0, count, waves, 1), draw.uniform(0.0, 1.0, count, waves, 1)
        return (2 * math.pi * (turns * place + start)).cos()

    weights = draw.normal(1.0, count, waves)
    weights = (
        weights / weights.square().sum(1, keepdim=True).sqrt().clamp_min(1e-6) * 2 * sd[:, None]
    )  # cos^2 has a mean of 1/2
    return (wave(lines) * weights[:, :, None]).transpose(1, 2), wave(points)


def add_steps(image: Tensor, draw: Draw) -> None:
    """An atomic step of height 1 to 2.5 along a straight edge, in a quarter of the images."""
    count, lines, points = image.shape
    angle, through = draw.uniform(0.0, 2 * math.pi, count), draw.uniform(0.2, 0.8, count, 2)
    height = draw.uniform(1.0, 2.5, count)
    rows = draw.chance(STEP_SHARE, count).nonzero()[:, 0]
    angle, through, height = angle[rows], through[rows], height[rows]
    across = (torch.arange(points, device=image.device) / points - through[:, :1]) * angle.cos()[:, None]
    down = (torch.arange(lines, device=image.device) / lines - through[:, 1:]) * angle.sin()[:, None]
    upper = (across[:, None] + down[:, :, None] > 0).float()
    image[rows] += upper * height[:, None, None]


def add_streaks(image: Tensor, extra: Tensor, draw: Draw) -> None:
    """Pieces of lines, of 8 points or more, displaced by N(0, 1.5)."""
    count, lines, points = image.shape
    number = draw.poisson(lines * draw.uniform(0.0, 0.04, count)) + extra
    owner = torch.repeat_interleave(torch.arange(count, device=image.device), number)
    total = len(owner)
    line = draw.whole(0, lines - 1, total)
    length = SHORTEST_STREAK + (draw.uniform(0.0, 1.0, total) * (points - SHORTEST_STREAK + 1)).long()
    start = (draw.uniform(0.0, 1.0, total) * (points - length + 1)).long()
    pixel = torch.arange(points, device=image.device)
    inside = (pixel >= start[:, None]) & (pixel < (start + length)[:, None])
    image.view(-1, points).index_add_(0, owner * lines + line, inside * draw.normal(1.5, total, 1))
