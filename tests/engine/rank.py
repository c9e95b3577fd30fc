"""One of several ranks that train together: what test_distributed.py asks of them, one scenario after the other.

Run as a script, with torchrun's variables, once for each rank; every scenario leaves what it found in its own file.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from tests.engine.conftest import BASE, LineTask
from torch import Tensor, nn

from assay.config.load import build
from assay.engine.checkpoint import CheckpointFolder, write_tensors
from assay.engine.config import TrainConfig
from assay.engine.distributed import Group, join, total
from assay.engine.log import TrainingLog
from assay.engine.state import TrainState
from assay.engine.stop import StopRequest
from assay.engine.task import Model
from assay.engine.train import Trained, backpropagate, train
from assay.errors import AssayError

BATCH = 4
BAD_STEP = 5


class SharedTask(LineTask):
    """The line, each rank with its part of every batch; the first term is of the whole batch, as pooled losses are."""

    def __init__(self, group: Group, **given: Any) -> None:
        super().__init__(**given)
        self.group, self.part = group, group.share.of(BATCH)
        self.seen: list[float] = []

    def batches(self, cursor: int) -> Iterator[tuple[Tensor, Tensor]]:
        first = self.group.rank * self.part
        for x, y in super().batches(cursor):
            self.seen += x[first : first + self.part].flatten().tolist()
            yield x[first : first + self.part], y[first : first + self.part]

    def loss(self, model: Model, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        x, y = batch
        error = (model(x) - y).square()
        pooled = total(error[:, 0].sum(), self.group) / BATCH
        return {"first": (1 + pooled).log(), "second": error[:, 1].mean()}


class NormedTask(SharedTask):
    """The same with batch norm."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2))


class UnusedTask(SharedTask):
    """The same with a parameter that nothing depends on."""

    def build(self) -> nn.Module:
        network = super().build()
        network.register_parameter("idle", nn.Parameter(torch.zeros(3)))
        return network


class DriftingTask(SharedTask):
    """The same with a buffer that each rank fills from its own samples."""

    def build(self) -> nn.Module:
        self.network = super().build()
        self.network.register_buffer("latest", torch.zeros(()))
        return self.network

    def loss(self, model: Model, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        self.network.latest.copy_(batch[0].mean())
        return super().loss(model, batch, rng)


class BadTask(SharedTask):
    """The loss becomes NaN, on rank 1 alone."""

    def loss(self, model: Model, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        self.calls = getattr(self, "calls", 0) + 1
        terms = super().loss(model, batch, rng)
        bad = self.group.rank == 1 and self.calls > BAD_STEP
        return terms | {"second": terms["second"] * (torch.nan if bad else 1.0)}


class StopAt(StopRequest):
    """A request to stop that only rank 1 hears, before this step."""

    def __init__(self, group: Group, step: int) -> None:
        super().__init__()
        self.left = step if group.rank == 1 else 10**9

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left < 0


def make(**changes: Any) -> TrainConfig:
    """A config as in conftest.py."""
    merged = {key: {**value, **changes[key]} if isinstance(value, dict) and key in changes else changes.get(key, value)
              for key, value in BASE.items()}  # fmt: skip
    return build(TrainConfig, merged)


def fit(task: SharedTask, config: TrainConfig, folder: Path, stop: StopRequest | None = None) -> Trained:
    """Train, in a folder of checkpoints."""
    checkpoints = CheckpointFolder(folder, "run")
    return train(task, config, 0, checkpoints, TrainingLog(None), stop or StopRequest(), task.group)


def gradients(task: SharedTask, config: TrainConfig) -> dict[str, Tensor]:
    """The gradient of every parameter after one step's backward passes."""
    state = TrainState(task, config, 0, task.group.device, task.group)
    state.ensemble.share(task.group)
    backpropagate(state, task, state.ensemble.loss, task.batches(0), 0)
    buffers = {f"buffer/{name}": value for name, value in state.ensemble.module.named_buffers()}
    return {name: one.grad for name, one in state.ensemble.parameters.items() if one.grad is not None} | buffers


def refused(attempt: Callable[[], object]) -> str:
    """What an error that is expected says."""
    try:
        attempt()
    except AssayError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def scenarios(group: Group, out: Path) -> dict[str, Callable[[], Any]]:
    """What can be asked for; tensors go into a file of this rank's."""

    def keep(name: str, tensors: dict[str, Tensor]) -> None:
        write_tensors(out / f"{name}-{group.rank}.safetensors", tensors, {})

    def gradient() -> list[float]:
        task = SharedTask(group)
        keep("gradient", gradients(task, make(accumulate=3)))
        keep("normed", gradients(NormedTask(group), make()))
        return task.seen

    def whole() -> list[dict[str, float]]:
        trained = fit(SharedTask(group), make(ema_decay=0.9, accumulate=2), out / "whole")
        keep("whole", trained.last)
        return trained.rows

    def parts() -> list[str]:
        def attempt(looks: int) -> Callable[[], Trained]:
            stop = StopAt(group, looks)
            return lambda: fit(SharedTask(group, dropout=0.5), make(), out / "parts", stop)

        keep("undisturbed", fit(SharedTask(group, dropout=0.5), make(), out / "undisturbed").last)
        said = [refused(attempt(7))]
        torch.rand(5)
        keep("parts", attempt(10**9)().last)
        return said

    def left() -> str:
        return refused(lambda: fit(SharedTask(group), make(), out / "left", StopAt(group, 7)))

    def goes_on() -> str:
        return refused(lambda: fit(SharedTask(group), make(), out / "left"))

    def patience() -> tuple[int, list[int]]:
        flat = {"name": "constant", "warmup_fraction": None, "initial_division": None, "final_division": None}
        config = make(steps=100, validate_every=1, patience=2, optimizer={"lr": 0.5}, schedule=flat)
        trained = fit(SharedTask(group), config, out / "patience")
        return trained.steps, trained.best_step

    def bad() -> list[str]:
        return [
            refused(lambda: fit(BadTask(group), make(log_every=3), out / "bad")),
            refused(lambda: fit(UnusedTask(group), make(), out / "unused")),
            refused(lambda: fit(SharedTask(group), make(ensemble_size=2), out / "ensemble")),
            refused(lambda: fit(DriftingTask(group), make(), out / "drifting")),
        ]

    return {one.__name__: one for one in (gradient, whole, parts, left, goes_on, patience, bad)}


def main(out: Path, *wanted: str) -> None:
    """Run the scenarios wanted, in that order."""
    torch.set_num_threads(1)
    group = join("cpu")
    known = scenarios(group, out)
    found = {name: known[name]() for name in wanted}
    (out / f"{group.world}-{group.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
