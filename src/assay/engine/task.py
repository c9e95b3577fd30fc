"""What a study gives the engine: five members; open it before writing a new study.

The engine owns the loop, the optimiser, precision, ensembles, checkpoints and progress. A task knows none of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn

Batch = TypeVar("Batch")
Model = Callable[..., Any]
"""A network as the task sees it: called with the network's inputs, gives its outputs."""


@dataclass(frozen=True)
class Monitor:
    """The validation metric that picks the best checkpoint and ends training early."""

    metric: str
    direction: Literal["min", "max"]

    def better(self, new: float, old: float) -> bool:
        """Whether `new` improves on `old`; NaN never does."""
        return new < old if self.direction == "min" else new > old

    @property
    def worst(self) -> float:
        """What any finite value improves on."""
        return float("inf") if self.direction == "min" else float("-inf")


@dataclass(frozen=True)
class Evaluation:
    """Result of a validation: named metrics, and per-sample scores with the samples' keys where there are some."""

    metrics: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Task(Protocol[Batch]):
    """A thing to be learnt: model, data, objective and judge.

    Rules: `batches` is a pure function of the task's seed and the cursor, so that resuming needs no loader state and
    the number of workers changes nothing. `loss` runs under `torch.func.vmap` when an ensemble is trained: no
    in-place change of its inputs, no branch on tensor values. `evaluate` is deterministic.
    """

    @property
    def samples_per_epoch(self) -> int:
        """Training samples in one epoch."""
        ...

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each loss term; a term with a positive weight must reach a trained parameter."""
        ...

    @property
    def monitor(self) -> Monitor:
        """The metric of `evaluate` that decides."""
        ...

    def build(self) -> nn.Module:
        """A new network; called after seeding, draws its initial weights from torch's global generator."""
        ...

    def batches(self, cursor: int) -> Iterator[Batch]:
        """Endless training batches, on the device, from batch number `cursor` on (counted from 0 at the start)."""
        ...

    def loss(self, model: Model, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Named scalar terms, not yet weighted; `rng` is keyed by seed and step."""
        ...

    def evaluate(self, model: Model) -> Evaluation:
        """Validation metrics of a network; also called on the untrained one."""
        ...
