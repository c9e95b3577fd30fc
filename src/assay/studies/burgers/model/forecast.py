"""Fields to fields: encoder, latent operator and decoder as one network; open it to see how a rollout is made.

Under autocast the operator's change is computed in the short format, encoder and decoder are not: bfloat16 would round
every field by 0.4 %, more than a step's error, and again at every step of a rollout.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from assay.studies.burgers.model.autoencoder import Autoencoder
from assay.studies.burgers.model.operator import LatentOperator

Rollout = Literal["field", "latent"]


class Forecast(NamedTuple):
    """Frames 0 to K of B trajectories: frame 0 is the reconstruction of what was given."""

    fields: Tensor
    """(B, K + 1, cells), in the field's unit."""
    latents: Tensor
    """(B, K + 1, T, d); frame k > 0 as the operator left it."""


class Forecaster(nn.Module):
    """The operator between encoder and decoder.

    rollout: a step starts from the `field` that the last one gave, encoded anew, or from its `latent` state, which
        after many steps is unlike any that the encoder makes. conserve_mass: give every field the mean of the first,
        which the equation keeps.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        operator: LatentOperator,
        *,
        rollout: Rollout = "field",
        conserve_mass: bool = False,
    ) -> None:
        super().__init__()
        self.autoencoder = autoencoder
        self.operator = operator
        self.rollout: Rollout = rollout
        self.conserve_mass = conserve_mass

    def forward(self, u: Tensor, dt: Tensor, nu: Tensor | None = None, steps: int = 1) -> Forecast:
        """Fields (B, cells), time step in s (B,), viscosity (B,) or null: frames at 0, dt, ..., steps dt."""
        mean = u.mean(-1, keepdim=True)
        states = [self._encode(u)]
        fields = [self._decode(states[0], mean)]
        for step in range(steps):
            begin = self._encode(fields[-1]) if step and self.rollout == "field" else states[-1]
            states.append(self.operator(begin, dt, nu))
            fields.append(self._decode(states[-1], mean))
        return Forecast(torch.stack(fields, dim=1), torch.stack(states, dim=1))

    def _encode(self, u: Tensor) -> Tensor:
        with torch.autocast(u.device.type, enabled=False):
            return self.autoencoder.encode(u)

    def _decode(self, z: Tensor, mean: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            field = self.autoencoder.decode(z)
        return field - field.mean(-1, keepdim=True) + mean if self.conserve_mass else field
