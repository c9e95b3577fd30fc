"""Simulated FIB-SEM crops per second, against NumPy and SciPy: `python benchmarks/organelles_generate.py`.

The comparison is the same crop as one would first write it: double precision, each field by three products over the
whole crop, gradients by np.gradient, scipy.ndimage's Gaussian, ball-like objects in a box of their own; one crop after
the other. The generator makes a crop per thread, as the simulate stage does. Both run in turn, a few crops at a time,
so that a busy machine slows both down; time of processors is what neither loses to others.
"""

import argparse
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.generator import simulate_crop

Array = NDArray[np.float64]
LABEL = {name: place + 1 for place, name in enumerate(CLASSES)}
Box = tuple[slice, ...]
BLOCK = 8  # crops in a turn


def spline(edge: int, spacing: float) -> Array:
    """Values of cubic B-splines (edge, knots)."""
    place = np.arange(edge) / spacing + 1
    size = abs(place[:, None] - np.arange(int(place[-1]) + 3))
    return np.where(size < 1, 2 / 3 - size**2 + size**3 / 2, np.clip(2 - size, 0, None) ** 3 / 6)


def field(rng: np.random.Generator, shape: tuple[int, ...], spacing: float) -> Array:
    """n_L, mean 0 and standard deviation 1."""
    z, y, x = (spline(edge, spacing) for edge in shape)
    noise = rng.standard_normal((z.shape[1], y.shape[1], x.shape[1]))
    volume = np.tensordot(z, noise, 1)
    volume = np.matmul(y, volume) @ x.T
    return (volume - volume.mean()) / volume.std()


def level_distance(volume: Array, level: float) -> Array:
    """(n - level) / |grad n|."""
    slopes = np.gradient(volume)
    return (volume - level) / np.maximum(np.sqrt(sum(slope**2 for slope in slopes)), 1e-8)


