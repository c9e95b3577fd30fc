"""A perfusion series and the checks a model asks for; open it for its fields and channel order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.studies.asl.bids.acquisition import LabellingKind

Array = NDArray[np.float32]
PLD_TOLERANCE = 1.0  # ms; sidecars are written in seconds, often with three decimals


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """How one sequence was acquired. Times in ms; None where the sidecar does not say, or it does not apply.

    `slice_times` are the delays of slices 0, 1, ... of a 2-D read-out after the PLD; `repeats` the
    control-label pairs averaged at each PLD.
    """

    kind: LabellingKind
    plds: tuple[float, ...]
    label_duration: float | None
    efficiency: float | None
    background_suppression_pulses: int | None
    slice_times: tuple[float, ...] | None
    repeats: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that a series was read from: its path within the data set, with slashes, and its digest."""

    path: str
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class AslSeries:
    """One subject's perfusion signal, divided by the equilibrium magnetisation of tissue.

    difference: (X, Y, Z, C) float32, dM/M0. C is the number of sequences times the number of PLDs: all PLDs
        of `labellings[0]` in ascending order, then those of `labellings[1]`; PCASL comes before VSASL.
    noise: standard deviation of the noise of `difference`, from the spread of repeats in the mask; None
        without repeats.
    m0: (X, Y, Z) float32, scanner units. mask: (X, Y, Z) bool. affine: (4, 4), voxel to mm.
    root, folder, name: the data set, the perf folder within it, and the entities (`sub-01_ses-1`).
    """

    root: Path
    folder: Path
    name: str
    difference: Array
    noise: float | None
    labellings: tuple[Labelling, ...]
    m0: Array
    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    header: nib.Nifti1Header
    sources: tuple[Source, ...]

    @property
    def plds(self) -> tuple[float, ...]:
        """Post-labelling delays in ms, ascending; every sequence has the same."""
        return self.labellings[0].plds

    @property
    def kinds(self) -> tuple[LabellingKind, ...]:
        """The sequences, in channel order."""
        return tuple(labelling.kind for labelling in self.labellings)

    def slices(self) -> Array:
        """The signal as a batch of images (Z, C, X, Y), which is what the models take."""
        return np.ascontiguousarray(self.difference.transpose(2, 3, 0, 1))


def to_volume(maps: Array) -> Array:
    """Put a map per slice (Z, X, Y) back into the order of the image, (X, Y, Z)."""
    return np.ascontiguousarray(maps.transpose(1, 2, 0))


def require_plds(series: AslSeries, plds: Sequence[float]) -> None:
    """Raise DataError unless the series was acquired at these delays (ms), those the model was trained on."""
    same_count = len(series.plds) == len(plds)
    if same_count and np.allclose(series.plds, plds, rtol=0.0, atol=PLD_TOLERANCE):
        return
    raise DataError(
        f"{series.root / series.folder}: {series.name}: PLDs are {_listing(series.plds)} ms; the model was "
        f"trained on {_listing(plds)} ms; train a model with physics.plds set to those of the data"
    )


def require_sequences(series: AslSeries, kinds: Sequence[LabellingKind]) -> None:
    """Raise DataError unless the series has exactly these sequences, in this order."""
    if series.kinds == tuple(kinds):
        return
    missing = [kind for kind in kinds if kind not in series.kinds]
    remedy = "use a model of both, or take the other image away"
    fix = f"add acq-{missing[0]}_asl beside it" if missing else remedy
    raise DataError(
        f"{series.root / series.folder}: {series.name}: sequences are {', '.join(series.kinds)}; "
        f"the model needs {', '.join(kinds)}; {fix}"
    )


def require_label_duration(series: AslSeries, label_duration: float, *, tolerance: float = 1.0) -> None:
    """Raise DataError unless PCASL was labelled for `label_duration` ms, within `tolerance`."""
    for labelling in series.labellings:
        given = labelling.label_duration
        if given is not None and abs(given - label_duration) > tolerance:
            raise DataError(
                f"{series.root / series.folder}: {series.name}: LabelingDuration is {given:g} ms; the "
                f"model was trained on {label_duration:g} ms; train one with that physics.label_duration"
            )


def _listing(plds: Sequence[float]) -> str:
    return ", ".join(f"{pld:g}" for pld in plds)
