"""MUSCL finite volumes for the Burgers equation: robust with shocks of any width; open it for the scheme.

Limited linear reconstruction (van Leer 1979, doi 10.1016/0021-9991(79)90145-1; monotonised central limiter), upwind
flux, explicit diffusion, midpoint rule in time: second order, mass conserved to rounding.
"""

import torch
from torch import Tensor

from assay.studies.burgers.equation import kappa

CFL = 0.25
GHOSTS = 2  # cells beyond each end that the stencil reads


class FiniteVolume:
    """The scheme on `cells` equal cells at viscosity `nu`. States are cell means (b, cells) float64."""

    def __init__(self, cells: int, nu: float) -> None:
        self.cells, self.kappa = cells, kappa(nu)

    def start(self, u: Tensor) -> Tensor:
        """The state of the field u."""
        return u

    def field(self, state: Tensor) -> Tensor:
        """The field of a state."""
        return state

    def longest_step(self, u: Tensor) -> Tensor:
        """The longest stable time step of each row, (b,); |u| never grows, so it stays stable."""
        dx = 1 / self.cells
        return (CFL * dx / (u.abs().amax(-1) + 1e-8)).clamp(max=CFL * dx**2 / (2 * self.kappa))

    def advance(self, state: Tensor, dt: float, steps: int) -> Tensor:
        """The state `steps` time steps of length dt later."""
        inside = slice(GHOSTS, GHOSTS + self.cells)
        now = state.new_empty(len(state), self.cells + 2 * GHOSTS)
        middle = torch.empty_like(now)
        now[:, inside] = state
        rate = dt * self.cells
        for _ in range(steps):
            torch.add(now[:, inside], self._outflow(now), alpha=-rate / 2, out=middle[:, inside])
            now[:, inside].sub_(self._outflow(middle), alpha=rate)
        return now[:, inside].clone()

    def _outflow(self, u: Tensor) -> Tensor:
        """Flux out of each cell minus flux into it, (b, cells), of u (b, cells + 4), whose ghosts are filled here."""
        u[:, :GHOSTS] = u[:, -2 * GHOSTS : -GHOSTS]
        u[:, -GHOSTS:] = u[:, GHOSTS : 2 * GHOSTS]
        jump = u[:, 1:] - u[:, :-1]
        half_slope = _limit(jump[:, :-1], jump[:, 1:])
        centre = u[:, 1:-1]
        left, right = (centre + half_slope)[:, :-1], (centre - half_slope)[:, 1:]
        upwind = torch.where(left + right > 0, left, right)
        flux = (upwind.square_() / 2).sub_(jump[:, 1:-1], alpha=self.kappa * self.cells)
        return flux[:, 1:] - flux[:, :-1]


def _limit(a: Tensor, b: Tensor) -> Tensor:
    """Half the limited slope: of a, b and (a + b) / 4 the smallest in magnitude; 0 where a and b differ in sign."""
    least, greatest = torch.maximum(a, b).clamp_(max=0), torch.minimum(a, b).clamp_(min=0)
    return ((a + b) / 4).clamp_(least, greatest)
