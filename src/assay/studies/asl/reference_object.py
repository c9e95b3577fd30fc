"""Brain slices of the public ASL digital reference object; open it for the held-out phantoms of validate.

The anatomy is the 3 T ground truth that comes with asldro 2.2.0 (MIT licence, gold-standard-phantoms/asldro):
the ICBM 2009a brain at 1 mm with one value per tissue, grey matter CBF 60 ml/100 g/min and ATT 800 ms, white
matter 20 and 1200, CSF no perfusion. None of asldro's code is run, only its data are read.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files

import nibabel as nib
import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from assay.errors import ConfigError, DataError
from assay.studies.asl.config import FIELD_OF_VIEW
from assay.studies.asl.phantom import PhantomBatch

GROUND_TRUTH = "hrgt_icbm_2009a_nls_3t"
TISSUES = ("grey_matter", "white_matter", "csf")  # codes 0, 1, 2, as in PhantomBatch
UNITS = {"perfusion_rate": "ml/100g/min", "transit_time": "s", "seg_label": ""}
ATT_NEVER = 5000.0  # ms; blood never reaches CSF, and no map of the study exceeds this
SMALLEST_AREA = 0.5  # of the largest slice; below it a slice is mostly air


@dataclass(frozen=True, kw_only=True)
class ReferenceBrain:
    """Slices of the reference object; mask (N, H, W) bool marks pixels that are at least half brain."""

    phantoms: PhantomBatch
    mask: Tensor


@dataclass(frozen=True, kw_only=True)
class _GroundTruth:
    """Maps at 1 mm: perfusion (N, X, Y), ml/100 g/min; transit (N, X, Y), s; tissue (3, N, X, Y), 0 or 1."""

    perfusion: Tensor
    transit: Tensor
    tissue: Tensor


def brain_phantoms(*, slices: int = 16, size: int = 64) -> ReferenceBrain:
    """Evenly spaced axial slices of the reference brain, averaged by area to size x size pixels.

    Axes are (slice, right, anterior). CBF is the mean over a pixel. ATT is the mean over its perfused part,
    as no blood arrives elsewhere, and 5000 ms where there is none. Tissue is the one with the largest share;
    outside the brain CBF is 0 and tissue CSF. There are no lesions. Always the same slices for the same
    arguments.

    Raises:
        ConfigError: `slices` or `size` is out of range.
        DataError: asldro is not installed, or its ground truth is not the expected one.
    """
    _require("size", size, 8, FIELD_OF_VIEW)
    truth = _centred(_load())
    candidates = _full_slices(truth.tissue)
    _require("slices", slices, 1, len(candidates))
    chosen = candidates[torch.linspace(0, len(candidates) - 1, slices).round().long()]
    shares = _area_mean(truth.tissue[:, chosen], size)
    perfused = (truth.perfusion[chosen] > 0).float()
    weight = _area_mean(perfused, size)
    arrival = 1000.0 * _area_mean(truth.transit[chosen] * perfused, size) / weight.clamp(min=1e-6)
    mask = shares.sum(0) >= 0.5
    tissue = torch.where(shares.sum(0) > 0, shares.argmax(0), TISSUES.index("csf")).to(torch.uint8)
    phantoms = PhantomBatch(
        cbf=_area_mean(truth.perfusion[chosen], size),
        att=torch.where(weight > 0, arrival, ATT_NEVER),
        tissue=tissue,
        lesion=torch.zeros_like(tissue),
        boundary=_boundary(torch.where(mask, tissue, len(TISSUES))),
    )
    return ReferenceBrain(phantoms=phantoms, mask=mask)


def _load() -> _GroundTruth:
    """Read the three maps that are needed out of the installed package."""
    try:
        folder = files("asldro") / "data"
        description = json.loads((folder / f"{GROUND_TRUTH}.json").read_text(encoding="utf-8"))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise DataError(
            f"the digital reference object is missing ({error}); allowed: the data of asldro 2.2.0; "
            "run: pip install --no-deps asldro==2.2.0"
        ) from error
    volumes = _volume_indices(description)
    with as_file(folder / f"{GROUND_TRUTH}.nii.gz") as path:
        image = nib.Nifti1Image.from_filename(path)
        maps = {name: np.asarray(image.dataobj[..., 0, volume]) for name, volume in volumes.items()}
    codes = [description["segmentation"][name] for name in TISSUES]
    return _GroundTruth(
        perfusion=_slices_first(maps["perfusion_rate"]),
        transit=_slices_first(maps["transit_time"]),
        tissue=torch.stack([_slices_first(maps["seg_label"] == code) for code in codes]),
    )


def _volume_indices(description: Mapping[str, list[str]]) -> dict[str, int]:
    """Where each map lies in the file, by name; DataError when one is missing or in another unit."""
    units = dict(zip(description["quantities"], description["units"], strict=True))
    if any(units.get(name) != unit for name, unit in UNITS.items()):
        raise DataError(
            f"{GROUND_TRUTH}.json of asldro: units are {units}; allowed: {UNITS}; "
            "run: pip install --no-deps asldro==2.2.0"
        )
    return {name: description["quantities"].index(name) for name in UNITS}


def _slices_first(volume: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(volume.transpose(2, 0, 1), dtype=np.float32))


def _centred(truth: _GroundTruth) -> _GroundTruth:
    """Cut a square field of view about the middle of the brain."""
    brain = truth.tissue.any(dim=0).any(dim=0)
    x, y = (_window(brain.any(dim=1 - axis)) for axis in (0, 1))
    return _GroundTruth(
        perfusion=truth.perfusion[:, x, y], transit=truth.transit[:, x, y], tissue=truth.tissue[..., x, y]
    )


def _window(occupied: Tensor) -> slice:
    inside = occupied.nonzero()
    start = int(inside.min() + inside.max() + 1 - FIELD_OF_VIEW) // 2
    return slice(start, start + FIELD_OF_VIEW)


def _full_slices(tissue: Tensor) -> Tensor:
    area = tissue.sum(dim=(0, 2, 3))
    return (area >= SMALLEST_AREA * area.max()).nonzero().squeeze(1)


def _area_mean(maps: Tensor, size: int) -> Tensor:
    """Average square maps (..., L, L) over the pixels of a coarser grid (..., size, size)."""
    overlap = _overlap(maps.shape[-1], size)
    return overlap @ maps @ overlap.T


def _overlap(source: int, target: int) -> Tensor:
    """The share (target, source) that each fine pixel has in each coarse one; rows sum to one."""
    edges = torch.linspace(0, source, target + 1, dtype=torch.float64).unsqueeze(1)
    fine = torch.arange(source, dtype=torch.float64)
    covered = torch.minimum(edges[1:], fine + 1) - torch.maximum(edges[:-1], fine)
    return (covered.clamp(min=0) * target / source).float()


def _boundary(code: Tensor) -> Tensor:
    """Pixels (N, H, W) with another code above, below, left or right."""
    padded = pad(code.float().unsqueeze(1), (1, 1, 1, 1), mode="replicate").squeeze(1)
    neighbours = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    return torch.stack(neighbours).ne(code).any(dim=0)


def _require(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}; allowed: {low} to {high}; choose a number in this range")
