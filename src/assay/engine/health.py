"""Refusal of NaN and Inf, without a wait for the GPU at every step; open it when a run ends with NonFiniteError."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from assay.errors import NonFiniteError

GRADIENT = "gradient"
"""Name of the gradient norms; a bad one is traced to its parameter where that is still possible."""


class Health:
    """Remembers, on the device, the first step at which each watched value of each member was not finite."""

    def __init__(self, device: torch.device, parameters: Mapping[str, nn.Parameter]) -> None:
        self.device, self.parameters = device, parameters
        self.names: list[str] = []
        self.first: Tensor | None = None

    def watch(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Note non-finite values, each (K,); on a CPU refuse them at once, before they reach the weights."""
        healthy = torch.isfinite(torch.stack([value.detach() for value in values.values()]))
        if self.first is None:
            self.names = list(values)
            self.first = torch.full_like(healthy, -1, dtype=torch.int64)
        self.first = torch.where((self.first < 0) & ~healthy, step, self.first)
        if self.device.type == "cpu":
            self.check()

    def check(self) -> None:
        """Raise NonFiniteError for the earliest bad value; waits for the device."""
        if self.first is None or bool((self.first < 0).all()):
            return
        first = torch.where(self.first < 0, torch.iinfo(torch.int64).max, self.first)
        row, member = divmod(int(first.argmin()), first.shape[1])
        name = self.names[row] if self.names[row] != GRADIENT else self._bad_gradient()
        where = f"step {int(first[row, member])}: {name} of member {member}"
        raise NonFiniteError(f"train: {where} is not finite; lower train.optimizer.lr, or set train.clip_norm")

    def _bad_gradient(self) -> str:
        gradients = ((name, parameter.grad) for name, parameter in self.parameters.items())
        bad = (name for name, gradient in gradients if gradient is not None and not gradient.isfinite().all())
        return f"{GRADIENT} of {next(bad, 'some parameter')}"
