"""The sections of the organelles study's parameters about crops, patches and augmentation; open it for a key.

Field docstrings are the help text and the JSON Schema's descriptions. Axes are z, y, x.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from assay.config.fields import Bounds, Incidental, Problem

Share = Annotated[float, Bounds(ge=0, le=1)]
Nanometres = Annotated[tuple[float, float, float], Bounds(gt=0)]
SOURCES = {
    "simulated": ("volumes", "datasets", "shape", "fully_annotated"),
    "challenge": ("context", "faulty", "largest"),
}
"""The keys that each source of crops reads; every other one must be null with it."""
SIMULATED_NM = (8.0, 8.0, 8.0)
"""Size of a voxel of simulated crops."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The crops: where they come from, at which scale they are kept, which ones validate."""

    source: Literal["simulated", "challenge"]
    """simulated: drawn here; challenge: crops on disk in the layout of the CellMap segmentation challenge."""
    path: Annotated[str, Incidental()]
    """Folder of the crops as the simulate stage keeps them: uint8 images and labels, annotated classes."""
    zarr: str | None
    """Folder in the challenge's layout: to read (challenge), or to write as well (simulated), null for not."""
    volumes: Annotated[int, Bounds(ge=2)] | None
    """Number of crops (simulated)."""
    datasets: Annotated[int, Bounds(ge=1)] | None
    """Specimens the crops are spread over; each has a microscope's blur, gain and noise of its own (simulated)."""
    shape: Annotated[tuple[int, int, int], Bounds(ge=16)] | None
    """Voxels of a crop (simulated)."""
    fully_annotated: Share | None
    """Share of the crops with all classes annotated; in the others each group of classes may lack (simulated)."""
    context: Annotated[tuple[int, int, int], Bounds(ge=0)] | None
    """Voxels of image that are kept around the label box, where nothing is annotated (challenge)."""
    faulty: Literal["refuse", "skip"] | None
    """What a crop that fails its checks does: ends the stage, or is left out and named in the manifest (challenge)."""
    largest: Annotated[int, Bounds(ge=1)] | None
    """Voxels above which a crop is left out and named in the manifest (challenge)."""
    voxel_nm: Nanometres
    """Size of a voxel as it is kept, nm; crops of other scales are resampled, linearly, labels to the nearest."""
    annotation: Literal["masked", "absent", "full"]
    """Training sees what is annotated; takes the rest for absent; or sees all labels, as only simulated crops allow."""
    seed: Annotated[int, Bounds(ge=0)]
    """Replicate of crops, annotation and split; the same for every arm."""
    split: Literal["crop", "dataset"]
    """crop: crops of a dataset may be on both sides; dataset: whole datasets are held out."""
    validation_fraction: Annotated[float, Bounds(gt=0, lt=1)] | None
    """Share of the crops, or of the datasets, that validate; null where `held_out` names them."""
    held_out: tuple[str, ...] | None
    """Names of the datasets that validate (split dataset); null to draw them."""

    def conflicts(self) -> Iterator[Problem]:
        """Keys of the other source, labels that are not there, splits said twice."""
        yield from self._source_conflicts()
        if self.source == "challenge" and self.zarr is None:
            yield Problem("zarr", "null", "a folder with source challenge", "name the one to read")
        if self.source == "challenge" and self.annotation == "full":
            yield Problem("annotation", "full", "masked or absent with source challenge", "it has no others")
        if self.held_out is not None and self.split != "dataset":
            yield Problem("held_out", ", ".join(self.held_out), f"null with split {self.split}", "set split to dataset")
        if (self.held_out is None) == (self.validation_fraction is None):
            given = "null" if self.held_out is None else f"{self.validation_fraction}"
            yield Problem("validation_fraction", given, "a number, or null where held_out names datasets")
        if self.split == "dataset" and self.datasets == 1:
            yield Problem("split", "dataset", "crop with datasets 1", "nothing would be left to train on")

    def _source_conflicts(self) -> Iterator[Problem]:
        for key in sorted({key for keys in SOURCES.values() for key in keys}):
            value, read = getattr(self, key), key in SOURCES[self.source]
            if read and value is None and key != "largest":
                yield Problem(key, "null", f"a value with source {self.source}", "choose one")
            if not read and value is not None:
                yield Problem(key, str(value), f"null with source {self.source}", "it would not be read")
        if self.source == "simulated" and self.voxel_nm != SIMULATED_NM:
            yield Problem("voxel_nm", str(list(self.voxel_nm)), f"{list(SIMULATED_NM)} with source simulated")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How training patches are chosen."""

    patch: Annotated[tuple[int, ...], Bounds(ge=4, items=2)]
    """Voxels of a patch: y, x of a slice, or z, y, x of a volume."""
    crops: Literal["balanced", "uniform"]
    """balanced: the class seen least so far, then a crop that shows it, so that one of common classes alone is seldom
    or never drawn; uniform: any crop."""

    def conflicts(self) -> Iterator[Problem]:
        """Patches that are neither slices nor volumes."""
        if len(self.patch) not in (2, 3):
            yield Problem("patch", str(list(self.patch)), "two edges (y, x) or three (z, y, x)")

    @property
    def edges(self) -> tuple[int, int, int]:
        """Voxels along z, y, x; a slice has one along z."""
        z, y, x = (1, 1, 1, *self.patch)[-3:]
        return z, y, x


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """What training patches go through; validation crops stay as they are."""

    flip: bool
    """Mirror x, y and, of volumes, z, each with probability 0.5."""
    transpose: bool
    """Swap x and y with probability 0.5; for patches with equal edges along them."""
    rotation: Annotated[float, Bounds(ge=0, le=180)]
    """Largest angle of a rotation in the plane of x and y, degrees; what comes from outside is not annotated."""
    contrast: Annotated[float, Bounds(ge=0, lt=1)]
    """Largest relative change of the contrast around the mean; the mean is shifted by as much at most."""
    gamma: Annotated[float, Bounds(ge=0)]
    """Largest natural logarithm of the exponent on intensities."""
    noise: Annotated[float, Bounds(ge=0, le=1)]
    """Largest standard deviation of added white noise, of the whole range of intensities."""
    blur: Annotated[float, Bounds(ge=0, le=3)]
    """Largest standard deviation of a Gaussian blur in the plane of x and y, voxels; one draw per sample."""
