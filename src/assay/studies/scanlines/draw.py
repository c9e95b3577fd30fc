"""Random numbers of the generator, all from one torch generator; open it to see which distributions are drawn from."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Draw:
    """Draws of one block of images, in the order in which they are asked for."""

    def __init__(self, rng: torch.Generator) -> None:
        self.rng = rng

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform in [low, high)."""
        return torch.empty(shape, device=self.rng.device).uniform_(low, high, generator=self.rng)

    def normal(self, sd: float, *shape: int) -> Tensor:
        """Normal around zero."""
        return torch.empty(shape, device=self.rng.device).normal_(0.0, sd, generator=self.rng)

    def chance(self, probability: float, *shape: int) -> Tensor:
        """True with a probability."""
        return self.uniform(0.0, 1.0, *shape) < probability

    def whole(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from low to high, both included."""
        return torch.randint(low, high + 1, shape, device=self.rng.device, generator=self.rng)

    def choice(self, weights: Sequence[float], count: int) -> Tensor:
        """Indices with probabilities proportional to `weights`."""
        given = torch.tensor(weights, dtype=torch.float32, device=self.rng.device)
        return torch.multinomial(given, count, replacement=True, generator=self.rng)

    def poisson(self, rate: Tensor) -> Tensor:
        """Whole numbers with these means."""
        return torch.poisson(rate, generator=self.rng).long()
