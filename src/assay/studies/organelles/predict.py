"""Stage predict: labels and probabilities of a user's volume; open it for what a volume must be.

Writes one npz file with `label` (Z, Y, X) uint8, 0 for other and k for CLASSES[k - 1], `probability` (C, Z, Y, X)
float16, and `classes`, the names. They lie on the voxels of the volume, whatever scale the network was trained at.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.engine.precision import pick_device
from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.errors import ConfigError, DataError
from assay.files import write_bytes
from assay.studies.organelles import networks
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.config import Params
from assay.studies.organelles.crop import Volume
from assay.studies.organelles.figures import labels_of
from assay.studies.organelles.grid import Grid, grid_over, linear, nearest
from assay.studies.organelles.zarr_layout import zarr_package

IMAGE = "image"


def run(params: Params) -> None:
    """Segment `predict.volume` and write `predict.output`.

    Raises:
        ConfigError: no volume is named, or a package is not installed.
        DataError: it is no volume of bytes, is constant, or is smaller than a window of the network.
        CheckpointError: there is no network, or it is damaged.
        Unfinished: stopped on request; nothing has been written.
    """
    section = params.predict
    if section.volume is None:
        raise ConfigError("predict.volume: got null; allowed: a zarr array or an npz file; give --predict.volume PATH")
    path = Path(section.volume)
    image = read_volume(path)
    model = networks.load(Path(section.model), pick_device(params.evaluation.device))
    trained = model.params.data.voxel_nm
    own = Grid(section.voxel_nm or trained, (0.0, 0.0, 0.0), image.shape)
    wanted = own if own.scale == trained else grid_over(own.start.tolist(), own.end.tolist(), trained)
    refuse_small(path, wanted.shape, model.params.sampling.edges)
    scaled = image if wanted is own else linear(image, own, wanted).round().astype(np.uint8)
    with StopRequest() as stop, phase("predict", len(scaled), unit="slices", stop=stop) as shown:
        label, probability = segment(torch.from_numpy(scaled), model, params, lambda count: shown.advance(count))
    back = [on_grid(each.numpy(), wanted, own) for each in (label, *probability)]
    write(Path(section.output), back[0], np.stack(back[1:]))


def read_volume(path: Path) -> Volume:
    """A volume (z, y, x) of bytes: the only array of an npz file or the one called image, or a zarr array.

    Raises:
        DataError: it cannot be read, or is not what it should be.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file; allowed: a zarr array or an npz file")
    found = _from_zarr(path) if path.is_dir() else _from_npz(path)
    if found.ndim != 3 or found.dtype != np.uint8:
        shape = " x ".join(str(edge) for edge in found.shape)
        raise DataError(f"{path}: got {found.dtype} of {shape}; allowed: uint8 with the axes z, y, x; convert it")
    if found.size == 0 or found.min() == found.max():
        raise DataError(f"{path}: is constant; allowed: an image; was it downloaded whole?")
    return found


def _from_zarr(path: Path) -> NDArray[Any]:
    package = zarr_package()
    try:
        return np.asarray(package.open_array(str(path), mode="r")[:])
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        allowed = "the folder of one array, such as s0 of an image with several scales"
        raise DataError(f"{path}: cannot be read ({reason}); allowed: {allowed}; name it, or fetch it again") from error


def _from_npz(path: Path) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not archive.files:
                raise DataError(f"{path}: has no array; allowed: an npz file with a volume; write it again")
            name = archive.files[0] if len(archive.files) == 1 else IMAGE
            found: NDArray[Any] = archive[name]
            return found
    except KeyError:
        raise DataError(f"{path}: has several arrays and none called {IMAGE}; rename the one to segment") from None
    except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: is no npz file of numbers ({error}); allowed: that, or a zarr array") from None


def refuse_small(path: Path, shape: tuple[int, int, int], edges: tuple[int, int, int]) -> None:
    """Raise DataError if a window is larger than the volume: the network never saw what lies beyond an image."""
    if any(edge > whole for edge, whole in zip(edges, shape, strict=True)):
        got, least = (" x ".join(str(each) for each in sizes) for sizes in (shape, edges))
        raise DataError(f"{path}: got {got} voxels at the network's scale; allowed: {least} or more, its patch")


@torch.no_grad()
def segment(image: Tensor, model: networks.Model, params: Params, advance: Any) -> tuple[Tensor, Tensor]:
    """Labels (Z, Y, X) uint8 and probabilities (C, Z, Y, X) float16 of a volume."""
    label = torch.zeros(image.shape, dtype=torch.uint8)
    probability = torch.zeros(len(CLASSES), *image.shape, dtype=torch.float16)
    section = params.evaluation
    for piece in model.logits(image, section.overlap, section.batch_size):
        decided = model.module.deciding(piece.logits, model.params.evaluation.logits)
        volume = decided[0] if decided.ndim == 5 else decided.transpose(0, 1)
        label[piece.places], probability[:, piece.places] = labels_of(volume).cpu(), volume.sigmoid().cpu().half()
        advance(volume.shape[1])
    return label, probability


def on_grid(values: NDArray[Any], source: Grid, wanted: Grid) -> NDArray[Any]:
    """Values at the nearest voxels of another grid."""
    return values if source is wanted else nearest(values, source, wanted)


def write(path: Path, label: NDArray[Any], probability: NDArray[Any]) -> None:
    """The npz file, in one step.

    Raises:
        DataError: the disk is full or not writable.
    """
    content = io.BytesIO()
    np.savez_compressed(content, label=label, probability=probability, classes=np.array(CLASSES))
    write_bytes(path, content.getvalue())
