"""The viscous Burgers equation, its grid and its invariants; open it for a unit or a convention.

u_t + (u^2 / 2)_x = kappa u_xx on x in [0, 1), periodic, with kappa = nu / pi: the viscosity nu by which data sets are
named is not the diffusion coefficient (PDEBench, Takamoto et al. 2022, doi 10.48550/arXiv.2210.07182). The mean of u
is constant, the energy mean(u^2) / 2 never grows, and u stays within the range of its initial condition.
"""

import math

import torch
from torch import Tensor

from assay.errors import ConfigError

INTERVAL = 0.01  # time between two frames of the published data sets
FRAMES = 201  # t = 0, 0.01, ..., 2
CELLS = 1024


def kappa(nu: float) -> float:
    """Diffusion coefficient of viscosity `nu`.

    Raises:
        ConfigError: nu is not a positive number.
    """
    if not (math.isfinite(nu) and nu > 0):
        raise ConfigError(f"viscosity: got {nu}, allowed is a number > 0; use e.g. 0.01")
    return nu / math.pi


def cell_centres(cells: int, device: torch.device | str = "cpu") -> Tensor:
    """Centres (i + 1/2) / cells of the cells, (cells,) float64."""
    return (torch.arange(cells, dtype=torch.float64, device=device) + 0.5) / cells


def frame_times(frames: int = FRAMES, interval: float = INTERVAL) -> Tensor:
    """Times of the frames from t = 0 on, (frames,) float64."""
    return torch.arange(frames, dtype=torch.float64) * interval


def average_cells(u: Tensor, cells: int) -> Tensor:
    """Mean of u (..., n) over each of `cells` equal runs of neighbouring cells, (..., cells).

    Raises:
        ConfigError: `cells` does not divide n.
    """
    n = u.shape[-1]
    if cells < 1 or n % cells:
        raise ConfigError(f"cells: got {cells}, allowed are the divisors of {n}, the number of cells there are")
    return u if n == cells else u.reshape(*u.shape[:-1], cells, n // cells).mean(-1)


def mass(u: Tensor) -> Tensor:
    """Integral of u (..., cells) over the domain."""
    return u.mean(-1)


def energy(u: Tensor) -> Tensor:
    """Integral of u^2 / 2 of u (..., cells) over the domain."""
    return u.square().mean(-1) / 2
