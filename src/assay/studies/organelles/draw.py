"""Random numbers of the generator, all from one torch generator; open it to see which distributions are drawn from."""

import torch
from torch import Tensor


class Draw:
    """Draws of one crop, in the order in which they are asked for."""

    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng

    def number(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * float(torch.rand((), generator=self.rng))

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return self.number(0.0, 1.0) < probability

    def poisson(self, mean: float) -> int:
        """A whole number with this mean."""
        return int(torch.poisson(torch.tensor(float(mean)), generator=self.rng))

    def whole(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.rng))

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.rng)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(shape, generator=self.rng)

    def below(self, limit: int, count: int) -> Tensor:
        """`count` whole numbers from 0 to limit - 1."""
        return torch.randint(limit, (count,), generator=self.rng)

    def direction(self) -> Tensor:
        """A unit vector (3,), any direction alike."""
        vector = self.normal(3)
        return vector / vector.square().sum().sqrt().clamp_min(1e-6)
