"""Where the CellMap segmentation challenge keeps images and labels in Zarr stores; open it for a path or an attribute.

    <root>/<dataset>/<dataset>.zarr/recon-<n>/em/fibsem-uint8/s0, s1, ...
    <root>/<dataset>/<dataset>.zarr/recon-<n>/labels/groundtruth/crop<k>/<class>/s0, s1, ...

Zarr format 2; the .zattrs of the folder above s0 has scale and translation of every level. A class without an array was
not annotated; an array without chunks is 0 throughout: the class was looked for and is absent.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.errors import ConfigError, DataError
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.crop import NewCrop
from assay.studies.organelles.grid import Grid

EM, GROUNDTRUTH = "em/fibsem-uint8", "labels/groundtruth"
CHUNK = 64


def zarr_package() -> ModuleType:
    """The package zarr.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import zarr
    except ImportError as error:
        raise ConfigError(f"data.zarr: zarr cannot be imported ({error}); install assay[organelles]") from None
    return zarr


class CropPlace(NamedTuple):
    """The folders of a crop's labels and of the image that it is a part of."""

    dataset: str
    labels: Path
    image: Path

    @property
    def name(self) -> str:
        """Unique among all data sets, see `find_crops`."""
        return f"{self.dataset}/{self.labels.name}"


def find_crops(root: Path) -> list[CropPlace]:
    """All crops below a folder, in the order of data sets and crop numbers.

    Raises:
        DataError: there is none, or two have the same name, so that a split could not tell them apart.
    """
    found: list[CropPlace] = []
    for labels in root.glob(f"*/*.zarr/recon-*/{GROUNDTRUTH}/crop*"):
        recon = labels.parents[2]
        found.append(CropPlace(recon.parents[1].name, labels, recon / EM))
    if not found:
        layout = f"<dataset>/<dataset>.zarr/recon-1/{GROUNDTRUTH}/crop<k>"
        raise DataError(f"{root}: got no crops; allowed: {layout}; set data.zarr to the folder with the data sets")
    several = [name for name, count in Counter(place.name for place in found).items() if count > 1]
    if several:
        places = ", ".join(sorted(str(place.labels) for place in found if place.name == several[0]))
        raise DataError(f"{places}: got the same name {several[0]}; allowed: one number for each crop; rename one")
    return sorted(found, key=lambda place: (place.dataset, len(place.labels.name), place.labels.name))


class Level(NamedTuple):
    """One scale of an image or label: its array's folder and grid."""

    path: Path
    grid: Grid

    def array(self) -> Any:
        """The values, which are read where they are indexed."""
        return zarr_package().open_array(str(self.path), mode="r")


def levels(folder: Path) -> list[Level]:
    """The levels of an image or a class, as its .zattrs says.

    Raises:
        DataError: the attributes are missing or no multiscale of OME-NGFF, or an array is not there.
    """
    path = folder / ".zattrs"
    try:
        multiscale = json.loads(path.read_text())["multiscales"][0]
        pairs = [(each["path"], _transform(each["coordinateTransformations"])) for each in multiscale["datasets"]]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; allowed: scale and translation of OME-NGFF; fetch it again") from None
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path}: is no multiscale of OME-NGFF ({error!r}); fetch it again") from None
    return [
        Level(folder / name, Grid(*transform, shape=_shape(folder / name)))
        for name, transform in pairs
        if (folder / name).is_dir()
    ]


def _shape(path: Path) -> tuple[int, int, int]:
    try:
        z, y, x = json.loads((path / ".zarray").read_text())["shape"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: is no array of three axes in Zarr format 2 ({reason}); fetch it again") from None
    return z, y, x


def _transform(
    transformations: Sequence[dict[str, Any]],
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    given = {each["type"]: each[each["type"]] for each in transformations}
    z, y, x = (float(edge) for edge in given["scale"])
    at_z, at_y, at_x = (float(place) for place in given["translation"])
    return (z, y, x), (at_z, at_y, at_x)


def closest(choices: Sequence[Level], voxel_nm: Sequence[float]) -> Level:
    """The level whose voxels come closest to a size."""
    return min(choices, key=lambda level: float(np.abs(np.log(np.divide(level.grid.scale, voxel_nm))).sum()))


def attributes(scales: Sequence[tuple[str, Grid]]) -> dict[str, Any]:
    """The .zattrs of a folder with these levels."""
    datasets = [
        {
            "path": name,
            "coordinateTransformations": [
                {"type": "scale", "scale": list(grid.scale)},
                {"type": "translation", "translation": list(grid.translation)},
            ],
        }
        for name, grid in scales
    ]
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    return {"multiscales": [{"version": "0.4", "name": "", "axes": axes, "datasets": datasets}]}


def write_array(folder: Path, volume: NDArray[Any], grid: Grid) -> None:
    """Write a volume as level s0 of a folder; chunks of zeros only are left out."""
    folder.mkdir(parents=True)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(attributes([("s0", grid)])))
    chunks = tuple(min(CHUNK, edge) for edge in volume.shape)
    array = zarr_package().create_array(
        str(folder / "s0"),
        shape=volume.shape,
        dtype=volume.dtype,
        chunks=chunks,
        fill_value=0,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
        config={"write_empty_chunks": False},
    )
    array[:] = volume


def write_crop(root: Path, number: int, crop: NewCrop) -> None:
    """Write a crop as recon-<number> of its data set, with an array for every annotated class and for no other."""
    recon = root / crop.dataset / f"{crop.dataset}.zarr" / f"recon-{number}"
    shape = crop.image.shape
    grid = Grid(crop.voxel_nm, (0.0, 0.0, 0.0), (shape[0], shape[1], shape[2]))
    write_array(recon / EM, crop.image, grid)
    for place in np.flatnonzero(crop.annotated).tolist():
        present = (crop.label == place + 1).astype(np.uint8)
        write_array(recon / GROUNDTRUTH / f"crop{number}" / CLASSES[place], present, grid)


def annotated_names(place: CropPlace) -> Iterator[str]:
    """Names of the classes that have an array in a crop, in alphabetical order; `all` is none."""
    yield from sorted(path.name for path in place.labels.iterdir() if path.is_dir() and path.name != "all")
