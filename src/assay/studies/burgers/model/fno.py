"""The Fourier neural operator as a baseline, from the package `neuraloperator`; open it to see what it is given."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import ConfigError
from assay.studies.burgers.model.blocks import decades


@dataclass(frozen=True, kw_only=True)
class FNOOptions:
    """A 1-D Fourier neural operator (Li et al. 2021, arXiv 2010.08895) that takes one frame and gives the next."""

    cells: int
    """Points of a field."""
    modes: int
    """Wave numbers that a layer mixes, 0 to modes - 1, at most cells / 2."""
    width: int
    """Channels."""
    layers: int
    """Fourier layers."""
    mean: float
    """Mean of the training fields, in the field's unit."""
    std: float
    """Standard deviation of the training fields, in the field's unit."""
    viscosity: bool = False
    """Whether log10 of the viscosity is an input."""
    residual: bool = True
    """Predict the change instead of the next field."""
    conserve_mass: bool = False
    """Give the next field the mean of the given one, which the equation keeps."""


class FNOBaseline(nn.Module):
    """u(t) to u(t + dt) in the field's own unit, equivariant to shifts: it is given no positions.

    The complex weights are trained as pairs of real ones, so that every optimiser and checkpoint takes them. Autocast
    does not reach it: there is no Fourier transform in bfloat16.

    Raises:
        ConfigError: `neuraloperator` is not installed, or `modes` is more than `cells` allow.
    """

    def __init__(self, options: FNOOptions) -> None:
        super().__init__()
        if not 1 <= options.modes <= options.cells // 2:
            raise ConfigError(
                f"modes: got {options.modes}; allowed: 1 to {options.cells // 2}, half of cells; lower it"
            )
        self.viscosity, self.residual = options.viscosity, options.residual
        self.conserve_mass = options.conserve_mass
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(options.mean))
        self.register_buffer("std", torch.tensor(options.std))
        self.network = _package().FNO(
            n_modes=(2 * (options.modes - 1),),  # counted on both sides of zero
            in_channels=3 if options.viscosity else 2,
            out_channels=1,
            hidden_channels=options.width,
            n_layers=options.layers,
            positional_embedding=None,
        )
        for layer in self.network.fno_blocks.convs:
            layer.weight = _Weight(layer.weight.tensor)
        self.register_state_dict_post_hook(_tensors_only)  # type: ignore[no-untyped-call]

    def forward(self, u: Tensor, dt: Tensor, nu: Tensor | None = None) -> Tensor:
        """Fields (B, cells), time step in s (B,), viscosity (B,), read only with `viscosity`: fields (B, cells)."""
        standardised = (u - self.mean) / self.std
        channels = [standardised, decades(dt)[:, None].expand_as(u)]
        if self.viscosity:
            if nu is None:
                raise ConfigError(
                    "viscosity: got true, but no viscosity to step with; allowed: one per sample; give nu"
                )
            channels.append(decades(nu)[:, None].expand_as(u))
        with torch.autocast(u.device.type, enabled=False):
            out: Tensor = self.network(torch.stack(channels, dim=1)).squeeze(1)
        following = u + self.std * out if self.residual else self.mean + self.std * out
        if self.conserve_mass:
            return following - (following - u).mean(-1, keepdim=True)
        return following


class _Weight(nn.Module):
    """A complex weight kept as real and imaginary parts (..., 2); the package's layers index it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.parts = nn.Parameter(torch.view_as_real(weight.detach()).clone())

    def __getitem__(self, index: tuple[slice, ...]) -> Tensor:
        return torch.view_as_complex(self.parts)[index]


def _tensors_only(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Mapping[str, Any]) -> None:
    """The package puts its constructor's arguments among the weights; a checkpoint holds tensors."""
    state.pop("_metadata", None)


def _package() -> Any:
    try:
        return importlib.import_module("neuralop.models")
    except ImportError as error:
        raise ConfigError(
            f"baseline: got fno, which needs the package neuraloperator ({error}); allowed without it: persistence, "
            "constant_mean, coarse_solver; make env has it, or pip install --no-deps neuraloperator"
        ) from error
