"""Phantoms and signals per second, all at once against one at a time: `python benchmarks/simulate.py`.

The loop is written as one would write it with NumPy and SciPy: one phantom, one lesion, one delay at a time, each
step an array operation. Both do the same work (64 x 64, lesions, blur, six delays, two sequences, no noise).
Threads of one interpreter hand its lock to one another at every operation; processes do not.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from assay.engine.memory import keep_freed_memory
from assay.studies.asl.phantom import RANGES, simulate_phantoms
from assay.studies.asl.physics import Physics, joint_signal

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)
TABLE = RANGES["published"]
BLOCK = 128  # as the data set is written
ROWS, COLUMNS = np.mgrid[:64, :64]


def batch(seed: int) -> torch.Tensor:
    """Signals (BLOCK, 12, 64, 64) of a batch."""
    phantoms = simulate_phantoms(BLOCK, generator=torch.Generator().manual_seed(seed))
    return joint_signal(phantoms.cbf, phantoms.att, PLDS, Physics(), out=torch.empty(BLOCK, 12, 64, 64))


def batches(n: int, pool: Executor) -> None:
    """Batches side by side, each dropped when it is there."""
    for done in [pool.submit(dropped, seed) for seed in range(n // BLOCK)]:
        done.result()


def dropped(seed: int) -> None:
    """A batch that nobody keeps."""
    batch(seed)


def begin() -> None:
    """Make this process or thread work alone, as a stage does."""
    torch.set_num_threads(1)
    keep_freed_memory()


def outline(row: int, column: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """The irregular disc of a lesion (64, 64)."""
    y, x = ROWS - row, COLUMNS - column
    angle = np.arctan2(y, x)
    first, second = rng.uniform(0, np.pi, 2)
    edge = radius * (1 + 0.3 * np.sin(3 * angle + first) + 0.15 * np.sin(5 * angle + second))
    inside: np.ndarray = np.sqrt(x**2 + y**2) <= edge
    return inside


def one_phantom(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """CBF and ATT (64, 64) of one phantom."""
    seeds = rng.integers(5, 59, (rng.integers(15, 30), 2))
    kinds = rng.choice(3, len(seeds), p=(0.5, 0.4, 0.1))
    distance = (ROWS[..., None] - seeds[:, 0]) ** 2 + (COLUMNS[..., None] - seeds[:, 1]) ** 2
    tissue = kinds[distance.argmin(-1)]
    cbf, att = np.zeros((64, 64)), np.zeros((64, 64))
    for kind in range(3):
        mask = tissue == kind
        cbf[mask] = rng.uniform(*TABLE[kind][0]) + rng.normal(0, 3, mask.sum())
        att[mask] = rng.uniform(*TABLE[kind][1]) + rng.normal(0, 50, mask.sum())
    fate = rng.random()
    if fate < 0.7:
        outer, inner, shrink = (3, 4, 4) if fate < 0.35 else (5, 6, 5)
        for _ in range(rng.integers(1, 3)):
            row, column = rng.integers(15, 49, 2)
            radius = int(rng.integers(5, 15))
            for zone, extent in ((outer, radius), (inner, max(3, radius - shrink))):
                mask = outline(row, column, extent, rng)
                cbf[mask], att[mask] = rng.uniform(*TABLE[zone][0]), rng.uniform(*TABLE[zone][1])
    return np.clip(gaussian_filter(cbf, 1.0), 0, 200), np.clip(gaussian_filter(att, 1.0), 100, 5000)


def one_signal(cbf: np.ndarray, att: np.ndarray, physics: Physics) -> np.ndarray:
    """Signals (12, 64, 64) of one phantom."""
    t1, tau = physics.t1_artery, physics.label_duration
    flow = 2 * cbf / 6000 / physics.partition
    images = []
    for pld in PLDS:
        arriving = np.exp(-att / t1) - np.exp(-(tau + pld) / t1)
        arrived = np.exp(-pld / t1) * (1 - np.exp(-tau / t1))
        curve = np.where(pld < att - tau, 0.0, np.where(pld < att, arriving, arrived))
        images.append(flow * physics.alpha_pcasl * t1 / 1000 * curve)
    for pld in PLDS:
        images.append(flow * physics.alpha_vsasl * np.minimum(pld, att) / 1000 * np.exp(-pld / t1))
    return np.stack(images).astype(np.float32)


def loop(n: int, rng: np.random.Generator) -> np.ndarray:
    """Signals (n, 12, 64, 64), one phantom after the other."""
    return np.stack([one_signal(*one_phantom(rng), Physics()) for _ in range(n)])


def milliseconds(work: Callable[[], object], n: int, repetitions: int) -> tuple[float, float, float]:
    """Median, least and greatest time for each of n phantoms, after one call to warm up."""
    work()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - start) / n)
    return statistics.median(times), min(times), max(times)


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--phantoms", type=int, default=4096)
    parser.add_argument("--repetitions", type=int, default=7)
    arguments = parser.parse_args()
    n, repetitions, rng = arguments.phantoms, arguments.repetitions, np.random.default_rng(0)
    begin()
    workers = arguments.threads
    spawned = ProcessPoolExecutor(workers, get_context("spawn"), initializer=begin)
    with ThreadPoolExecutor(workers) as threads, spawned as processes:
        rows = {
            "one at a time": milliseconds(lambda: loop(BLOCK, rng), BLOCK, repetitions),
            "one batch": milliseconds(lambda: batch(0), BLOCK, 3 * repetitions),
            f"{workers} threads": milliseconds(lambda: batches(n, threads), n, repetitions),
            f"{workers} processes": milliseconds(lambda: batches(n, processes), n, repetitions),
        }
    print(f"{n} phantoms, batches of {BLOCK}; ms per phantom: median (least to greatest), times faster")
    alone = rows["one at a time"][0]
    for name, (median, least, greatest) in rows.items():
        print(f"{name:>14}  {median:7.3f}  ({least:.3f} to {greatest:.3f})  {alone / median:5.1f}")


if __name__ == "__main__":
    main()