class Scene:
    """Grey values, labels and free space of one crop."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int, int]) -> None:
        self.rng, self.shape = rng, shape
        self.grey = rng.uniform(140, 165) + 6 * field(rng, shape, 5) + 9 * field(rng, shape, 2.2)
        self.label = np.zeros(shape, np.uint8)
        self.free = np.ones(shape, bool)
        self.axes = np.meshgrid(*(np.arange(edge) for edge in shape), indexing="ij", sparse=True)

    def whole(self) -> Box:
        """The box of everything."""
        return tuple(slice(0, edge) for edge in self.shape)

    def box(self, centre: Array, reach: float) -> Box:
        """Voxels near a point."""
        ends = zip(centre, self.shape, strict=True)
        return tuple(slice(max(int(at - reach), 0), min(int(at + reach) + 2, edge)) for at, edge in ends)

    def apart(self, centre: Array, box: Box) -> list[Array]:
        """Distance from a point along each axis."""
        places = np.meshgrid(*(np.arange(side.start, side.stop) for side in box), indexing="ij", sparse=True)
        return [place - at for place, at in zip(places, centre, strict=True)]

    def point(self) -> Array:
        """Anywhere in free space, if such a point is found."""
        for _ in range(8):
            point = self.rng.uniform(0, self.shape)
            if self.free[tuple(point.astype(int))]:
                break
        return point

    def dark(self) -> float:
        """Of a membrane."""
        return self.rng.uniform(60, 85)

    def paint(self, box: Box, where: NDArray[np.bool_], label: int, grey: float) -> None:
        """Fill voxels."""
        self.label[box][where] = label
        self.grey[box][where] = grey

    def layered(self, box: Box, depth: Array, rim: float, labels: tuple[int, int], grey: float) -> None:
        """An object in free space: a membrane `rim` thick around a lumen."""
        inside = (depth > 0) & self.free[box]
        self.paint(box, inside, labels[0], self.dark())
        self.paint(box, inside & (depth > rim), labels[1], grey)
        self.free[box] &= ~inside


def extracellular(scene: Scene) -> None:
    """ecs and pm."""
    rng = scene.rng
    distance = level_distance(field(rng, scene.shape, 60), rng.uniform(0.3, 1.3))
    if rng.random() < 0.5:
        distance = rng.uniform(1.5, 14) - abs(distance)
    scene.layered(scene.whole(), distance + 1.6, 1.6, (LABEL["pm"], LABEL["ecs"]), rng.uniform(180, 215))


def nucleus(scene: Scene) -> None:
    """nuc."""
    rng = scene.rng
    centre = rng.uniform(-0.2, 1.2, 3) * scene.shape
    apart = np.sqrt(sum(part**2 for part in scene.apart(centre, scene.whole())))
    depth = rng.uniform(60, 150) - 6 * field(rng, scene.shape, 40) - apart
    inside, grey = (depth > 0) & scene.free, rng.uniform(128, 150)
    scene.paint(scene.whole(), inside, LABEL["nuc"], scene.dark())
    scene.grey[inside & (depth > 1.6) & (depth < 4.5)] = rng.uniform(150, 170)
    scene.grey[inside & (depth > 6)] = grey
    scene.grey[inside & (depth > 6) & (field(rng, scene.shape, 9) > 0.5)] = grey - 28
    scene.free &= ~inside


def mitochondrion(scene: Scene) -> None:
    """mito_mem, mito_lum, mito_ribo."""
    rng, centre = scene.rng, scene.point()
    size, half, along = rng.uniform(14, 32), rng.uniform(0, 60), rng.standard_normal(3)
    along /= np.linalg.norm(along)
    parts = scene.apart(centre, scene.whole())
    reach = np.clip(sum(part * each for part, each in zip(parts, along, strict=True)), -half, half)
    away = np.sqrt(sum((part - reach * each) ** 2 for part, each in zip(parts, along, strict=True)))
    depth = size - 2 * field(rng, scene.shape, 30) - away
    inside = (depth > 0) & scene.free
    lumen = inside & (depth > 2.2) & (abs(field(rng, scene.shape, 6)) >= 0.16)
    scene.paint(scene.whole(), inside, LABEL["mito_mem"], scene.dark())
    scene.paint(scene.whole(), lumen, LABEL["mito_lum"], rng.uniform(98, 122))
    places = np.argwhere(lumen)
    for z, y, x in places[rng.integers(len(places), size=min(5, len(places) // 216))] if len(places) else ():
        box = (slice(max(z - 1, 0), z + 2), slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2))
        scene.paint(box, lumen[box], LABEL["mito_ribo"], 55)
    scene.free &= ~inside


def golgi(scene: Scene) -> None:
    """golgi_mem, golgi_lum."""
    rng, centre = scene.rng, scene.point()
    size, period, count, normal = rng.uniform(20, 38), rng.uniform(5.5, 8), rng.integers(3, 7), rng.standard_normal(3)
    normal /= np.linalg.norm(normal)
    parts = scene.apart(centre, scene.whole())
    height = sum(part * each for part, each in zip(parts, normal, strict=True))
    flat = np.clip(sum(part**2 for part in parts) - height**2, 0, None)
    level = (height + flat / rng.uniform(60, 160) + 1.5 * field(rng, scene.shape, 20)) / period + (count - 1) / 2
    sheet = abs(level - np.clip(np.round(level), 0, count - 1)) * period
    depth = np.minimum(period / 3 - sheet, size - np.sqrt(flat))
    scene.layered(scene.whole(), depth, 1.2, (LABEL["golgi_mem"], LABEL["golgi_lum"]), rng.uniform(150, 185))


def ball(scene: Scene, size: float, rim: float, labels: tuple[int, int], wholly: bool) -> None:
    """A vesicle or an endosome."""
    rng = scene.rng
    centre = rng.uniform(0, scene.shape) if wholly else scene.point()
    box = scene.box(centre, size + 5)
    depth = size - np.sqrt(sum(part**2 for part in scene.apart(centre, box)))
    if not wholly:
        depth = depth - 1.5 * field(rng, depth.shape, 14)
    if not wholly or scene.free[box][depth > 0].all():
        scene.layered(box, depth, rim, labels, rng.uniform(150, 195))


def reticulum(scene: Scene) -> None:
    """er_mem, er_lum."""
    rng = scene.rng
    distance = level_distance(field(rng, scene.shape, rng.uniform(14, 24)), rng.uniform(-0.6, 0.6))
    depth = rng.uniform(1.8, 3.4) + 1.4 - abs(distance)
    depth[field(rng, scene.shape, 30) <= rng.uniform(-0.4, 0.9)] = -1
    scene.layered(scene.whole(), depth, 1.4, (LABEL["er_mem"], LABEL["er_lum"]), rng.uniform(150, 180))


def image(scene: Scene) -> NDArray[np.uint8]:
    """Blur, artefacts, noise."""
    rng, (depth, _, width) = scene.rng, scene.shape
    sd = rng.uniform(0.5, 0.9)
    volume = ndimage.gaussian_filter(scene.grey, (rng.uniform(0.6, 1.1), sd, sd), mode="nearest")
    for place in np.flatnonzero(rng.random(depth) < 0.15):
        volume[place] = ndimage.shift(volume[place], rng.normal(0, 0.5, 2), order=1, mode="nearest")
    gain = 1 + rng.normal(0, 0.015, depth) + np.cumsum(rng.normal(0, 0.002, depth))
    streaks = np.clip(abs(field(rng, (depth, 1, width), 1.5)) - 1.5, 0, 1)
    volume = volume * gain[:, None, None] * (1 - rng.uniform(0.02, 0.12) * streaks)
    volume = volume + rng.uniform(0, 3.5) * field(rng, scene.shape, 80)
    volume = volume + rng.normal(size=scene.shape) * np.sqrt(np.clip(volume, 0, None) * rng.uniform(40, 220) / 130)
    return np.clip(np.round(volume * rng.uniform(0.75, 1.25) + rng.uniform(-15, 20)), 0, 255).astype(np.uint8)


def prototype(seed: int, number: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image and labels of a crop."""
    rng = np.random.default_rng([seed, number])
    scene = Scene(rng, shape)
    for chance, draw in ((0.55, extracellular), (0.28, nucleus)):
        if rng.random() < chance:
            draw(scene)
    for _ in range(rng.poisson(1.3)):
        mitochondrion(scene)
    if rng.random() < 0.09:
        golgi(scene)
    for _ in range(rng.poisson(1.2)):
        labels = (LABEL["endo_mem"], LABEL["endo_lum"]) if rng.random() < 0.6 else (0, 0)
        ball(scene, rng.uniform(8, 20), 1.7, labels, wholly=False)
    reticulum(scene)
    if rng.random() < 0.5:
        dots = ndimage.maximum_filter(rng.random(shape) < 0.004, 2)
        scene.grey[dots & scene.free] -= 50
    for _ in range(rng.poisson(10)):
        ball(scene, rng.uniform(2.6, 5.5), 1.3, (LABEL["ves_mem"], LABEL["ves_lum"]), wholly=True)
    return image(scene), scene.label


