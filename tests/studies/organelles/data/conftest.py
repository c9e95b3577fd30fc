"""A few small crops in a folder, and a store in the challenge's layout whose every number a test may choose."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from assay.studies.organelles.cache import Crops
from assay.studies.organelles.cache_files import new_crops
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.crop import NewCrop
from assay.studies.organelles.grid import Grid
from assay.studies.organelles.zarr_layout import EM, GROUNDTRUTH, write_array

VOXEL = (8.0, 8.0, 8.0)


def flags(*names: str) -> np.ndarray:
    """Classes (C,) of these names; all without names."""
    return np.isin(CLASSES, names or CLASSES)


def new_crop(name: str = "a/crop1", shape=(6, 20, 24), seed: int = 0, **changes) -> NewCrop:
    """Noise with random labels, everything annotated."""
    rng = np.random.default_rng(seed)
    crop = NewCrop(
        name=name,
        dataset=name.split("/")[0],
        image=rng.integers(0, 256, shape, np.uint8),
        label=rng.integers(0, len(CLASSES) + 1, shape).astype(np.uint8),
        annotated=flags(),
        labelled=flags(),
        box=None,
        voxel_nm=VOXEL,
    )
    return crop._replace(**changes)


def keep(folder: Path, *crops: NewCrop) -> Path:
    """Write crops to a folder."""
    with new_crops(folder, {"made": "by a test"}) as writer:
        for crop in crops:
            writer.add(crop)
    return folder


@pytest.fixture
def make_crops(tmp_path) -> Callable[..., Crops]:
    """Opened crops."""

    def make(*crops: NewCrop, view: str = "masked") -> Crops:
        return Crops.open(keep(tmp_path / "crops", *crops), view)

    return make


class Store:
    """One crop of a challenge data set on disk: an image and arrays of classes, each with a grid of its own."""

    def __init__(self, root: Path, dataset: str = "jrc_hela-2", number: int = 7) -> None:
        self.root = root
        self.recon = root / dataset / f"{dataset}.zarr/recon-1"
        self.crop = self.recon / GROUNDTRUTH / f"crop{number}"

    def image(self, values: np.ndarray, scale=VOXEL, translation=(0.0, 0.0, 0.0)) -> "Store":
        """Write the image."""
        write_array(self.recon / EM, values, Grid(scale, translation, values.shape))
        return self

    def label(self, name: str, values: np.ndarray, scale=VOXEL, translation=(0.0, 0.0, 0.0)) -> "Store":
        """Write the array of a class."""
        write_array(self.crop / name, values, Grid(scale, translation, values.shape))
        return self


@pytest.fixture
def store(tmp_path) -> Store:
    """An empty one."""
    return Store(tmp_path / "challenge")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """An image."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def ones(*shape: int, first: int = 0, last: int | None = None) -> np.ndarray:
    """Labels that are 1 in some rows along z, 0 elsewhere."""
    values = np.zeros(shape, np.uint8)
    values[first:last] = 1
    return values
