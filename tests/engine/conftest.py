"""A small task with every feature the engine offers: dropout (global RNG), noise by key, two loss terms."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.config.load import build
from assay.engine.checkpoint import CheckpointFolder
from assay.engine.config import TrainConfig
from assay.engine.log import TrainingLog
from assay.engine.random import DataOrder, generator
from assay.engine.stop import StopRequest
from assay.engine.task import Evaluation, Model, Monitor
from assay.engine.train import Trained, train

BASE: dict[str, Any] = {
    "steps": 12,
    "epochs": None,
    "batch_size": 4,
    "accumulate": 1,
    "ensemble_size": 1,
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01, "betas": [0.9, 0.99], "momentum": None},
    "schedule": {
        "name": "onecycle",
        "warmup_fraction": 0.3,
        "initial_division": 25,
        "final_division": 100,
        "lowest_momentum": None,
        "plateau_factor": None,
        "plateau_patience": None,
    },
    "clip_norm": 1.0,
    "ema_decay": None,
    "precision": "fp32",
    "tf32": False,
    "compile": "none",
    "validate_every": 4,
    "patience": None,
    "log_every": 1,
    "checkpoint_every": 3,
    "device": "cpu",
}


class LineTask:
    """Learn y = 2x + 1 (first output) and y = -x (second output) from 10 noisy points."""

    samples_per_epoch = 10
    monitor = Monitor("loss", "min")

    def __init__(self, seed: int = 0, batch_size: int = 4, dropout: float = 0.0) -> None:
        self.seed, self.batch_size, self.dropout = seed, batch_size, dropout
        self.weights = {"first": 1.0, "second": 0.5}
        self.order = DataOrder(seed, range(10))
        self.x = torch.linspace(-1, 1, 10)

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Dropout(self.dropout), nn.Linear(8, 2))

    def batches(self, cursor: int) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            keys = self.order.at(cursor * self.batch_size, self.batch_size)
            x = torch.stack([self.x[index] for _, index in keys])[:, None]
            noise = torch.stack([torch.randn(2, generator=generator(self.seed, "noise", *key)) for key in keys])
            yield x, torch.cat([2 * x + 1, -x], dim=1) + 0.01 * noise
            cursor += 1

    def loss(self, model: Model, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        x, y = batch
        error = (model(x) - y).square().mean(dim=0)
        return {"first": error[0], "second": error[1]}

    def evaluate(self, model: Model) -> Evaluation:
        x = self.x[:, None]
        error = (model(x) - torch.cat([2 * x + 1, -x], dim=1)).square().mean()
        return Evaluation({"loss": float(error)})


class StopAt(StopRequest):
    """A stop request that arrives after a number of looks: one before each step, one before each validation.

    With a validation every 4 steps the looks are at 0 1 2 3 and (4), 4 5 6 7 and (8), 8 9 10 11 and (12).
    """

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    @property
    def requested(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def run(task, config, folder: Path, stop: StopRequest | None = None, seed: int = 0) -> Trained:
    """Train, or go on, with checkpoints in a folder."""
    return train(task, config, seed, CheckpointFolder(folder, "run"), TrainingLog(None), stop or StopRequest())


@pytest.fixture
def task() -> LineTask:
    return LineTask()


@pytest.fixture
def make_task() -> type[LineTask]:
    return LineTask


@pytest.fixture
def make_config() -> Callable[..., TrainConfig]:
    """A valid training config; keywords replace top-level keys, nested ones as `optimizer={...}`."""

    def make(**changes: Any) -> TrainConfig:
        merged = {
            key: {**value, **changes[key]} if isinstance(value, dict) and key in changes else changes.get(key, value)
            for key, value in BASE.items()
        }
        return build(TrainConfig, merged)

    return make
