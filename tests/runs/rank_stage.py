"""A training stage of several ranks, with the real engine and a tiny task, and ways to make one of them fail.

Run as a script: it starts its own ranks, as `assay stage STUDY train` does where ASSAY_PROCESSES says how many.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from tests.engine.rank import SharedTask, make
from torch import Tensor, nn

from assay import progress
from assay.__main__ import leave
from assay.engine.checkpoint import write_tensors
from assay.engine.distributed import Group, join
from assay.engine.session import checkpoint_folder, run_training
from assay.errors import AssayError
from assay.runs.nodes import launch


class SlowTask(SharedTask):
    """Each step takes `pause` seconds; on rank 1 something may happen at step `at`."""

    def __init__(self, group: Group, given: argparse.Namespace) -> None:
        super().__init__(group, dropout=0.2)
        self.given, self.calls = given, 0

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        time.sleep(self.given.pause)
        self.calls += 1
        if self.calls > self.given.at and self.group.rank == 1:
            self.read_what_nobody_writes()
        return super().loss(model, batch, rng)

    def read_what_nobody_writes(self) -> None:
        """The stall: a named pipe."""
        os.mkfifo("fifo")
        Path("fifo").read_text()


def train(given: argparse.Namespace) -> None:
    """What a study's stage does."""
    torch.set_num_threads(1)
    group = join("cpu")
    task, checkpoints = SlowTask(group, given), checkpoint_folder("toy", "0123456789abcdef")
    config = make(steps=given.steps, checkpoint_every=5, validate_every=50)
    print(f"rank {group.rank} is process {os.getpid()}", flush=True)
    trained = run_training(task, config, 0, checkpoints, given.out / "log", group)
    if group.leads:
        write_tensors(given.out / "model.safetensors", {f"last.{k}": v for k, v in trained.last.items()}, {})


def main() -> int:
    """Train, say the verdict as the verb `stage` does, return its code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--at", type=int, default=10**9)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--processes", type=int)
    given = parser.parse_args()
    if "RANK" not in os.environ:
        return launch([sys.executable, __file__, *sys.argv[1:]], given.processes, os.environ)
    progress.announce("toy", "train", identity="0123456789abcdef")
    code, error, kind = 0, None, None
    try:
        train(given)
    except AssayError as failed:
        code, error, kind = failed.exit_code, str(failed), type(failed).__name__
        print(f"assay: {error}", file=sys.stderr)
    progress.verdict(code, error, kind)
    return code


if __name__ == "__main__":
    leave(main())
