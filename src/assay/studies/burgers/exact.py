"""Exact solutions of the Burgers equation, the oracles of the tests; open it to judge a solver.

The substitution u = -2 kappa phi_x / phi turns the equation into the heat equation (Hopf 1950,
doi 10.1002/cpa.3160030302; Cole 1951, doi 10.1090/qam/42889). Times are those of `equation`, kappa = nu / pi.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from assay.errors import ConfigError
from assay.studies.burgers.equation import kappa

Function = Callable[[Any], Any]
Initial = Function | ArrayLike | Tensor
"""u(x, 0) of period 1: a function of tensors (of NumPy arrays if x is no tensor), or values at (i + 1/2) / n."""

GAUSS_POINTS = 5  # for the integral of the initial condition over one interval between nodes
LEAST_NODES = 4096  # per unit of length
NODES_PER_WIDTH = 16  # of the narrowest Gaussian that the weight can be
TAIL = 12.0  # standard deviations of the heat kernel beyond which the weight is below e^-72
BLOCK = 2**20  # weights computed at once


def cole_hopf(u0: Initial, x: ArrayLike | Tensor, t: float | Sequence[float] | ArrayLike | Tensor, nu: float) -> Tensor:
    """u(x, t) for any initial condition of period 1; x (n,), t one time or (m,). Returns (n,) or (m, n), float64.

    u = int (x - y) / t W dy / int W dy with W = exp(-G / 2 kappa), G(y) = int_0^y u0 + (x - y)^2 / 2t, by the
    trapezoidal rule over every y that a characteristic can have come from: absolute error below 1e-11 for smooth
    initial conditions and nu >= 0.001. Samples are taken as a trigonometric polynomial.

    Raises:
        ConfigError: nu is not positive, or a time is negative.
    """
    points, times = _float64(x), _float64(t)
    if bool((times < 0).any()):
        raise ConfigError(f"t: got {float(times.min())}, allowed are times >= 0")
    function: Function = u0 if callable(u0) else _Polynomial(_float64(u0))
    if callable(u0) and not isinstance(x, Tensor):
        function = lambda y: u0(y.numpy())  # noqa: E731
    solutions = [_cole_hopf(function, points, float(time), kappa(nu)) for time in times.flatten()]
    return torch.stack(solutions).reshape(*times.shape, *points.shape)


def _cole_hopf(u0: Function, x: Tensor, t: float, diffusion: float) -> Tensor:
    if t == 0:
        return _float64(u0(x))
    probe = _float64(u0(torch.arange(LEAST_NODES, dtype=torch.float64) / LEAST_NODES))
    steepest = float(probe.diff().abs().max()) * LEAST_NODES
    width = math.sqrt(2 * diffusion / (1 / t + steepest))
    least = 4 * u0.samples if isinstance(u0, _Polynomial) else 1
    per_unit = max(LEAST_NODES, least, 2 ** math.ceil(math.log2(NODES_PER_WIDTH / width)))
    tail = TAIL * math.sqrt(2 * diffusion * t)
    below, above = float(probe.max()) * t + tail, tail - float(probe.min()) * t
    first = math.floor((float(x.min()) - below) * per_unit)
    last = math.ceil((float(x.max()) + above) * per_unit)
    nodes = torch.arange(first, last + 1, dtype=torch.float64) / per_unit
    integral = u0.integral(first, last, per_unit) if isinstance(u0, _Polynomial) else _integral(u0, nodes)
    parts = [
        _weighted_mean(part, nodes, integral, t, diffusion) for part in torch.split(x, max(BLOCK // len(nodes), 1))
    ]
    return torch.cat(parts)


def _weighted_mean(x: Tensor, nodes: Tensor, integral: Tensor, t: float, diffusion: float) -> Tensor:
    """Mean of (x - y) / t under the weight; one row per point of x."""
    distance = x[:, None] - nodes
    exponent = (integral + distance.square() / (2 * t)) / (-2 * diffusion)
    return (torch.softmax(exponent, -1) * distance).sum(-1) / t


def _integral(u0: Function, nodes: Tensor) -> Tensor:
    """Integral of u0 from the first node to each node, by Gauss-Legendre quadrature between neighbours."""
    step = float(nodes[1] - nodes[0])
    places, weights = (torch.from_numpy(values) for values in np.polynomial.legendre.leggauss(GAUSS_POINTS))
    values = _float64(u0((nodes[:-1, None] + step * (places + 1) / 2).flatten()))
    pieces = values.reshape(-1, GAUSS_POINTS) @ (weights * step / 2)
    return torch.cat((pieces.new_zeros(1), pieces.cumsum(0)))


class _Polynomial:
    """The trigonometric polynomial through samples at the cell centres."""

    def __init__(self, samples: Tensor) -> None:
        self.samples = len(samples)
        coefficients = torch.fft.rfft(samples) / self.samples
        coefficients[1 : (self.samples + 1) // 2] *= 2
        wave = 2 * math.pi * torch.arange(len(coefficients), dtype=torch.float64)
        self.coefficients, self.wave = coefficients * torch.exp(-0.5j / self.samples * wave), wave

    def __call__(self, x: Tensor) -> Tensor:
        angles = (part[:, None] * self.wave for part in torch.split(x, max(BLOCK // len(self.wave), 1)))
        return torch.cat([torch.exp(1j * a) @ self.coefficients for a in angles]).real

    def integral(self, first: int, last: int, per_unit: int) -> Tensor:
        """Integral from 0 to node / per_unit for the nodes first ... last, up to a constant."""
        spectrum = torch.zeros(per_unit // 2 + 1, dtype=torch.complex128)
        spectrum[1 : len(self.wave)] = self.coefficients[1:] / self.wave[1:] / 2j
        period = torch.fft.irfft(spectrum * per_unit, n=per_unit)
        nodes = torch.arange(first, last + 1)
        total: Tensor = period[nodes % per_unit] + self.coefficients[0].real * nodes / per_unit
        return total


def sine_series(mean: float, amplitude: float, x: Sequence[float], t: float, nu: float) -> Tensor:
    """u(x, t), t > 0, for u0 = mean + amplitude sin(2 pi x), (n,) float64, from a series of modified Bessel functions.

    Near a shock the series cancels to e^(-2R) of its terms, R = amplitude / (4 pi kappa): it is summed with mpmath
    in as many digits as that takes (240 at nu = 0.001), about a second for each call.
    """
    from mpmath import mp

    diffusion = kappa(nu)
    with mp.workdps(30 + math.ceil(0.9 * abs(amplitude) / (4 * math.pi * diffusion))):
        bessel = _bessel(mp.mpf(amplitude) / (4 * mp.pi * diffusion), mp)
        decay = [i * mp.exp(-4 * mp.pi**2 * n**2 * diffusion * t) for n, i in enumerate(bessel)]
        values = []
        for point in x:
            angle = 2 * mp.pi * (mp.mpf(point) - mp.mpf(mean) * t)
            above = mp.fsum(n * c * mp.sin(n * angle) for n, c in enumerate(decay))
            below = decay[0] + 2 * mp.fsum(c * mp.cos(n * angle) for n, c in enumerate(decay) if n)
            values.append(float(mean + 8 * mp.pi * diffusion * above / below))
    return torch.tensor(values, dtype=torch.float64)


def _bessel(argument: Any, mp: Any) -> list[Any]:
    """I_0, I_1, ... of the argument down to the precision in force, by downward recurrence."""
    small = mp.mpf(10) ** (-mp.dps)
    order = 10
    while mp.besseli(order, abs(argument)) > small:
        order *= 2
    values = [mp.mpf(0), small**2]
    for n in range(2 * order, 0, -1):
        values.append(values[-2] + 2 * n / argument * values[-1])
    values = values[:0:-1]
    scale = mp.exp(argument) / (values[0] + 2 * mp.fsum(values[1:]))
    return [value * scale for value in values[:order]]


def travelling_shock(x: Tensor, t: float, nu: float, *, left: float, right: float, start: float) -> Tensor:
    """u(x, t) on the line of a shock at x = `start` at t = 0 between the values `left` > `right` far from it."""
    jump, speed = left - right, (left + right) / 2
    return speed - jump / 2 * torch.tanh(jump * (x - speed * t - start) / (4 * kappa(nu)))


def _float64(values: object) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
