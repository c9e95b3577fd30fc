"""Random numbers by key instead of by history: the same (seed, purpose, index) always gives the same draw.

Open it when two runs that should be equal are not.
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def derive(*key: int | str) -> int:
    """A 63-bit seed from a key such as (seed, "noise", epoch, index); equal keys give equal seeds on any machine."""
    text = "\x1f".join(str(part) for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def generator(*key: int | str, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` in the state that belongs to `key`."""
    return torch.Generator(device=device).manual_seed(derive(*key))


class DataOrder:
    """The order in which samples are drawn: one permutation per epoch, a function of (seed, epoch) alone.

    Epochs are laid end to end, so every batch is full and position p belongs to epoch p // samples.
    """

    def __init__(self, seed: int, samples: Sequence[int]) -> None:
        self.seed = seed
        self.samples = torch.as_tensor(samples)
        self._permutation = lru_cache(maxsize=2)(self._draw)

    def _draw(self, epoch: int) -> Tensor:
        shuffled = torch.randperm(len(self.samples), generator=generator(self.seed, "order", epoch))
        return self.samples[shuffled]

    def at(self, position: int, count: int) -> list[tuple[int, int]]:
        """(epoch, sample) of `count` positions from `position` on."""
        total = len(self.samples)
        places = [divmod(place, total) for place in range(position, position + count)]
        return [(epoch, int(self._permutation(epoch)[offset])) for epoch, offset in places]
