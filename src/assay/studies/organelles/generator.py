"""Simulated FIB-SEM crops with the 14 classes; open it for what is in a crop and how often.

Crop k is a function of (seed, k), of its shape and of the number of datasets alone. Voxels are 8 nm. A crop begins as
cytoplasm with a texture; objects.py paints into it from large to small, imaging.py makes an image of it.
"""

from typing import NamedTuple

from torch import Tensor

from assay.engine.random import generator
from assay.studies.organelles import objects
from assay.studies.organelles.annotation import draw_annotation
from assay.studies.organelles.canvas import Canvas
from assay.studies.organelles.draw import Draw
from assay.studies.organelles.fields import field
from assay.studies.organelles.imaging import draw_microscope, image

Shape = tuple[int, int, int]


class Simulated(NamedTuple):
    """A crop: image and labels (Z, Y, X) uint8 of every class, which classes are annotated (C,), its dataset."""

    image: Tensor
    label: Tensor
    annotated: Tensor
    dataset: str


def cytoplasm(shape: Shape, draw: Draw) -> Tensor:
    """Grey values (Z, Y, X) of what lies between the objects, half of the time with ribosomes."""
    grey = field(shape, 5, draw).mul_(6).add_(draw.number(140, 165))
    grey.add_(field(shape, 2.2, draw), alpha=9)
    return grey.add_(objects.ribosomes(shape, draw)) if draw.chance(0.5) else grey


def paint_objects(canvas: Canvas, draw: Draw) -> None:
    """Everything that a crop may hold, from large to small."""
    if draw.chance(0.55):
        objects.extracellular(canvas, draw)
    if draw.chance(0.28):
        objects.nucleus(canvas, draw)
    for _ in range(draw.poisson(1.3)):
        objects.mitochondrion(canvas, draw)
    if draw.chance(0.09):
        objects.golgi(canvas, draw)
    for _ in range(draw.poisson(1.2)):
        objects.endosome(canvas, draw)
    objects.reticulum(canvas, draw)
    for _ in range(draw.poisson(10)):
        objects.vesicle(canvas, draw)


def simulate_crop(seed: int, number: int, shape: Shape, datasets: int, fully_annotated: float) -> Simulated:
    """Crop `number` of a data set; on one machine the same arguments give the same bits."""
    draw, canvas = Draw(generator(seed, "crop", number)), Canvas(shape)
    paint_objects(canvas, draw)
    dataset = number % datasets
    microscope = draw_microscope(Draw(generator(seed, "dataset", dataset)))
    seen = image(canvas.grey(cytoplasm(shape, draw)), microscope, draw)
    annotated = draw_annotation(fully_annotated, Draw(generator(seed, "annotation", number)))
    return Simulated(seen, canvas.label(), annotated, f"simulated-{dataset + 1:02d}")
