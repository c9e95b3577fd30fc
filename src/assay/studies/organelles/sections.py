"""The sections of the organelles study about judging and using a network; open it for a key.

Field docstrings are the help text and the JSON Schema's descriptions. Data, loss and network have files of their own.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from assay.config.fields import Bounds, Incidental


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """Judgement on the validation crops, whole, by sliding windows."""

    logits: Literal["raw", "adjusted"]
    """What is compared with 0: the network's logits (less tau log prior with loss.adjust post-hoc), or those that the
    loss saw, with tau log prior added or subtracted."""
    overlap: Annotated[float, Bounds(ge=0, lt=1)]
    """Share of a window that its neighbour sees too; windows are blended by Gaussian weights."""
    every: Annotated[int, Bounds(ge=1)]
    """Of every so many slices of a validation crop one is judged (2-D); 1 for volumes."""
    monitor_every: Annotated[int, Bounds(ge=1)]
    """The same while training."""
    images: Annotated[int, Bounds(ge=0)]
    """Validation crops that are drawn: input, truth, prediction of the middle slice."""
    batch_size: Annotated[int, Bounds(ge=1), Incidental()]
    """Windows per forward pass."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Incidental()]
    """Where to evaluate."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Labels and probabilities of a volume."""

    model: Annotated[str, Incidental()]
    """Folder of the trained network."""
    volume: Annotated[str, Incidental()] | None
    """A uint8 volume (z, y, x): a zarr array, or an npz file with one."""
    voxel_nm: Annotated[tuple[float, float, float], Bounds(gt=0), Incidental()] | None
    """Size of its voxels, nm; null for that of the training data, to which it is resampled otherwise."""
    output: Annotated[str, Incidental()]
    """The npz file that is written."""


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """What the networks of a study gave and took, from its runs."""

    runs: Annotated[str, Incidental()]
    """Folder of the study's runs: arms, and in each its seeds."""
    output: Annotated[str, Incidental()]
    """Folder for the table and the figure."""


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """The table of batch sizes for a GPU."""

    card_gib: Annotated[float, Bounds(gt=0), Incidental()]
    """Memory of a GPU, GiB."""
    usable: Annotated[float, Bounds(gt=0, le=1), Incidental()]
    """Share of it that a training may take; the rest is for workspaces of kernels, which are not measured."""
    gpus: Annotated[int, Bounds(ge=1), Incidental()]
    """GPUs that train together."""
    patches_2d: Annotated[int, Bounds(ge=1), Incidental()]
    """Patches of 256 x 256 voxels that an optimiser step is to see, of all GPUs together."""
    patches_3d: Annotated[int, Bounds(ge=1), Incidental()]
    """Patches of 32 x 256 x 256 voxels that an optimiser step is to see, of all GPUs together."""
    output: Annotated[str, Incidental()]
    """The table, csv."""
