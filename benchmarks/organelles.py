"""The organelles study's speed and memory: its batches against none and against MONAI's own, and its eight networks.

    OMP_NUM_THREADS=1 python benchmarks/organelles.py            # everything, about ten minutes on one core
    OMP_NUM_THREADS=1 python benchmarks/organelles.py loading    # or only: loading, monai, flat, memory, networks

loading: steps of the training loop with real batches beside the same loop fed one batch again and again. monai: the
same patches and augmentation from CacheDataset and DataLoader. flat: resident memory over 500 steps of volumes. memory:
what the batch-size finder says of a step beside what the process took. networks: steps/s, memory and FLOP/s of the
eight networks, full size in bf16 on a GPU, small on a CPU; writes benchmarks/results/organelles_networks_*.csv.
Both sides take turns; printed are medians.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from assay.config import load
from assay.engine.distributed import Group
from assay.engine.ensemble import Ensemble
from assay.engine.optim import build_optimizer
from assay.engine.state import build_members
from assay.files import write_csv
from assay.matrix.arms import resolve
from assay.studies.organelles import simulate
from assay.studies.organelles.augmentation import channels
from assay.studies.organelles.cache import Crops, open_crops
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.config import Params
from assay.studies.organelles.memory import measure
from assay.studies.organelles.model.cost import operations
from assay.studies.organelles.splits import read_split
from assay.studies.organelles.task import OrganelleTask

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "studies/organelles"
TURNS, COUNT = 5, 4
ON_GPU = torch.cuda.is_available()
VOLUMES = ["model.dimensions=3", "evaluation.every=1", "evaluation.monitor_every=1", "sampling.patch=[16,64,64]"]


def prepared(*overrides: str) -> tuple[OrganelleTask, Params]:
    """The task of the laptop parameters with changes; crops are simulated where there are none."""
    params = load(Params, STUDY / "params.yaml", list(overrides))
    if not Path(params.data.path).exists():
        simulate.run(params)
    crops = open_crops(params.data)
    device = torch.device("cuda" if ON_GPU else "cpu")
    return OrganelleTask(params, crops, read_split(Path(params.data.path), crops.names), Group.alone(device)), params


class Steps:
    """Optimiser steps of the engine's kind, without what the loop does beside them."""

    def __init__(self, task: OrganelleTask, params: Params) -> None:
        self.task = task
        self.ensemble = Ensemble(build_members(task, params.seed, 1, task.group.device))
        self.optimizer = build_optimizer(params.train.optimizer, self.ensemble.parameters.values())
        self.bf16 = params.train.precision == "bf16"

    def take(self, batches: Iterator[Any], count: int) -> None:
        """So many steps."""
        rng = torch.Generator()
        for _ in range(count):
            with torch.autocast(self.task.group.device.type, torch.bfloat16, enabled=self.bf16):
                terms = self.ensemble.loss(self.task, next(batches), rng)
            sum(terms.values()).sum().backward()
            self.ensemble.clip(1.0)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        if ON_GPU:
            torch.cuda.synchronize()


