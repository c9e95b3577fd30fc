"""Pseudo-spectral Burgers solver: far more accurate than finite volumes once the shocks are resolved.

Fourier collocation with the 2/3 rule (Orszag 1971), diffusion by an integrating factor, classical Runge-Kutta of
order 4 in time, in the frame that moves with the mean of u, where less advection is left to resolve.
"""

import math

import torch
from torch import Tensor

from assay.studies.burgers.equation import kappa

CFL = 0.5
DECAY = 0.1  # of the decay time of the longest wave: the longest step, however small the velocities


class Spectral:
    """The scheme on `cells` points at viscosity `nu`.

    States are the Fourier coefficients (b, waves) complex128 of the wave numbers below cells / 3, whose products
    alias onto none of them.
    """

    def __init__(self, cells: int, nu: float) -> None:
        self.cells, self.kappa = cells, kappa(nu)
        self.waves = (cells - 1) // 3 + 1

    def start(self, u: Tensor) -> Tensor:
        """The state of the field u (b, cells)."""
        coefficients: Tensor = torch.fft.rfft(u)
        return coefficients[:, : self.waves].contiguous()

    def field(self, state: Tensor) -> Tensor:
        """The field (b, cells) of a state."""
        u: Tensor = torch.fft.irfft(state, n=self.cells)
        return u

    def longest_step(self, u: Tensor) -> Tensor:
        """The longest time step of each row, (b,), that resolves advection in the moving frame."""
        advection = CFL / self.cells / ((u - u.mean(-1, keepdim=True)).abs().amax(-1) + 1e-8)
        return advection.clamp(max=DECAY / (self.kappa * (2 * math.pi) ** 2))

    def advance(self, state: Tensor, dt: float, steps: int) -> Tensor:
        """The state `steps` time steps of length dt later."""
        wave = 2 * math.pi * torch.arange(self.waves, dtype=torch.float64, device=state.device)
        half = _real(torch.exp(-self.kappa * wave**2 * dt / 2)[None].to(state.dtype) * (1 + 1j))
        whole = half.square()
        gradient = -0.5j * dt * wave
        mean = state[:, :1].clone()
        now = _real(torch.cat((torch.zeros_like(mean), state[:, 1:]), 1))
        for _ in range(steps):
            now = self._step(now, half, whole, gradient)
        shift = torch.exp(-1j * wave * (mean.real / self.cells * (dt * steps)))
        return torch.cat((mean, (_complex(now) * shift)[:, 1:]), 1)

    def _step(self, now: Tensor, half: Tensor, whole: Tensor, gradient: Tensor) -> Tensor:
        """One Runge-Kutta step; `half` and `whole` are the decay over half a step and over a whole one."""
        decayed, gone = now * half, now * whole
        first = self._advection(now, gradient)
        total = torch.addcmul(gone, first, whole, value=1 / 6)
        second = self._advection(torch.add(decayed, first.mul_(half), alpha=0.5), gradient)
        third = self._advection(torch.add(decayed, second, alpha=0.5), gradient)
        total.addcmul_(second.add_(third), half, value=1 / 3)
        fourth = self._advection(gone.addcmul_(third, half), gradient)
        return total.add_(fourth, alpha=1 / 6)

    def _advection(self, now: Tensor, gradient: Tensor) -> Tensor:
        """Change over one step by -(u^2 / 2)_x."""
        u = torch.fft.irfft(_complex(now), n=self.cells)
        return _real(torch.fft.rfft(u.square_())[:, : self.waves] * gradient)


def _real(coefficients: Tensor) -> Tensor:
    """Complex (b, k) as real (b, 2k): products with real factors cost half."""
    return torch.view_as_real(coefficients).flatten(1)


def _complex(pairs: Tensor) -> Tensor:
    return torch.view_as_complex(pairs.view(len(pairs), -1, 2))
