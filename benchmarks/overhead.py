"""What the training loop costs on top of a bare PyTorch loop of the same model, batches and optimiser.

    python benchmarks/overhead.py

Both loops run in turn on the same pre-drawn batches of the asl study, with gradient clipping, AdamW and one-cycle
learning rate; logging, validation and checkpoints come once, at the end. Reported: median over repetitions of the
difference per step and of the ratio. Goal: at most 3 % or 0.2 ms per step, whichever is larger.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import torch

from assay.config import load
from assay.engine.checkpoint import CheckpointFolder
from assay.engine.log import TrainingLog
from assay.engine.optim import build_optimizer, build_schedule
from assay.engine.random import generator
from assay.engine.state import build_members
from assay.engine.stop import StopRequest
from assay.engine.task import Evaluation
from assay.engine.train import train
from assay.studies.asl.config import Params
from assay.studies.asl.source import open_source
from assay.studies.asl.task import AslBatch, AslTask

CPU = torch.device("cpu")
STEPS, REPETITIONS = 100, 7
ONCE = 10**6
SIZES = {"small network, 16 x 16": ("16", "[8,16]"), "default network, 32 x 32": ("32", "[24,48,96]")}


class Drawn(AslTask):
    """The asl task with batches drawn beforehand and a free validation, so that only the loop differs."""

    def __init__(self, params: Params) -> None:
        super().__init__(params, open_source(params, CPU), CPU)
        self.drawn = list(islice(super().batches(0), 8))

    def batches(self, cursor: int) -> Iterator[AslBatch]:
        """The same eight batches again and again."""
        return islice(cycle(self.drawn), cursor, None)

    def evaluate(self, model: object) -> Evaluation:
        """Nothing."""
        return Evaluation({"loss": 0.0})


def bare(task: Drawn, params: Params) -> float:
    """Seconds of a loop as one would write it by hand."""
    (module,) = build_members(task, 0, 1, CPU)
    optimizer = build_optimizer(params.train.optimizer, module.parameters())
    schedule = build_schedule(params.train.schedule, optimizer, STEPS, "min")
    begun = time.perf_counter()
    for batch in islice(task.batches(0), STEPS):
        terms = task.loss(module, batch, torch.default_generator)
        loss = sum(task.weights[name] * term for name, term in terms.items())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), params.train.clip_norm or 0.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return time.perf_counter() - begun


def engine(task: Drawn, params: Params) -> float:
    """Seconds of the engine, without building the networks and without the one checkpointless end."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = CheckpointFolder(Path(folder), "benchmark")
        begun = time.perf_counter()
        train(task, params.train, 0, checkpoints, TrainingLog(None), StopRequest())
        return time.perf_counter() - begun


def set_up(task: Drawn, params: Params) -> float:
    """Seconds that the engine spends before its first step: networks, optimiser, check of the loss terms."""
    begun = time.perf_counter()
    (module,) = build_members(task, 0, 1, CPU)
    for name, term in task.loss(module, task.drawn[0], generator(0)).items():
        torch.autograd.grad(task.weights[name] * term, list(module.parameters()), retain_graph=True, allow_unused=True)
    return time.perf_counter() - begun


def main() -> int:
    """Print the figures; exit 1 if the goal is missed."""
    missed = False
    for name, (size, widths) in SIZES.items():
        rare = [f"train.{key}_every={ONCE}" for key in ("log", "validate", "checkpoint")]
        overrides = ["data.source=simulated", f"data.image_size={size}", f"model.hidden_sizes={widths}", *rare]
        params = load(Params, Path("params.yaml"), [*overrides, f"train.steps={STEPS}", "train.device=cpu"])
        task = Drawn(params)
        bare(task, params), engine(task, params)
        pairs = [(bare(task, params), engine(task, params) - set_up(task, params)) for _ in range(REPETITIONS)]
        extra = statistics.median(1e3 * (ours - theirs) / STEPS for theirs, ours in pairs)
        ratio = statistics.median(ours / theirs for theirs, ours in pairs)
        step = statistics.median(1e3 * theirs / STEPS for theirs, _ in pairs)
        print(f"{name}: bare {step:.2f} ms per step; the engine adds {extra:+.3f} ms, ratio {ratio:.3f}")
        missed |= extra > max(0.03 * step, 0.2)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
