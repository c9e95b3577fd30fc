"""The objects of a simulated crop, one function each, from large to small; open it for a shape or a grey value.

Lengths are voxels of 8 nm. Objects are painted into free space only. Every membrane is dark.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from assay.studies.organelles.canvas import Canvas, extents, offsets, radius
from assay.studies.organelles.classes import CLASSES, OTHER
from assay.studies.organelles.draw import Draw
from assay.studies.organelles.fields import field, level_distance

LABEL = {name: place + 1 for place, name in enumerate(CLASSES)}
MITO_RIBO = 1.2e-4  # of the crop's volume at most, per mitochondrion
RIBOSOMES = 0.004  # per voxel


def membrane_grey(draw: Draw) -> float:
    """Of one object's membranes."""
    return draw.number(60, 85)


def extracellular(canvas: Canvas, draw: Draw) -> None:
    """ecs on one side of a surface, or as a gap between two cells, and the plasma membrane along it."""
    distance = level_distance(canvas.shape, 60, draw.number(0.3, 1.3), draw)
    if draw.chance(0.5):
        distance = draw.number(1.5, 14) - distance.abs_()
    membrane = canvas.paint(canvas.whole, distance > -1.6, LABEL["pm"], membrane_grey(draw))
    canvas.paint(canvas.whole, distance > 0, LABEL["ecs"], draw.number(180, 215), membrane)


def nucleus(canvas: Canvas, draw: Draw) -> None:
    """A ball that may be cut by the crop, with an envelope of membrane, gap, membrane, and chromatin inside."""
    edges = torch.tensor(canvas.shape)
    centre, size = (draw.uniform(3) * 1.4 - 0.2) * edges, draw.number(60, 150)
    depth = field(canvas.shape, 40, draw).mul_(-6).add_(size).sub_(radius(offsets(canvas.whole, centre)))
    inside = (depth > 0) & canvas.free(canvas.whole)
    grey, label = draw.number(128, 150), LABEL["nuc"]
    membrane = canvas.paint(canvas.whole, inside, label, membrane_grey(draw))
    gap = inside & (depth > 1.6) & (depth < 4.5)
    canvas.paint(canvas.whole, gap, label, draw.number(150, 170), membrane)
    light = canvas.paint(canvas.whole, inside & (depth > 6), label, grey, membrane)
    dark = inside & (depth > 6) & (field(canvas.shape, 9, draw) > 0.5)
    canvas.paint(canvas.whole, dark, label, grey - 28, light)


def mitochondrion(canvas: Canvas, draw: Draw) -> None:
    """A capsule with a membrane, cristae, and a few ribosomes as dark dots of 3 voxels."""
    centre = canvas.free_point(draw)
    if centre is None:
        return
    size, half, along = draw.number(14, 32), draw.number(0, 60), draw.direction()
    box = canvas.box(centre, [size + 6 + half * abs(part) for part in along.tolist()])
    if box is None:
        return
    parts = offsets(box, centre)
    reach = sum((part * each for part, each in zip(parts, along.tolist(), strict=True)), torch.zeros(()))
    reach = reach.clamp(-half, half)
    away = [part - reach * each for part, each in zip(parts, along.tolist(), strict=True)]
    depth = field(extents(box), 30, draw).mul_(-2).add_(size).sub_(radius(away))
    inside = (depth > 0) & canvas.free(box)
    membrane = canvas.paint(box, inside, LABEL["mito_mem"], membrane_grey(draw))
    lumen = inside & (depth > 2.2) & (field(extents(box), 6, draw).abs_() >= 0.16)
    matrix = canvas.paint(box, lumen, LABEL["mito_lum"], draw.number(98, 122), membrane)
    dots = mito_ribosomes(lumen, round(MITO_RIBO * canvas.part.numel() / 27), draw)
    canvas.paint(box, dots, LABEL["mito_ribo"], draw.number(45, 65), matrix)