class Timed(NamedTuple):
    """Seconds of processors and of the clock, and the labels that were made."""

    processor: float
    clock: float
    labels: list[NDArray[np.uint8]]


def timed(work: Callable[[], list[NDArray[np.uint8]]]) -> Timed:
    """What making some crops takes."""
    processor, clock = time.process_time(), time.perf_counter()
    labels = work()
    return Timed(time.process_time() - processor, time.perf_counter() - clock, labels)


def main() -> None:
    """Print seconds per crop, their ratios, and the classes' shares in both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crops", type=int, default=32)
    parser.add_argument("--shape", type=int, nargs=3, default=(64, 128, 128))
    parser.add_argument("--threads", type=int, default=2, help="of the generator; NumPy's crops follow each other")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    z, y, x = arguments.shape
    pool = ThreadPoolExecutor(arguments.threads, initializer=torch.set_num_threads, initargs=(1,))

    def generated(number: int) -> NDArray[np.uint8]:
        return simulate_crop(0, number, (z, y, x), 4, 0.35).label.numpy()

    found: dict[str, list[Timed]] = {"NumPy and SciPy": [], "generator": []}
    list(pool.map(generated, range(arguments.threads)))
    for start in range(0, arguments.crops, BLOCK):
        numbers = range(start, min(start + BLOCK, arguments.crops))
        found["NumPy and SciPy"].append(timed(lambda block=numbers: [prototype(0, k, (z, y, x))[1] for k in block]))
        found["generator"].append(timed(lambda block=numbers: list(pool.map(generated, block))))
    print(f"{arguments.crops} crops of {z} x {y} x {x} voxels; generator on {arguments.threads} threads")
    base = found["NumPy and SciPy"]
    for name, each in found.items():
        for kind in ("processor", "clock"):
            seconds, others = (sum(getattr(one, kind) for one in some) for some in (each, base))
            print(f"{name:16} {kind:9} {seconds / arguments.crops:.3f} s per crop, ratio {others / seconds:.1f}")
    for name, each in found.items():
        labels = [label for block in each for label in block.labels]
        counts = np.stack([np.bincount(label.ravel(), minlength=15)[1:] / label.size for label in labels])
        words = [f"{key} {100 * share[share > 0].mean():.2g}" for key, share in zip(CLASSES, counts.T, strict=True)]
        print(f"{name:16} % where present: {', '.join(words)}")


if __name__ == "__main__":
    main()
