"""The kept crops as training sees them, read by memory map; open it for the views of annotation and the prior.

A view decides what is shown: masked, what is annotated; absent, the same with everything else taken for absent; full,
every label, for crops of which all are known.
"""

import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from assay.config import resolved
from assay.errors import DataError
from assay.studies.organelles.cache_files import AGAIN, IMAGES, LABELS, check_file, read_manifest
from assay.studies.organelles.classes import CLASSES, OTHER
from assay.studies.organelles.crop import Crop
from assay.studies.organelles.data_section import DataConfig
from assay.studies.organelles.prior import Frequencies

View = Literal["masked", "absent", "full"]


def identifying(data: DataConfig) -> dict[str, Any]:
    """The parameters that the kept crops depend on: all but paths, the view, and the split."""
    left_out = {"path", "annotation", "split", "validation_fraction", "held_out"}
    if data.source == "simulated":
        left_out.add("zarr")
    every = resolved(data)
    return {name: every[name] for name in sorted(every) if name not in left_out}


def open_crops(data: DataConfig, view: View | None = None) -> "Crops":
    """The crops that the simulate stage wrote, in the view of the parameters or in another one.

    Raises:
        DataError: as `Crops.open`, or they were made with other parameters.
    """
    crops = Crops.open(Path(data.path), view or data.annotation)
    there = crops.parameters
    for name, value in identifying(data).items():
        if there.get(name) != value:
            raise DataError(f"{data.path}: made with data.{name} {there.get(name)}, not {value}; {AGAIN}")
    return crops


class Crops:
    """All crops of a folder, in one view; `crops[i]` is a Crop. digest: identity of what is in the files."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], maps: Sequence[mmap.mmap], view: View) -> None:
        self.folder, self.view = folder, view
        self.digest: str = manifest["digest"]
        self.parameters: dict[str, Any] = manifest["parameters"]
        self.skipped: list[dict[str, str]] = manifest["skipped"]
        self._manifest, self._maps = manifest, maps
        self._crops = [self._crop(entry) for entry in manifest["crops"]]

    @classmethod
    def open(cls, folder: Path, view: View = "masked", check: bool = True) -> "Crops":
        """The crops of a folder; check: read all of it once to compare digests.

        Raises:
            DataError: the folder holds no crops, a file is truncated or was altered, or a view needs unknown labels.
        """
        manifest = read_manifest(folder)
        maps = []
        for name, key in ((IMAGES, "image_sha256"), (LABELS, "label_sha256")):
            check_file(folder / name, manifest, key, check)
            with (folder / name).open("rb") as file:
                maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        return cls(folder, manifest, maps, view)

    def seen_as(self, view: View) -> "Crops":
        """The same crops in another view.

        Raises:
            DataError: full, and labels of a class are not known.
        """
        return self if view == self.view else Crops(self.folder, self._manifest, self._maps, view)

    def _crop(self, entry: Mapping[str, Any]) -> Crop:
        shape = tuple(entry["shape"])
        image, label = (
            np.frombuffer(each, np.uint8, int(np.prod(shape)), entry["offset"]).reshape(shape) for each in self._maps
        )
        visible = np.isin(CLASSES, entry["labelled" if self.view == "full" else "annotated"])
        if self.view == "full" and not visible.all():
            unknown = ", ".join(name for name, seen in zip(CLASSES, visible, strict=True) if not seen)
            got = f"crop {entry['name']} without labels of {unknown}"
            raise DataError(f"{self.folder}: got {got}; allowed with data.annotation full: labels of every class")
        shown = np.arange(256, dtype=np.uint8)
        shown[np.flatnonzero(~visible) + 1] = OTHER
        return Crop(
            name=entry["name"],
            dataset=entry["dataset"],
            image=image,
            label=label,
            annotated=np.ones_like(visible) if self.view == "absent" else visible,
            known=_box(entry["box"]),
            voxel_nm=tuple(entry["voxel_nm"]),
            shown=shown,
            positives=np.where(visible, entry["voxels"], 0).astype(np.int64),
            known_voxels=entry["known_voxels"],
        )

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, number: int) -> Crop:
        return self._crops[number]

    def __iter__(self) -> Iterator[Crop]:
        return iter(self._crops)

    @property
    def names(self) -> list[str]:
        """Of the crops, in order."""
        return [crop.name for crop in self._crops]

    @property
    def datasets(self) -> list[str]:
        """Data set of each crop."""
        return [crop.dataset for crop in self._crops]

    def frequencies(self, ids: Sequence[int]) -> Frequencies:
        """Voxels and crops of each class in some crops, as this view shows them: the prior of a training."""
        chosen = [self._crops[number] for number in ids]
        positive = np.stack([crop.positives for crop in chosen])
        annotated = np.stack([crop.annotated for crop in chosen])
        known = np.array([[crop.known_voxels] for crop in chosen])
        counts = (positive.sum(0), (annotated * known).sum(0), (positive > 0).sum(0), annotated.sum(0))
        return Frequencies(*(torch.from_numpy(each.astype(np.float64)) for each in counts))

    def release(self) -> None:
        """Give back the pages that were read, so that a process stays small; the system still caches them."""
        if hasattr(mmap, "MADV_DONTNEED"):
            for each in self._maps:
                each.madvise(mmap.MADV_DONTNEED)


def _box(ends: Any) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    if ends is None:
        return None
    z, y, x = ((int(first), int(end)) for first, end in ends)
    return z, y, x