def turns(
    sides: dict[str, Callable[[], None]], clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each side, turn by turn, the first one not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(TURNS + 1):
        for name, work in sides.items():
            begun = clock()
            work()
            if turn:
                times[name].append(clock() - begun)
    return times


def ratio(times: dict[str, list[float]], above: str, below: str) -> float:
    """Median over the turns."""
    return statistics.median(a / b for a, b in zip(times[above], times[below], strict=True))


def loading() -> None:
    """Real batches against a constant one: by the clock, and by CPU time, in which the cutting thread counts, too."""
    small = ["model.features=8", "data.volumes=24"]
    for name, overrides in {"slices": small, "volumes": [*small, *VOLUMES, "train.batch_size=2"]}.items():
        for clock in (time.perf_counter, time.process_time):
            task, params = prepared(*overrides)
            steps, constant = Steps(task, params), repeat(next(task.batches(0)))
            sides = {
                "real": partial(steps.take, task.batches(0), COUNT),
                "constant": partial(steps.take, constant, COUNT),
            }
            times = turns(sides, clock)
            share, each = ratio(times, "constant", "real"), statistics.median(times["real"]) / COUNT
            print(f"loading, {name}, {clock.__name__}: {each:.3f} s a step, {share:.3f} of a constant batch's rate")


def monai_batches(crops: Crops, ids: tuple[int, ...], params: Params) -> Iterator[Any]:
    """The same patches and augmentation as MONAI's documentation puts them together."""
    from monai.data import CacheDataset, DataLoader
    from monai.transforms import (
        Compose,
        EnsureChannelFirstd,
        Lambdad,
        RandAdjustContrastd,
        RandFlipd,
        RandGaussianNoised,
        RandRotate90d,
        RandScaleIntensityd,
        RandSpatialCropd,
    )

    section, patch = params.augmentation, params.sampling.edges
    slices = len(params.sampling.patch) == 2

    def spread(item: Any) -> Tensor:
        code = torch.as_tensor(item[0]).byte()[None]
        return channels(code, torch.ones(1, len(CLASSES), dtype=torch.bool))[0]

    both = ["image", "label"]
    axes = {"flip_x": 2, "flip_y": 1}
    transforms = Compose(
        [
            EnsureChannelFirstd(both, channel_dim="no_channel"),
            RandSpatialCropd(both, patch, random_size=False),
            *[RandFlipd(both, 0.5, axis) for axis in axes.values()],
            RandRotate90d(both, 0.5, spatial_axes=(1, 2)),
            RandScaleIntensityd("image", section.contrast, 1.0),
            RandAdjustContrastd("image", 1.0, (1 / (1 + section.gamma), 1 + section.gamma)),
            RandGaussianNoised("image", 1.0, std=section.noise),
            Lambdad("label", spread),
        ]
    )
    data = []
    for crop in (crops[number] for number in ids):
        image = torch.from_numpy(crop.image.astype(np.float32) / 255)
        data.append({"image": image, "label": torch.from_numpy(crop.label.astype(np.float32))})
    cached = CacheDataset(data, transforms, num_workers=0, progress=False)
    loader = DataLoader(cached, batch_size=params.train.batch_size, shuffle=True, num_workers=0)
    while True:
        for batch in loader:
            pair = batch["image"].as_tensor(), torch.as_tensor(batch["label"])
            yield tuple(each[:, :, 0] for each in pair) if slices else pair


def monai() -> None:
    """Batches alone: ours against MONAI's."""
    for name, overrides in {"slices": [], "volumes": [*VOLUMES, "train.batch_size=2"]}.items():
        task, params = prepared("data.volumes=24", *overrides)
        ours = task.batches(0)
        theirs = monai_batches(open_crops(params.data), task.split.train, params)
        times = turns({"ours": partial(draw, ours), "monai": partial(draw, theirs)}, time.process_time)
        each = {side: 1000 * statistics.median(values) / COUNT for side, values in times.items()}
        print(
            f"batches of {name}: {each['ours']:.1f} ms, MONAI {each['monai']:.1f} ms of CPU time,"
            f" ratio {ratio(times, 'monai', 'ours'):.2f}",
            flush=True,
        )


def draw(batches: Iterator[Any]) -> None:
    """A few batches."""
    for _ in range(COUNT):
        next(batches)


def flat() -> None:
    """Resident memory while 500 steps of volumes are taken."""
    task, params = prepared(
        "data.volumes=24", *VOLUMES, "sampling.patch=[16,32,32]", "model.features=4", "train.batch_size=2"
    )
    steps, batches = Steps(task, params), task.batches(0)
    process, seen = psutil.Process(), []
    for _ in range(20):
        steps.take(batches, 25)
        seen.append(process.memory_info().rss / 2**20)
    after = seen[1:]  # the first 50 steps fill caches
    change = (max(after) - min(after)) / min(after)
    print(f"resident memory over 500 steps of volumes: {min(after):.0f} to {max(after):.0f} MiB, {100 * change:.1f} %")


ALONE = """
import pathlib, resource, sys
import torch
from assay.matrix.arms import resolve
from assay.studies.organelles.model import build
from assay.studies.organelles.model.cost import objective
torch.set_num_threads(1)
params = resolve(pathlib.Path(sys.argv[1])).arms[sys.argv[2]].params
edges = params.sampling.patch
model = build(params.model, 14, edges)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
def step(samples):
    objective(model(torch.rand(samples, 1, *edges))).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
step(1)
first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(int(sys.argv[3]))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - first) * 1024)
"""


def memory() -> None:
    """What a larger batch adds to the peak: as the finder says, and to the resident memory of a process of its own."""
    for name, arm in resolve(STUDY / "laptop.yaml").arms.items():
        params = arm.params
        more = 16 if params.model.dimensions == 2 else 3
        finder = measure(params.model, params.sampling.patch, bf16=False)
        said = finder.of(more) - finder.of(1)
        command = [sys.executable, "-c", ALONE, str(STUDY / "laptop.yaml"), name, str(more)]
        took = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"memory, {name}: {more} samples add {said / 2**20:.0f} MiB, the process took {took / 2**20:.0f} MiB")


def networks() -> None:
    """Steps/s, memory and FLOP/s of all eight."""
    rows = []
    for name, arm in resolve(STUDY / ("study.yaml" if ON_GPU else "laptop.yaml")).arms.items():
        params = arm.params
        data = replace(params.data, volumes=8, path=f"data/{'full' if ON_GPU else 'small'}")
        params = replace(params, data=data, train=replace(params.train, accumulate=1))
        if not Path(data.path).exists():
            simulate.run(params)
        crops = open_crops(data)
        device = torch.device("cuda" if ON_GPU else "cpu")
        task = OrganelleTask(params, crops, read_split(Path(data.path), crops.names), Group.alone(device))
        steps, constant = Steps(task, params), repeat(next(task.batches(0)))
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(turns({"": lambda s=steps, c=constant: s.take(c, 1)})[""])
        flop = 3 * params.train.batch_size * operations(lambda t=task: t.build().network, params.sampling.patch)
        took = (
            torch.cuda.max_memory_allocated() if ON_GPU else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        said = measure(params.model, params.sampling.patch, ON_GPU).of(params.train.batch_size)
        row = (name, 1 / seconds, said / 2**30, took / 2**30 if ON_GPU else float("nan"), flop / seconds / 1e9)
        rows.append(row)
        print(f"{name}: {row[1]:.3g} steps/s, {row[2]:.2f} GiB (finder), {row[4]:.3g} GFLOP/s", flush=True)
    where = "gpu" if ON_GPU else "cpu"
    columns = ("network", "steps_per_s", "finder_gib", "allocated_gib", "gflop_per_s")
    write_csv(ROOT / f"benchmarks/results/organelles_networks_{where}.csv", columns, rows)


PARTS = {"loading": loading, "monai": monai, "flat": flat, "memory": memory, "networks": networks}

if __name__ == "__main__":
    torch.manual_seed(0)
    if not ON_GPU:
        torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for part in sys.argv[1:] or PARTS:
            PARTS[part]()
