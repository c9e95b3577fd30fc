"""A training stage with the real engine and a tiny task, and ways to make it fail; run as a script by the tests."""

import argparse
import sys
import time
from pathlib import Path

import torch
from tests.engine.conftest import BASE, LineTask
from torch import Tensor, nn

from assay import progress
from assay.config.load import build
from assay.engine.checkpoint import write_tensors
from assay.engine.config import TrainConfig
from assay.engine.session import checkpoint_folder, run_training
from assay.errors import AssayError


class SlowTask(LineTask):
    """Each step takes `pause` seconds; from step `bad_from` on the loss is NaN."""

    def __init__(self, pause: float, bad_from: int) -> None:
        super().__init__(dropout=0.2)
        self.pause, self.bad_from, self.calls = pause, bad_from, 0

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        time.sleep(self.pause)
        self.calls += 1
        scale = torch.nan if self.calls > self.bad_from else 1.0
        return {name: value * scale for name, value in super().loss(model, batch, rng).items()}


def main() -> int:
    """Train, say the verdict as the verb `stage` does, return its code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--bad-from", type=int, default=10**9)
    parser.add_argument("--identity", default="0123456789abcdef")
    parser.add_argument("--out", type=Path, default=Path("out"))
    given = parser.parse_args()
    progress.announce("toy", "train", identity=given.identity)
    config = build(TrainConfig, {**BASE, "steps": given.steps, "checkpoint_every": 5})
    try:
        task, checkpoints = SlowTask(given.pause, given.bad_from), checkpoint_folder("toy", given.identity)
        print("ready", flush=True)
        trained = run_training(task, config, 0, checkpoints, given.out / "log")
        write_tensors(given.out / "model.safetensors", {f"last.{k}": v for k, v in trained.last.items()}, {})
    except AssayError as error:
        print(f"assay: {error}", file=sys.stderr)
        progress.verdict(error.exit_code, str(error), type(error).__name__)
        return error.exit_code
    progress.verdict(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
