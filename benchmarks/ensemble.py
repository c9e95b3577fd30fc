"""Five members trained in one pass against five lone runs, time per optimiser step on this machine's best device.

    python benchmarks/ensemble.py

One member and five stacked members take turns on the same batches; reported are medians. `five lone runs` is five
times the step of one. Goal on an accelerator: five in one pass cost at most two of one.
"""

import statistics
import time
from itertools import islice
from pathlib import Path

import torch

from assay.config import load
from assay.engine.precision import pick_device
from assay.engine.state import TrainState
from assay.engine.train import backpropagate
from assay.studies.asl.config import Params
from assay.studies.asl.source import open_source
from assay.studies.asl.task import AslTask

MEMBERS, REPETITIONS = 5, 9
ARCHITECTURES = {
    "homogeneous [24, 48, 96]": [],
    "homogeneous without least-squares features": ["model.least_squares_features=false"],
    "GroupNorm-first U-Net [32, 64, 128, 256]": [
        "model.architecture=spatial",
        "model.hidden_sizes=[32,64,128,256]",
        "model.normalisation=global_scale",
        "model.first_norm=true",
        "model.least_squares_features=null",
    ],
}


def step(state: TrainState, task: AslTask, batches: object) -> float:
    """Seconds of one optimiser step, the device's work included."""
    begun = time.perf_counter()
    backpropagate(state, task, state.ensemble.loss, batches, 0)
    state.ensemble.clip(1.0)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    if state.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    """Print one line per architecture."""
    device = pick_device("auto")
    for name, overrides in ARCHITECTURES.items():
        params = load(Params, Path("params.yaml"), ["data.source=simulated", *overrides])
        task = AslTask(params, open_source(params, device), device)
        members = load(
            Params, Path("params.yaml"), ["data.source=simulated", *overrides, f"train.ensemble_size={MEMBERS}"]
        )
        states = [TrainState(task, config.train, 0, device) for config in (params, members)]
        batches = list(islice(task.batches(0), REPETITIONS + 2))
        times = [[step(state, task, iter([batch])) for state in states] for batch in batches][2:]
        one, five = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"{name} on {device.type}: one {1e3 * one:.0f} ms, five in one pass {1e3 * five:.0f} ms "
            f"= {five / one:.2f} x one = {five / (MEMBERS * one):.2f} x five lone runs"
        )


if __name__ == "__main__":
    main()