def mito_ribosomes(lumen: Tensor, most: int, draw: Draw) -> Tensor:
    """Dots of 3 x 3 x 3 voxels in a lumen (bool), as far as they lie in it: `most` of them, fewer in a small one."""
    places, dots = lumen.nonzero(), torch.zeros_like(lumen)
    count = min(most, len(places) // 216)
    if count == 0:
        return dots
    steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
    around = (places[draw.below(len(places), count)][:, None] + steps).view(-1, 3)
    around = around[((around >= 0) & (around < torch.tensor(lumen.shape))).all(1)]
    dots[around.unbind(1)] = True
    return dots & lumen


def golgi(canvas: Canvas, draw: Draw) -> None:
    """A stack of 3 to 6 curved sheets, each a flat lumen with a membrane as its rim."""
    centre = canvas.free_point(draw)
    if centre is None:
        return
    size, period, count = draw.number(20, 38), draw.number(5.5, 8), draw.whole(3, 6)
    box = canvas.box(centre, [size + 4 + count * period / 2] * 3)
    if box is None:
        return
    parts, normal = offsets(box, centre), draw.direction().tolist()
    height = sum((part * each for part, each in zip(parts, normal, strict=True)), torch.zeros(()))
    flat = (sum((part * part for part in parts), torch.zeros(())) - height * height).clamp_min(0)
    bent = height + flat / draw.number(60, 160) + 1.5 * field(extents(box), 20, draw)
    level = bent / period + (count - 1) / 2
    sheet = (level - level.round().clamp(0, count - 1)).abs() * period
    depth = torch.minimum(period / 3 - sheet, size - flat.sqrt())
    inside = (depth > 0) & canvas.free(box)
    membrane = canvas.paint(box, inside, LABEL["golgi_mem"], membrane_grey(draw))
    canvas.paint(box, inside & (depth > 1.2), LABEL["golgi_lum"], draw.number(150, 185), membrane)


def endosome(canvas: Canvas, draw: Draw) -> None:
    """A ball: an endosome, or a dark lysosome or a uniform lipid droplet, which look alike and have no label."""
    centre = canvas.free_point(draw)
    if centre is None:
        return
    size, kind = draw.number(8, 20), draw.number(0, 1)
    box = canvas.box(centre, [size + 5] * 3)
    if box is None:
        return
    depth = field(extents(box), 14, draw).mul_(-1.5).add_(size).sub_(radius(offsets(box, centre)))
    inside = (depth > 0) & canvas.free(box)
    labels = (LABEL["endo_mem"], LABEL["endo_lum"]) if kind < 0.6 else (OTHER, OTHER)
    grey = draw.number(150, 195) if kind < 0.6 else draw.number(75, 105) if kind < 0.85 else draw.number(100, 130)
    membrane = canvas.paint(box, inside, labels[0], membrane_grey(draw) if kind < 0.85 else grey)
    canvas.paint(box, inside & (depth > 1.7), labels[1], grey, membrane)


def reticulum(canvas: Canvas, draw: Draw) -> None:
    """The endoplasmic reticulum: a band along a surface of a field, in parts of the crop that another field chooses."""
    half = draw.number(1.8, 3.4)
    depth = half - level_distance(canvas.shape, draw.number(14, 24), draw.number(-0.6, 0.6), draw).abs_()
    gate = field(canvas.shape, 30, draw) > draw.number(-0.4, 0.9)
    inside = (depth > -1.4) & gate & canvas.free(canvas.whole)
    membrane = canvas.paint(canvas.whole, inside, LABEL["er_mem"], membrane_grey(draw))
    canvas.paint(canvas.whole, inside & (depth > 0), LABEL["er_lum"], draw.number(150, 180), membrane)


def ribosomes(shape: Sequence[int], draw: Draw) -> Tensor:
    """Grey values (Z, Y, X), 0 or below: dark dots of 2 voxels in the cytoplasm, which have no label."""
    count = int(RIBOSOMES * math.prod(shape))
    dots = torch.zeros(tuple(shape))
    corner = [draw.below(edge - 1, count) for edge in shape]
    depth = torch.tensor(-draw.number(40, 60))
    for z, y, x in torch.cartesian_prod(*[torch.arange(2)] * 3).tolist():
        dots[corner[0] + z, corner[1] + y, corner[2] + x] = depth
    return dots


def vesicle(canvas: Canvas, draw: Draw) -> None:
    """A small ball at a random place, if it lies wholly in free space there."""
    size, centre = draw.number(2.6, 5.5), canvas.point(draw)
    box = canvas.box(centre, [size + 1] * 3)
    if box is None:
        return
    depth = size - radius(offsets(box, centre))
    inside = depth > 0
    if not bool((canvas.free(box) | ~inside).all()):
        return
    membrane = canvas.paint(box, inside, LABEL["ves_mem"], membrane_grey(draw))
    canvas.paint(box, inside & (depth > 1.3), LABEL["ves_lum"], draw.number(140, 190), membrane)
