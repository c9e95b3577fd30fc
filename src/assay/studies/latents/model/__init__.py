"""The latent model: encode activity, evolve the latent state, decode; open it to change what is learnt."""

from dataclasses import asdict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from assay.studies.latents.model.networks import l1, last_layer, network
from assay.studies.latents.sections import ModelConfig

__all__ = ["Forecast", "LatentModel", "build", "parameter_count"]


class Forecast(NamedTuple):
    """What a model makes of activity x (B, N).

    reconstruction: (B, N), x encoded and decoded. predictions: (B, H, N), at the H steps asked for. update: mean
    absolute change of the latent state in a step. l1: (3,), of encoder, evolver and decoder.
    """

    reconstruction: Tensor
    predictions: Tensor
    update: Tensor
    l1: Tensor


class LatentModel(nn.Module):
    """z = encoder(x); z <- z + evolver([z; s]) at each time step, s its encoded stimulus; x = decoder(z)."""

    def __init__(self, config: ModelConfig, neurons: int, stimulus_channels: int | None) -> None:
        super().__init__()
        latent, seen = config.latent_dim, config.stimulus_dim or 0
        inner = asdict(config.autoencoder) | {"batch_norm": config.batch_norm}
        self.latent_dim = latent
        self.encoder = network(neurons, latent, **inner)
        self.decoder = network(latent, neurons, **inner)
        self.stimulus_encoder = None
        if stimulus_channels is not None:
            self.stimulus_encoder = network(stimulus_channels, seen, **asdict(config.stimulus))
        width = latent + seen if config.stimulus_state else latent
        evolver = asdict(config.evolver) | {"batch_norm": config.batch_norm}
        self.evolver = network(latent + seen, width, **evolver)
        self.normalised = config.batch_norm
        if config.zero_init:
            nn.init.zeros_(last_layer(self.evolver).weight)
            nn.init.zeros_(last_layer(self.evolver).bias)

    def encode(self, x: Tensor) -> Tensor:
        """The latent state (B, L) of activity (B, N)."""
        z: Tensor = self.encoder(x)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """Activity (B, N) of latent states (B, L)."""
        x: Tensor = self.decoder(z)
        return x

    def update(self, z: Tensor, stimulus: Tensor | None) -> Tensor:
        """The change (B, L) of latent states in one time step with stimulus (B, C)."""
        seen = z if self.stimulus_encoder is None else torch.cat([z, self.stimulus_encoder(stimulus)], dim=-1)
        change: Tensor = self.evolver(seen)
        return change[:, : self.latent_dim]

    def forward(self, x: Tensor, stimulus: Tensor | None, steps: tuple[int, ...], penalised: bool = False) -> Forecast:
        """The forecast at `steps` time steps ahead, increasing, with stimulus (B, max(steps), C) from now on.

        penalised: with `l1`, which is zero otherwise.
        """
        z = start = self.encode(x)
        states, changes = [], []
        for step in range(steps[-1]):
            change = self.update(z, None if stimulus is None else stimulus[:, step])
            z = z + change
            changes.append(change.abs().mean())
            if step + 1 in steps:
                states.append(z)
        if self.normalised:  # as published: each call has batch statistics of its own
            decoded = [self.decode(state) for state in (start, *states)]
        else:
            decoded = list(self.decode(torch.cat([start, *states])).chunk(len(states) + 1))
        parts = (self.encoder, self.evolver, self.decoder)
        penalties = torch.stack([l1(part) for part in parts]) if penalised else x.new_zeros(len(parts))
        return Forecast(decoded[0], torch.stack(decoded[1:], dim=1), torch.stack(changes).mean(), penalties)


def build(config: ModelConfig, neurons: int, stimulus_channels: int | None) -> LatentModel:
    """A fresh model for recordings of `neurons`, with a stimulus of so many channels, or without one."""
    return LatentModel(config, neurons, stimulus_channels)


def parameter_count(module: nn.Module) -> int:
    """Trained numbers."""
    return sum(parameter.numel() for parameter in module.parameters())
