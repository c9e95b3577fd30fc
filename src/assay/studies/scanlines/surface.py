"""The surface H:Si(100)-(2x1) as Fourier series, one per tip state; open it for what a state looks like.

Lengths in nm. A cell holds two dimers of one row: PITCH across the rows (u), 2 A along them (v), so that a buckling
that alternates from dimer to dimer fits. A lattice of Gaussians has Gaussian coefficients; a blunt tip multiplies
them by a Gaussian and a second apex by a phase, so no image is ever filtered.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.scanlines.draw import Draw

A = 0.384
"""Distance of neighbouring dimers along a row (Si(100) surface lattice constant)."""
PITCH = 0.768
"""Distance of neighbouring rows."""
ORDER = 5  # harmonics up to this radius: a Gaussian of 0.075 nm has less than 1 % beyond it
STATES = ("atoms", "asymmetry", "dimer", "rows")
"""States in which the surface is resolved, by label."""
TIP_CHANGE, GENERIC = 4, 5
CLASSES = (*STATES, "tip_change", "generic_defect")
"""The six classes, by label."""
COUNTS = (1664, 1482, 6830, 3202, 1332, 4422)
"""Images of each class in the published study's file, the priors of the generator."""


def class_names(merge: Sequence[int]) -> list[str]:
    """Names of the classes that `merge` makes of the six, or numbers where a file has others."""
    if len(merge) != len(CLASSES):
        return [str(label) for label in range(max(merge) + 1)]
    return ["/".join(n for n, k in zip(CLASSES, merge, strict=True) if k == label) for label in range(max(merge) + 1)]


class Harmonics(NamedTuple):
    """Wave vectors (H,) of the half plane, rad/nm, across (u) and along (v) the rows."""

    u: Tensor
    v: Tensor


def harmonics(device: torch.device) -> Harmonics:
    """All wave vectors of the cell up to ORDER, without the mean and without those that a real image repeats."""
    reach = range(-ORDER, ORDER + 1)
    kept = [(h, k) for h in reach for k in reach if (h > 0 or (h == 0 and k > 0)) and h * h + k * k <= ORDER**2]
    numbers = torch.tensor(kept, dtype=torch.float32, device=device)
    return Harmonics(2 * math.pi / PITCH * numbers[:, 0], math.pi / A * numbers[:, 1])


def coefficients(state: Tensor, draw: Draw, waves: Harmonics) -> Tensor:
    """Fourier coefficients (M, H) complex of M surfaces in states (M,) 0 to 3, with a corrugation of sd 1."""
    sites = _sites(state, draw, waves)
    rows = _rows(draw, len(state), waves)
    both = torch.where((state == STATES.index("rows"))[:, None], rows, sites)
    return both / _corrugation(both)[:, None]


def _corrugation(series: Tensor) -> Tensor:
    """Standard deviation (M,) of the heights; each kept harmonic stands for itself and its conjugate."""
    sd: Tensor = (2 * series.abs().square().sum(1)).sqrt()
    return sd


def _sites(state: Tensor, draw: Draw, waves: Harmonics) -> Tensor:
    """Gaussians at the four hydrogen atoms of the cell, or at its two dimers."""
    count = len(state)
    atoms, asymmetry, dimer = (state == STATES.index(name) for name in ("atoms", "asymmetry", "dimer"))
    width = torch.where(asymmetry, draw.uniform(0.085, 0.125, count), draw.uniform(0.075, 0.11, count))
    width_u = torch.where(dimer, draw.uniform(0.15, 0.22, count), width)
    width_v = torch.where(dimer, draw.uniform(0.10, 0.14, count), width)
    half = torch.where(dimer, 0.0, draw.uniform(0.15, 0.19, count))
    dark = torch.where(atoms, 1.0, draw.uniform(0.25, 0.75, count))
    zigzag = draw.chance(0.5, count)
    bright = torch.ones_like(dark)
    left, right = (torch.where(swapped, dark, bright) for swapped in (torch.zeros_like(zigzag), zigzag))
    heights = torch.stack([left, bright + dark - left, right, bright + dark - right], 1)
    u = half[:, None] * torch.tensor([1.0, -1.0, 1.0, -1.0], device=half.device)
    v = torch.tensor([0.0, 0.0, A, A], device=half.device)
    phase = -(u[:, :, None] * waves.u + v[None, :, None] * waves.v)
    structure = (heights[:, :, None] * torch.polar(torch.ones_like(phase), phase)).sum(1)
    decay = -0.5 * ((waves.u * width_u[:, None]) ** 2 + (waves.v * width_v[:, None]) ** 2)
    return structure * decay.exp()


def _rows(draw: Draw, count: int, waves: Harmonics) -> Tensor:
    """Ridges, weakly modulated with the period A along the row."""
    width, modulation = draw.uniform(0.15, 0.22, count)[:, None], draw.uniform(0.0, 0.12, count)[:, None]
    order = (waves.v * A / math.pi).round().abs()
    along = torch.where(order == 0, 1 - modulation, torch.where(order == 2, modulation / 2, 0.0))
    series = along * (-0.5 * (waves.u * width) ** 2).exp()
    return series.to(torch.complex64)
