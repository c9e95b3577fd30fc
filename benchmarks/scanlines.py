"""The scanlines study against straightforward code, on one core: simulation, training, and a line while scanning.

    OMP_NUM_THREADS=1 python benchmarks/scanlines.py

Both sides take turns; printed are medians of CPU times and of ratios turn by turn. Simulation is compared with images
made one by one in NumPy, height by height; training with a loop over a DataLoader that augments each image. The study
was planned with 2.4 ms per image of such NumPy code, and wants a tenth of it; of training it wants a ratio of 1.2.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn
from torch.utils.data import DataLoader, Dataset

from assay.config import load
from assay.engine.ensemble import Ensemble
from assay.engine.optim import build_optimizer
from assay.studies.scanlines.augmentation import augment
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.dataset import BLOCK, Rows, simulate_block
from assay.studies.scanlines.dataset import Dataset as Scans
from assay.studies.scanlines.model import CausalEncoder, build
from assay.studies.scanlines.surface import COUNTS, PITCH, A
from assay.studies.scanlines.task import ScanTask

PARAMS = Path(__file__).parents[1] / "studies/scanlines/params.yaml"
TURNS, EDGE, CPU = 7, 128, torch.device("cpu")


def plain_cell(state: int, s: NDArray[np.float64], t: NDArray[np.float64], rng: np.random.Generator):
    """Height of a state at offsets (s, t) from the centre of the unit cell, nm."""
    if state in (0, 1):
        width = rng.uniform(0.075, 0.11) if state == 0 else rng.uniform(0.085, 0.125)
        heights = np.where(s > 0, 1.0, 1.0 if state == 0 else rng.uniform(0.25, 0.75))
        return heights * np.exp(-((np.abs(s) - rng.uniform(0.15, 0.19)) ** 2 + t**2) / (2 * width**2))
    if state == 2:
        return np.exp(-(s**2) / (2 * rng.uniform(0.15, 0.22) ** 2) - t**2 / (2 * rng.uniform(0.1, 0.14) ** 2))
    m = rng.uniform(0, 0.12)
    return np.exp(-(s**2) / (2 * rng.uniform(0.15, 0.22) ** 2)) * (1 - m + m * np.cos(2 * np.pi * t / A))


def plain_surface(state: int, field: float, angle: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Lattice and adsorbates of one image."""
    x, y = np.meshgrid(np.arange(EDGE) / EDGE * field, np.arange(EDGE) / EDGE * field)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    u, v = u + rng.uniform(-2, 2), v + rng.uniform(-2, 2)
    image = plain_cell(state, u - PITCH * np.round(u / PITCH), v - A * np.round(v / A), rng)
    for _ in range(rng.poisson(1.5)):
        place, radius = rng.uniform(0, field, 2), rng.uniform(0.18, 0.35)
        height = rng.choice((-1, 1)) * rng.uniform(0.4, 1.4)
        image += height * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * radius**2))
    return image


def plain_image(rng: np.random.Generator) -> NDArray[np.float64]:
    """One image with its tip, tilt, step, offsets, noise and streaks."""
    label = rng.choice(6, p=np.array(COUNTS) / sum(COUNTS))
    field, angle = rng.uniform(4, 13), rng.uniform(0, np.pi)
    image = plain_surface(min(label, rng.integers(4)), field, angle, rng)
    if label == 4:
        switch = int(rng.uniform(0.2, 0.8) * EDGE)
        image[switch:] = plain_surface(rng.integers(4), field, angle, rng)[switch:]
    if label == 5:
        image = gaussian_filter(image, rng.uniform(0.1, 0.5) / field * EDGE)
    image = (image - image.mean()) / image.std()
    across = np.linspace(-1, 1, EDGE)
    image += rng.normal(0, 0.25) * across + rng.normal(0, 0.6) * across[:, None]
    image += (rng.normal(0, 0.05, EDGE).cumsum() + rng.uniform(0.05, 0.25) * rng.normal(size=EDGE))[:, None]
    if rng.random() < 0.25:
        edge = np.cos(angle) * across + np.sin(angle) * across[:, None]
        image += rng.uniform(1, 2.5) * (edge > 0)
    image += rng.uniform(0.15, 0.7) * rng.normal(size=image.shape)
    for _ in range(rng.poisson(EDGE * rng.uniform(0, 0.04))):
        start, length = rng.integers(EDGE), rng.integers(8, EDGE)
        image[rng.integers(EDGE), start : start + length] += rng.normal(0, 1.5)
    return image


