"""Predictions that need no training; open it for what a learned model has to beat."""

from collections.abc import Sequence

from torch import Tensor

from assay.studies.burgers.equation import average_cells
from assay.studies.burgers.solver import solve

COARSE_CELLS = 64


def persistence(u0: Tensor, frames: int) -> Tensor:
    """u0 (b, x) unchanged at every frame, (b, frames, x)."""
    return u0[:, None].expand(-1, frames, -1)


def constant_mean(u0: Tensor, frames: int) -> Tensor:
    """The mean of u0 (b, x) everywhere, what the solution tends to, (b, frames, x)."""
    return u0.mean(-1, keepdim=True)[:, None].expand(-1, frames, u0.shape[-1])


def coarse_solver(u0: Tensor, times: Sequence[float] | Tensor, nu: float, cells: int = COARSE_CELLS) -> Tensor:
    """Finite volumes on `cells` cells from u0 (b, x), (b, frames, cells) float64; the first time is that of u0.

    To be judged against `average_cells(truth, cells)`. Raises ConfigError unless `cells` divides x.
    """
    return solve(average_cells(u0.double(), cells), times, nu, "muscl")
