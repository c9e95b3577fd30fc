"""Training samples: short windows of trajectories, in an order that seed and position alone decide.

Open it to see what a batch holds. The training trajectories lie whole on the device, a batch is one gather.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.random import DataOrder, derive, generator
from assay.studies.burgers.sections import AugmentationConfig, DataConfig
from assay.studies.burgers.trajectories import Trajectories


class Window(NamedTuple):
    """Fields (B, frames, cells), a model's step apart; time step dt (B,); viscosity nu (B,)."""

    fields: Tensor
    dt: Tensor
    nu: Tensor


class Windows:
    """Windows of `frames` frames from the trajectories of one split, every viscosity and every stored start."""

    def __init__(self, trajectories: Trajectories, data: DataConfig, split: str, frames: int, device: torch.device):
        self.viscosities, self.dt, self.frames = data.viscosities, data.dt, frames
        shape = (len(data.viscosities), len(trajectories.splits[split]), data.frames, data.cells)
        self.u = torch.empty(shape, device=device)
        for place, nu in enumerate(data.viscosities):  # one at a time: the host never holds a second copy of all
            self.u[place] = trajectories.split(split, nu)
        self.stride, self.starts = data.stride, data.frames - (frames - 1) * data.stride
        self.numbers = self.u.shape[0] * self.u.shape[1] * self.starts

    def window(self, numbers: Tensor) -> Window:
        """The windows of these numbers, (B,) in [0, numbers)."""
        numbers = numbers.to(self.u.device)
        rest, start = numbers // self.starts, numbers % self.starts
        viscosity, row = rest // self.u.shape[1], rest % self.u.shape[1]
        frames = start[:, None] + self.stride * torch.arange(self.frames, device=self.u.device)
        fields = self.u[viscosity[:, None], row[:, None], frames]
        nu = torch.tensor(self.viscosities, device=self.u.device, dtype=fields.dtype)[viscosity]
        return Window(fields, torch.full_like(nu, self.dt), nu)

    def batches(self, seed: int, cursor: int, size: int, augmentation: AugmentationConfig) -> Iterator[Window]:
        """Endless batches of `size` windows from batch `cursor` on."""
        order = DataOrder(derive(seed, "data"), range(self.numbers))
        while True:
            numbers = torch.tensor([sample for _, sample in order.at(cursor * size, size)])
            yield augment(self.window(numbers), augmentation, generator(seed, "augment", cursor))
            cursor += 1


def augment(window: Window, augmentation: AugmentationConfig, rng: torch.Generator) -> Window:
    """Each sample turned by a random number of cells, and mirrored together with its sign, with probability 0.5."""
    u = window.fields
    size, cells = len(u), u.shape[-1]
    if augmentation.shifts:
        shift = torch.randint(cells, (size, 1), generator=rng).to(u.device)
        index = (torch.arange(cells, device=u.device) + shift) % cells
        u = u.gather(-1, index[:, None, :].expand_as(u))
    if augmentation.reflections:
        mirrored = (torch.rand(size, generator=rng) < 0.5).to(u.device)
        u = torch.where(mirrored[:, None, None], -u.flip(-1), u)
    return window._replace(fields=u)
