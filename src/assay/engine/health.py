"""Refusal of NaN and Inf, without a wait for the GPU at every step; open it when a run ends with NonFiniteError."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from assay.engine.distributed import Group, gathered
from assay.errors import NonFiniteError

GRADIENT = "gradient"
"""Name of the gradient norms; a bad one is traced to its parameter where that is still possible."""
MOST_SKIPPED = 100
"""Steps in a row that loss scaling may leave out: from its start at 2**16 it has then come down to 2**-84."""


class Health:
    """Remembers, on the device, the first step at which each watched value of each member was not finite.

    With a scaled loss (fp16) a step whose gradient is not finite is left out and the scale lowered: these are counted.
    Of several ranks each remembers its own, and `check`, which all must call at the same step, tells all of the first.
    """

    def __init__(
        self,
        device: torch.device,
        parameters: Mapping[str, nn.Parameter],
        scaled: bool = False,
        group: Group | None = None,
    ) -> None:
        self.device, self.parameters, self.scaled = device, parameters, scaled
        self.group = group or Group.alone(device)
        self.skipped = self.most_skipped = torch.zeros((), dtype=torch.int64, device=device)
        self.names: list[str] = []
        self.first: Tensor | None = None

    def watch(self, step: int, terms: Mapping[str, Tensor], norms: Tensor) -> None:
        """Note non-finite terms and gradient norms, each (K,).

        On a CPU they are refused before they reach the weights; among several ranks at the next `check`.
        """
        values = dict(terms) if self.scaled else {**terms, GRADIENT: norms}
        if self.scaled:
            self.skipped = torch.where(torch.isfinite(norms).all(), 0, self.skipped + 1)
            self.most_skipped = torch.maximum(self.most_skipped, self.skipped)
        healthy = torch.isfinite(torch.stack([value.detach() for value in values.values()]))
        if self.first is None:
            self.names = list(values)
            self.first = torch.full_like(healthy, -1, dtype=torch.int64)
        self.first = torch.where((self.first < 0) & ~healthy, step, self.first)
        if self.device.type == "cpu" and self.group.world == 1:
            self.check()

    def check(self) -> None:
        """Raise NonFiniteError for the earliest bad value, or too many steps left out; waits for the device."""
        if self.scaled and int(self.most_skipped) >= MOST_SKIPPED:
            what = f"train: {MOST_SKIPPED} steps in a row were left out, their gradients are not finite in fp16"
            raise NonFiniteError(f"{what}; set train.precision: bf16, or lower train.optimizer.lr")
        if self.first is None:
            return
        of_ranks = torch.stack([*gathered(self.first.cpu(), self.group)], dim=-1)  # (value, member, rank)
        if bool((of_ranks < 0).all()):
            return
        first = torch.where(of_ranks < 0, torch.iinfo(torch.int64).max, of_ranks)
        row, member, rank = (int(place) for place in torch.unravel_index(first.argmin(), first.shape))
        name = self.names[row] if self.names[row] != GRADIENT else self._bad_gradient()
        which = f"member {member}" if self.group.world == 1 else f"rank {rank}"
        where = f"step {int(first[row, member, rank])}: {name} of {which}"
        raise NonFiniteError(f"train: {where} is not finite; lower train.optimizer.lr, or set train.clip_norm")

    def _bad_gradient(self) -> str:
        gradients = ((name, parameter.grad) for name, parameter in self.parameters.items())
        bad = (name for name, gradient in gradients if gradient is not None and not gradient.isfinite().all())
        return f"{GRADIENT} of {next(bad, 'some parameter')}"
