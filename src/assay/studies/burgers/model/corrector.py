"""The network behind the diffusion corrector; open it to see what it is told. The process itself is in diffusion.py."""

import torch
from torch import Tensor, nn

from assay.studies.burgers.model.blocks import Condition, Positions, blocks, token_norm
from assay.studies.burgers.model.options import CorrectorOptions, divide

CHANNELS = 3  # the noisy residual, the operator's prediction, the field it started from


class Corrector(nn.Module):
    """Velocity of a flow from noise to an operator's standardised one-step error; starts as the zero map.

    A diffusion transformer (Peebles and Xie 2022, arXiv 2212.09748) on patches of the three fields, so that it can
    learn errors with a shape in space. Raises `ConfigError` where counts do not divide.
    """

    def __init__(self, options: CorrectorOptions) -> None:
        super().__init__()
        hidden, frequencies = options.hidden_dim, options.position_frequencies
        self.patch = divide(options.cells, options.tokens, "tokens", "cells")
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(options.mean))
        self.register_buffer("std", torch.tensor(options.std))
        self.embed = nn.Linear(CHANNELS * self.patch, hidden)
        self.positions = Positions(options.tokens, hidden, frequencies) if frequencies else nn.Identity()
        self.condition = Condition(1, hidden)
        self.blocks = nn.ModuleList(blocks(options, [options.tokens] * options.depth, hidden))
        self.norm = token_norm(options)
        self.read = nn.Linear(hidden, self.patch)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)

    def forward(self, x: Tensor, s: Tensor, predicted: Tensor, start: Tensor) -> Tensor:
        """Noisy residual x (B, cells), its time s (B,) in [0, 1], fields in their own unit (B, cells): (B, cells)."""
        fields = [x, (predicted - self.mean) / self.std, (start - self.mean) / self.std]
        patches = torch.stack([field.view(len(x), -1, self.patch) for field in fields], dim=2)
        tokens, condition = self.positions(self.embed(patches.flatten(2))), self.condition(s[:, None])
        for block in self.blocks:
            tokens = block(tokens, condition)
        velocity: Tensor = self.read(self.norm(tokens))
        return velocity.flatten(1)
