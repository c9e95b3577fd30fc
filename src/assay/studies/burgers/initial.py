"""Random initial conditions of the Burgers data; open it for what is drawn and with which odds.

The distribution is that of the published PDEBench files as their code draws it: two of the wave numbers 1 to 4, with
replacement, so that one drawn twice counts double (up to 8) and one not drawn contributes a constant; then an absolute
value, a sign and a window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from assay.engine.random import generator

WAVES = 4
DRAWN = 2  # wave numbers drawn for each sample
ABSOLUTE, FLIPPED, WINDOWED = 0.1, 0.5, 0.1  # probabilities
LEFT, RIGHT = (0.1, 0.45), (0.55, 0.9)  # where the window opens and closes
EDGE = 0.01  # width of its edges
BLOCK = 128  # samples drawn from one key: sample i is the same whatever the size of the set


@dataclass(frozen=True, kw_only=True)
class InitialConditions:
    """Draws of n samples. waves, amplitude, phase (n, 4) for wave numbers 1 to 4; the others (n,).

    waves: how often each wave number was drawn. sign: 1 or -1. left, right: edges of the window, -inf and inf where
    there is none.
    """

    waves: Tensor
    amplitude: Tensor
    phase: Tensor
    absolute: Tensor
    sign: Tensor
    left: Tensor
    right: Tensor

    def __len__(self) -> int:
        return len(self.sign)

    def take(self, rows: slice | Tensor) -> "InitialConditions":
        """Some of the samples."""
        return InitialConditions(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def sample(self, x: Tensor, exact_period: bool = True) -> Tensor:
        """u0 (n, cells) float64 at the cell centres x (cells,).

        With `exact_period` false the waves have the period x[-1] - x[0], one cell too short, as in the published
        files: a jump of up to 0.05 where the domain closes.
        """
        period = 1.0 if exact_period else float(x[-1] - x[0])
        number = self.waves * torch.arange(1, WAVES + 1, dtype=torch.float64, device=x.device)
        wave = 2 * math.pi / period * number
        u = (self.amplitude[..., None] * torch.sin(wave[..., None] * x + self.phase[..., None])).sum(1)
        u = torch.where(self.absolute[:, None], u.abs(), u) * self.sign[:, None]
        opening, closing = ((x - edge[:, None]) / EDGE for edge in (self.left, self.right))
        return u * (opening.tanh() - closing.tanh()) / 2


def draw_initial(count: int, random: torch.Generator) -> InitialConditions:
    """Draw `count` samples, on the generator's device."""
    unit = torch.rand(count, DRAWN + 2 * WAVES + 5, generator=random, device=random.device, dtype=torch.float64)
    picked, amplitude, phase, choices = torch.split(unit, [DRAWN, WAVES, WAVES, 5], 1)
    windowed = choices[:, 2] < WINDOWED
    left, right = (low + (high - low) * choices[:, i] for i, (low, high) in ((3, LEFT), (4, RIGHT)))
    return InitialConditions(
        waves=torch.nn.functional.one_hot((picked * WAVES).long(), WAVES).sum(1),
        amplitude=amplitude,
        phase=2 * math.pi * phase,
        absolute=choices[:, 0] < ABSOLUTE,
        sign=torch.where(choices[:, 1] < FLIPPED, -1.0, 1.0).double(),
        left=torch.where(windowed, left, -math.inf),
        right=torch.where(windowed, right, math.inf),
    )


def initial_conditions(seed: int, rows: Sequence[int]) -> InitialConditions:
    """The samples numbered `rows` of a seed; number i is a function of (seed, i) alone. On the CPU."""
    blocks = {row // BLOCK: None for row in rows}
    drawn = {block: draw_initial(BLOCK, generator(seed, "initial conditions", block)) for block in blocks}
    names = [field.name for field in fields(InitialConditions)]
    return InitialConditions(
        **{name: torch.stack([getattr(drawn[i // BLOCK], name)[i % BLOCK] for i in rows]) for name in names}
    )
