"""Solving many trajectories at once, each with time steps of its own; open it to generate data or to add a scheme.

Between two frames a row takes the number of equal steps that it needs itself, rounded up to few different numbers; rows
with equal numbers advance together. What a row gives therefore does not depend on its neighbours in the batch, and rows
with small velocities do not wait for fast ones. A GPU, which has room for all rows at once, takes the smallest step.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Literal, Protocol

import torch
from torch import Tensor

from assay.errors import ConfigError, DataError
from assay.studies.burgers.equation import kappa
from assay.studies.burgers.finite_volume import FiniteVolume
from assay.studies.burgers.spectral import Spectral

SchemeName = Literal["auto", "muscl", "spectral"]
RESOLVED = 5.0  # cells times nu from which a spectral scheme resolves the shocks: over 1.5 cells where u falls by 4
CHUNK = 2**15  # cells that one thread advances at once, to stay in its cache
SIGNIFICANT_BITS = 3  # of the numbers of steps


class Scheme(Protocol):
    """A discretisation in space and time."""

    cells: int

    def start(self, u: Tensor) -> Tensor:
        """The state of the field u (b, cells) float64."""
        ...

    def field(self, state: Tensor) -> Tensor:
        """The field (b, cells) of a state."""
        ...

    def longest_step(self, u: Tensor) -> Tensor:
        """The longest time step allowed to each row of the field, (b,), until u grows."""
        ...

    def advance(self, state: Tensor, dt: float, steps: int) -> Tensor:
        """The state `steps` time steps of length dt later."""
        ...


def scheme(name: SchemeName, cells: int, nu: float) -> Scheme:
    """The scheme called `name`; `auto` is the spectral one where `cells` resolve the shocks, else finite volumes.

    Raises:
        ConfigError: nu is not positive, or the name unknown.
    """
    kappa(nu)
    if name not in ("auto", "muscl", "spectral"):
        raise ConfigError(f"scheme: got {name!r}, allowed are auto, muscl, spectral; choose one of these")
    is_spectral = name == "spectral" or (name == "auto" and cells * nu >= RESOLVED)
    return Spectral(cells, nu) if is_spectral else FiniteVolume(cells, nu)


def solve(u0: Tensor, times: Sequence[float] | Tensor, nu: float, name: SchemeName = "auto") -> Tensor:
    """u (b, t, cells) float64 at `times`, the first of which is that of u0 (b, cells)."""
    return torch.stack(list(frames(scheme(name, u0.shape[-1], nu), u0, times)), 1)


def frames(
    scheme: Scheme, u0: Tensor, times: Sequence[float] | Tensor, lockstep: bool | None = None
) -> Iterator[Tensor]:
    """The field (b, cells) float64 at each of `times`, the first of which is that of u0.

    lockstep: whether all rows take the smallest step, together; by default where u0 is not on a CPU.

    Raises:
        ConfigError: the times do not increase.
        DataError: the solution is not finite.
    """
    moments = torch.as_tensor(times, dtype=torch.float64)
    if bool((moments.diff() <= 0).any()):
        raise ConfigError(f"times: got {moments.tolist()}, allowed are times that increase")
    u = u0.double()
    state = scheme.start(u)
    yield u
    for time, interval in zip(moments[1:].tolist(), moments.diff().tolist(), strict=True):
        needed = interval / scheme.longest_step(u)
        if not bool(needed.isfinite().all()):
            raise DataError(f"solution: not finite before t = {time:g}; use more cells, or scheme muscl")
        if u0.device.type != "cpu" if lockstep is None else lockstep:
            steps = max(math.ceil(needed.max()), 1)
            state = scheme.advance(state, interval / steps, steps)
        else:
            state = _advance(scheme, state, _groups(needed), interval)
        u = scheme.field(state)
        yield u


def _groups(needed: Tensor) -> dict[int, Tensor]:
    """Rows by the number of steps they take, at least the `needed` (b,)."""
    mantissa, exponent = torch.frexp(needed.ceil().clamp(min=1))
    rounded = torch.ldexp((mantissa * 2**SIGNIFICANT_BITS).ceil(), exponent - SIGNIFICANT_BITS).ceil().long()
    return {steps: (rounded == steps).nonzero().squeeze(1) for steps in sorted(set(rounded.tolist()))}


def _advance(scheme: Scheme, state: Tensor, groups: dict[int, Tensor], interval: float) -> Tensor:
    """The state one interval later; parts of a group that fit into a cache, each on a thread of its own."""
    size = max(CHUNK // scheme.cells, 1)
    parts = [(steps, part) for steps, rows in groups.items() for part in torch.split(rows, size)]
    parts.sort(key=lambda part: -part[0] * len(part[1]))
    after = torch.empty_like(state)

    def work(part: tuple[int, Tensor]) -> None:
        steps, rows = part
        after[rows] = scheme.advance(state[rows], interval / steps, steps)

    with _one_thread_each() as threads, ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, parts))
    return after


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Let every operation run on the thread that calls it; gives how many threads torch had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