def compare(name: str, ours: Callable[[], object], plain: Callable[[], object], per: int) -> None:
    """Take turns and print both times per image, of which a call makes `per`, and how often ours fits into theirs."""
    times: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(TURNS + 1):
        for key, work in (("ours", ours), ("plain", plain)):
            begun = time.process_time()
            work()
            if turn:
                times[key].append(1000 * (time.process_time() - begun) / per)
    ratios = [plain / ours for ours, plain in zip(times["ours"], times["plain"], strict=True)]
    here, there = (statistics.median(each) for each in times.values())
    print(f"{name}: {here:.3f} ms per image, straightforward {there:.3f} ms, ratio {statistics.median(ratios):.2f}")


def simulation(params: Params) -> None:
    """Blocks of 64 images."""
    rng = np.random.default_rng(0)
    compare(
        "simulate",
        lambda: simulate_block(params.data, 0),
        lambda: [plain_image(rng) for _ in range(BLOCK)],
        BLOCK,
        "image",
    )


class PlainScans(Dataset):
    """Images that are augmented one by one."""

    def __init__(self, rows: Rows, params: Params) -> None:
        self.rows, self.params = rows, params
        self.rng = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.rows.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = slice(index, index + 1)
        image, *_ = augment(self.rows.images[row], self.rows.switch[row], self.params.augmentation, self.rng)
        return image[0], self.rows.labels[index]


def training(name: str, params: Params) -> None:
    """Steps of the network of `params`, as the engine takes them and as a loop over a DataLoader does."""
    images, scene = simulate_block(params.data, 0)
    labels = torch.tensor(params.data.merge)[scene.label]
    rows = Rows(images, labels, labels, labels, scene.switch, torch.arange(BLOCK))
    parts = {part: np.arange(BLOCK) for part in ("training", "validation", "test")}
    task = ScanTask(params, Scans(rows, parts, ""), CPU)
    ensemble = Ensemble([channels_last(task.build())])
    optimizer = build_optimizer(params.train.optimizer, ensemble.parameters.values())
    batches, rng = task.batches(0), torch.Generator()
    model = build(params.model, EDGE, EDGE, params.data.classes)
    adam = torch.optim.AdamW(model.parameters(), lr=params.train.optimizer.lr)
    size = params.train.batch_size
    loader = DataLoader(PlainScans(rows, params), batch_size=size, shuffle=True)
    weight = nn.CrossEntropyLoss(label_smoothing=params.loss.label_smoothing)

    def ours() -> None:
        for _ in range(BLOCK // size):
            ensemble.loss(task, next(batches), rng)["cross_entropy"].sum().backward()
            ensemble.clip(1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def plain() -> None:
        for given, wanted in loader:
            logits = model(given)
            target = wanted[:, None].expand(logits.shape[:2])
            adam.zero_grad()
            weight(logits.flatten(0, 1), target.flatten()).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()

    compare(f"train {name}", ours, plain, BLOCK)


def channels_last(model: nn.Module) -> nn.Module:
    """Convolution weights as the engine lays them out."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(memory_format=torch.channels_last)
    return model


@torch.no_grad()
def latency(params: Params) -> None:
    """A line of a scan, in the causal encoder: with what it keeps, and the whole scan anew."""
    model = build(params.model, EDGE, EDGE, params.data.classes).eval()
    assert isinstance(model, CausalEncoder)
    image = torch.randn(1, EDGE, EDGE)
    times, state = [], model.start()
    for line in range(EDGE):
        begun = time.process_time()
        _, state = model.step(image[:, line : line + 1], state)
        times.append(1000 * (time.process_time() - begun))
    slowest = sorted(times)[int(0.95 * EDGE)]
    print(f"a line: {statistics.median(times):.2f} ms, of 20 lines the slowest takes {slowest:.2f} ms")
    begun = time.process_time()
    model(image)
    print(f"the whole scan anew: {1000 * (time.process_time() - begun):.2f} ms")


if __name__ == "__main__":
    torch.manual_seed(0)
    torch.set_num_threads(1)
    laptop = load(Params, PARAMS)
    simulation(laptop)
    training("causal", laptop)
    tokens = ("tokenizer", "d_model", "layers", "heads", "ffn_dim", "positions", "line_statistics", "backend")
    nulls = [f"model.{key}=null" for key in tokens]
    nulls += [f"loss.{key}=null" for key in ("first_line", "rising", "line_targets")]
    training("cnn", load(Params, PARAMS, ["model.architecture=cnn", "model.widths=[16,32,64,128]", *nulls]))
    latency(laptop)
