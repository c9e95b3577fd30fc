"""Crops of the CellMap challenge as they are kept for training; open it for what is checked, and why one is refused.

The label box is resampled to the wanted voxel size, images linearly from the level closest to it, labels to the
nearest voxel. Downloads are often incomplete: an image that is constant inside of the label box is a missing one.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.studies.organelles.classes import CHALLENGE, CLASSES, NUCLEAR, OUTSIDE, check_names
from assay.studies.organelles.crop import Flags, NewCrop, Volume
from assay.studies.organelles.grid import Grid, Triple, grid_over, linear, nearest
from assay.studies.organelles.zarr_layout import CropPlace, Level, annotated_names, closest, levels

TWICE = 1e-3  # share of labelled voxels that may belong to two classes, which resampling makes at borders


def read_crop(place: CropPlace, voxel_nm: Triple, context: tuple[int, int, int]) -> NewCrop:
    """A crop at a voxel size, with as much image around its label box as there is, up to `context` voxels.

    Raises:
        DataError: an array is missing or no label, a name is not in the class table, classes have different boxes or
            overlap, or the image does not reach the box, is not uint8, or is constant there. Names the crop.
    """
    where = f"crop {place.name}"
    arrays = class_levels(place, where, voxel_nm)
    image_level = closest(_levels(place, where), voxel_nm)
    box = label_box(arrays, image_level, voxel_nm, where)
    label, annotated = merge_labels(arrays, box, where)
    check_all(place, box, where, voxel_nm)
    image, before = read_image(image_level, box, context, where)
    label, known = _placed(label, before, image.shape)
    return NewCrop(place.name, place.dataset, image, label, annotated, annotated, known, voxel_nm)


def voxels_of(place: CropPlace, voxel_nm: Triple) -> int:
    """Voxels of a crop's label box at a voxel size, from its attributes alone.

    Raises:
        DataError: as `read_crop`.
    """
    first = next(iter(class_levels(place, f"crop {place.name}", voxel_nm).values()))[0].grid
    return math.prod(grid_over(first.start.tolist(), first.end.tolist(), voxel_nm).shape)


def _levels(place: CropPlace, where: str) -> list[Level]:
    found = levels(place.image) if place.image.is_dir() else []
    if not found:
        raise DataError(f"{where}: got no image in {place.image}; allowed: one level or more; fetch it")
    return found


def class_levels(place: CropPlace, where: str, voxel_nm: Triple) -> dict[str, list[Level]]:
    """Arrays that make up each annotated class, at the level closest to a voxel size: nuc may be ten of them.

    Raises:
        DataError: a name is unknown, or none of the classes of this study is annotated.
    """
    names = list(annotated_names(place))
    check_names(names, where)
    wanted = {name: [name] for name in CLASSES if name in names}
    if "nuc" not in names and set(NUCLEAR) <= set(names):
        wanted["nuc"] = list(NUCLEAR)
    if not wanted:
        got = ", ".join(names) or "no class"
        raise DataError(f"{where}: got {got}; allowed: one or more of {', '.join(CLASSES)}; leave it out")
    return {name: [_class_level(place, part, where, voxel_nm) for part in parts] for name, parts in wanted.items()}


def _class_level(place: CropPlace, name: str, where: str, voxel_nm: Triple) -> Level:
    found = levels(place.labels / name)
    if not found:
        raise DataError(f"{where}: class {name} has no level; allowed: s0; fetch it, or remove the class")
    return closest(found, voxel_nm)


def label_box(arrays: Mapping[str, list[Level]], image: Level, voxel_nm: Triple, where: str) -> Grid:
    """The grid on which crops are kept: the common box of all classes, as far as the image reaches.

    Raises:
        DataError: the boxes of two classes differ by more than a voxel, or the image does not reach the box.
    """
    first, grid = next((name, parts[0].grid) for name, parts in arrays.items())
    for name, parts in arrays.items():
        for part in parts:
            apart = np.maximum(abs(part.grid.start - grid.start), abs(part.grid.end - grid.end))
            if (apart > np.maximum(np.maximum(part.grid.scale, grid.scale), voxel_nm)).any():
                got = f"class {name} from {_words(part.grid)}, class {first} from {_words(grid)}"
                raise DataError(f"{where}: got {got}; allowed: one label box; fetch it again, or remove a class")
    start, end = np.maximum(grid.start, image.grid.start), np.minimum(grid.end, image.grid.end)
    if (end - start < np.array(voxel_nm) / 2).any():
        got = f"labels from {_words(grid)} and an image from {_words(image.grid)}"
        raise DataError(f"{where}: got {got}; allowed: an image that reaches the label box; fetch it, or leave it out")
    return grid_over(start.tolist(), end.tolist(), voxel_nm)


def _words(grid: Grid) -> str:
    return f"{', '.join(f'{at:g}' for at in grid.start)} to {', '.join(f'{at:g}' for at in grid.end)} nm"


def merge_labels(arrays: Mapping[str, list[Level]], box: Grid, where: str) -> tuple[Volume, Flags]:
    """Labels (Z, Y, X) of all classes on a grid, and which are annotated (C,).

    Raises:
        DataError: an array holds no whole numbers, or a share of voxels above TWICE belongs to two classes.
    """
    label, unknown = np.zeros(box.shape, np.uint8), np.zeros(box.shape, np.bool_)
    owner = {}
    for name, parts in arrays.items():
        present = np.zeros(box.shape, np.bool_)
        for part in parts:
            values = _label_values(part, box, where)
            present |= _present(values)
            unknown |= ~_present(values) & (values > 0)
        taken = present & (label > 0)
        if taken.sum() > TWICE * present.sum():
            other = CLASSES[int(label[taken][0]) - 1]
            got = f"{int(taken.sum())} voxels of both {other} and {name}"
            raise DataError(f"{where}: got {got}; allowed: classes that do not overlap; correct the labels")
        owner[name] = present
        label[present & ~taken] = CLASSES.index(name) + 1
    label[unknown & (label == 0)] = OUTSIDE
    return label, np.isin(CLASSES, list(owner))


def _label_values(level: Level, box: Grid, where: str) -> NDArray[Any]:
    values = nearest(level.array(), level.grid, box)
    if not np.issubdtype(values.dtype, np.integer):
        got = f"labels of type {values.dtype} in {level.path.parent.name}"
        raise DataError(f"{where}: got {got}; allowed: whole numbers, 0 for absent; correct the labels")
    if values.size and values.min() < 0:
        got = f"label {values.min()} in {level.path.parent.name}"
        raise DataError(f"{where}: got {got}; allowed: 0 for absent, above 0 for present; correct the labels")
    return values


def _present(values: NDArray[Any]) -> Flags:
    """Above 0; in uint8 conversions 255 says that it is unknown."""
    known: Flags = values > 0
    return known & (values != OUTSIDE) if values.dtype == np.uint8 else known


def check_all(place: CropPlace, box: Grid, where: str, voxel_nm: Triple) -> None:
    """Compare the array `all`, if there is one, with the class table.

    Raises:
        DataError: it holds the id of no class.
    """
    if not (place.labels / "all").is_dir():
        return
    level = _class_level(place, "all", where, voxel_nm)
    values = np.unique(_label_values(level, box, where))
    outside = [value for value in values.tolist() if len(CHALLENGE) < value != OUTSIDE]
    if outside:
        allowed = f"0 to {len(CHALLENGE)}, or {OUTSIDE} for unknown"
        raise DataError(f"{where}: got label {outside[0]} in all; allowed: {allowed}; correct the labels")


def read_image(
    level: Level, box: Grid, context: tuple[int, int, int], where: str
) -> tuple[Volume, tuple[int, int, int]]:
    """uint8 image around a box, and how many voxels of it come before the box along each axis.

    Raises:
        DataError: its values are not finite numbers from 0 to 255, or constant inside of the box.
    """
    room = (box.start - level.grid.start + 1e-6) / box.scale, (level.grid.end - box.end + 1e-6) / box.scale
    before, after = (
        tuple(int(min(wanted, max(there, 0))) for wanted, there in zip(context, side.tolist(), strict=True))
        for side in room
    )
    translation = tuple(at - edge * count for at, edge, count in zip(box.translation, box.scale, before, strict=True))
    shape = tuple(sum(each) for each in zip(before, box.shape, after, strict=True))
    values = linear(level.array(), level.grid, Grid(box.scale, translation, shape))  # type: ignore[arg-type]
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
        got = f"an image with values from {values.min():g} to {values.max():g}"
        raise DataError(f"{where}: got {got}; allowed: finite numbers from 0 to 255; use fibsem-uint8")
    inside = values[tuple(slice(low, low + edge) for low, edge in zip(before, box.shape, strict=True))]
    if inside.min() == inside.max():
        got = f"an image that is {inside.min():g} everywhere in the label box"
        raise DataError(f"{where}: got {got}; allowed: an image with contrast; fetch it again, or leave it out")
    return np.rint(values).astype(np.uint8), (before[0], before[1], before[2])


def _placed(label: Volume, before: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[Volume, Any]:
    """Labels in a volume of the image's shape, OUTSIDE around them, and their box there; None if it is all."""
    if label.shape == shape:
        return label, None
    box = tuple((low, low + edge) for low, edge in zip(before, label.shape, strict=True))
    placed = np.full(shape, OUTSIDE, np.uint8)
    placed[tuple(slice(*ends) for ends in box)] = label
    return placed, box
