"""The latent operators `pdet_unet` and `pdet_stack`; open it to see how a latent state moves one step ahead.

Both predict a change that starts at exactly zero: an untrained operator is persistence.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.errors import ConfigError
from assay.studies.burgers.model.blocks import Condition, blocks, decades, token_norm
from assay.studies.burgers.model.options import OperatorOptions


class Stack(nn.Module):
    """Blocks at a constant number of tokens (B, T, H)."""

    def __init__(self, options: OperatorOptions, condition_dim: int | None) -> None:
        super().__init__()
        if len(options.depth) != 1:
            raise ConfigError(f"depth: got {list(options.depth)}; allowed: one number with pdet_stack; give e.g. [8]")
        self.blocks = nn.ModuleList(blocks(options, [options.tokens] * options.depth[0], condition_dim))

    def forward(self, x: Tensor, condition: Tensor | None, mask: Tensor | None) -> Tensor:
        for block in self.blocks:
            x = block(x, condition, mask)
        return x


class UNet(nn.Module):
    """Blocks at T, T/2, T/4, ... tokens and back, each level added to its mirror image (B, T, H)."""

    def __init__(self, options: OperatorOptions, condition_dim: int | None) -> None:
        super().__init__()
        *outer, middle = options.depth
        if options.tokens < 2 ** len(outer):
            allowed = f"at least {2 ** len(outer)} with {len(options.depth)} levels of depth"
            raise ConfigError(f"tokens: got {options.tokens}; allowed: {allowed}; use more tokens or fewer levels")
        self.lengths = [options.tokens]
        for _ in outer:
            self.lengths.append(-(-self.lengths[-1] // 2))
        depths = [*outer, middle, *reversed(outer)]
        lengths = [*self.lengths, *reversed(self.lengths[:-1])]
        made = iter(
            blocks(options, [n for n, depth in zip(lengths, depths, strict=True) for _ in range(depth)], condition_dim)
        )
        self.levels = nn.ModuleList(nn.ModuleList(next(made) for _ in range(depth)) for depth in depths)
        hidden = options.hidden_dim
        self.down = nn.ModuleList(nn.Linear(hidden, hidden) for _ in outer)
        self.skip = nn.ModuleList(nn.Linear(hidden, hidden) for _ in outer)

    def forward(self, x: Tensor, condition: Tensor | None, mask: Tensor | None) -> Tensor:
        if mask is not None:
            raise ConfigError("mask: got one with pdet_unet, which pools tokens; allowed: none; use pdet_stack")
        skips: list[Tensor] = []
        depth = len(self.down)
        for index, level in enumerate(self.levels):
            if index > depth:
                skipped = skips.pop()
                x = upsample(x, skipped.shape[1]) + self.skip[2 * depth - index](skipped)
            for block in level:  # type: ignore[attr-defined]
                x = block(x, condition)
            if index < depth:
                skips.append(x)
                x = self.down[index](halve(x))
        return x


def halve(x: Tensor) -> Tensor:
    """Averages of neighbouring tokens, (B, T, H) to (B, ceil(T / 2), H); an odd last one stands for itself."""
    if x.shape[1] % 2:
        x = torch.cat([x, x[:, -1:]], dim=1)
    return 0.5 * (x[:, ::2] + x[:, 1::2])


def upsample(x: Tensor, length: int) -> Tensor:
    """Linear interpolation on the circle at half-pixel centres, (B, T, H) to (B, length, H), length 2 T or 2 T - 1."""
    near = 0.75 * x
    doubled = torch.stack([near + 0.25 * x.roll(1, dims=1), near + 0.25 * x.roll(-1, dims=1)], dim=2)
    return doubled.flatten(1, 2)[:, :length]


class LatentOperator(nn.Module):
    """z(t) to z(t + dt) = z + gain f(z, dt, nu) + bias; gain and bias, per channel, start at 0.

    Raises `ConfigError` where counts do not divide, or an option is missing.
    """

    def __init__(self, options: OperatorOptions) -> None:
        super().__init__()
        latent, hidden = options.latent_dim, options.hidden_dim
        self.viscosity = options.viscosity
        self.condition = Condition(2 if options.viscosity else 1, latent)
        additive = options.conditioning == "additive"
        self.shift = nn.Linear(latent, latent) if additive else None
        same = latent == hidden and options.architecture == "pdet_stack"
        self.enter = nn.Identity() if same else nn.Linear(latent, hidden)
        core = UNet if options.architecture == "pdet_unet" else Stack
        self.core = core(options, None if additive else latent)
        self.norm = token_norm(options)
        self.leave = nn.Identity() if same else nn.Linear(hidden, latent)
        self.residual_norm = options.residual_norm
        self.gain = nn.Parameter(torch.zeros(latent))
        self.bias = nn.Parameter(torch.zeros(latent))

    def forward(self, z: Tensor, dt: Tensor, nu: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Latent states (B, T, d), time step in s (B,), viscosity (B,), mask (B, T): states (B, T, d).

        `nu` is the number in the file names, not the diffusion coefficient nu / pi; read only with `viscosity`.
        Tokens where `mask` is false influence no other (pdet_stack).
        """
        condition = self._embed(dt, nu)
        shifted = z if self.shift is None else z + self.shift(condition)[:, None, :]
        features = self.norm(self.core(self.enter(shifted), condition if self.shift is None else None, mask))
        change = self.leave(features)
        if self.residual_norm:
            change = functional.layer_norm(change, (change.shape[-1],))
        return z + torch.addcmul(self.bias, change, self.gain)

    def _embed(self, dt: Tensor, nu: Tensor | None) -> Tensor:
        if not self.viscosity:
            embedded: Tensor = self.condition(decades(dt)[:, None])
            return embedded
        if nu is None:
            raise ConfigError("viscosity: got true, but no viscosity to step with; allowed: one per sample; give nu")
        embedded = self.condition(torch.stack([decades(dt), decades(nu)], dim=1))
        return embedded
