"""Runs that differ in their optimiser, trained in one pass against one after the other, on this machine's best device.

    OMP_NUM_THREADS=1 python benchmarks/stack.py

Both are the engine's own training from beginning to end, with validations, of the scanlines networks on 64 images;
they take turns, and printed are medians of the ratio. On a CPU the time is that of the processor.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from assay.config import load
from assay.engine.checkpoint import CheckpointFolder
from assay.engine.config import TrainConfig
from assay.engine.log import TrainingLog
from assay.engine.precision import pick_device
from assay.engine.stack import StackedRun, train_stack
from assay.engine.stop import StopRequest
from assay.engine.train import train
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import BLOCK, Dataset, Rows, simulate_block
from assay.studies.scanlines.task import ScanTask

PARAMS = Path(__file__).parents[1] / "studies/scanlines/params.yaml"
IMAGE = ["loss.first_line=null", "loss.rising=null", "loss.line_targets=null"]
TOKENS = ("tokenizer", "d_model", "layers", "heads", "ffn_dim", "positions", "line_statistics", "backend")
NETWORKS = {
    "causal, laptop scale": [],
    "causal, 16 channels": ["model.d_model=16", "model.ffn_dim=16", "model.heads=2", "model.layers=1"],
    "line_encoder": [
        "model.architecture=line_encoder",
        "model.tokenizer=linear",
        "model.mask_padding=true",
        "model.positions=learned",
        "model.line_statistics=false",
        *IMAGE,
    ],
    "cnn": ["model.architecture=cnn", *(f"model.{key}=null" for key in TOKENS), "model.widths=[16,32,64,128]", *IMAGE],
}


def made(overrides: list[str], steps: int, device: torch.device) -> tuple[ScanTask, TrainConfig]:
    """A task on made-up data, and how it is trained."""
    every = [f"train.{key}={steps}" for key in ("steps", "validate_every", "checkpoint_every")]
    params = load(Params, PARAMS, [*overrides, *every])
    images, scene = simulate_block(params.data, 0)
    labels = torch.tensor(params.data.merge)[scene.label]
    rows = Rows(images, labels, labels, labels, scene.switch, torch.arange(BLOCK))
    parts = {part: np.arange(BLOCK) for part in ("training", "validation", "test")}
    return ScanTask(params, Dataset(rows, parts, ""), device), params.train


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("runs", 4), ("steps", 10), ("turns", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given, device = parser.parse_args(), pick_device("auto")
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for name, overrides in NETWORKS.items():
        task, config = made(overrides, given.steps, device)
        rates = [config.optimizer.lr * 2**-place for place in range(given.runs)]
        configs = [dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, lr=lr)) for lr in rates]
        ratios, lone = [], []
        for _ in range(given.turns + 1):
            with tempfile.TemporaryDirectory() as folder:
                places = [CheckpointFolder(Path(folder) / str(place), "") for place in range(2 * given.runs)]
                begun = clock()
                for each, place in zip(configs, places, strict=False):
                    train(task, each, 0, place, TrainingLog(None), StopRequest())
                between = clock()
                runs = {
                    str(number): StackedRun(task=task, config=each, seed=0, checkpoints=place)
                    for number, (each, place) in enumerate(zip(configs, places[given.runs :], strict=True))
                }
                train_stack(runs, StopRequest())
                lone.append(between - begun)
                ratios.append((clock() - between) / (between - begun))
        each = statistics.median(lone[1:]) / given.runs
        found = f"{statistics.median(ratios[1:]):.2f} ({min(ratios[1:]):.2f} to {max(ratios[1:]):.2f})"
        print(f"{name} on {device.type}: a run alone {each:.2f} s; {given.runs} in one pass take {found} of them alone")


if __name__ == "__main__":
    main()
