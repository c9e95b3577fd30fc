"""Reads NIfTI images, averages control minus label per delay, finds M0; open it for how dM/M0 is computed."""

import gzip
import hashlib
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from assay.errors import DataError
from assay.studies.asl.bids.acquisition import Acquisition
from assay.studies.asl.bids.layout import images_of
from assay.studies.asl.bids.sidecar import read_sidecar

Array = NDArray[np.float64]

PARTITION = 0.9  # ml/g, blood-brain partition coefficient of water (Herscovitch and Raichle 1985)
ROBUST_MAXIMUM = 98.0  # percentile; the very brightest voxels are vessels and eyes
CHUNK = 2**20  # bytes read at once
GZIP_LIMIT = 1100  # no deflate stream expands further; a header that promises more is damaged


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """A NIfTI image: data (X, Y, Z, N) of finite numbers, N = 1 for a three-dimensional file."""

    path: Path
    data: Array
    affine: Array
    header: nib.Nifti1Header


@dataclass(frozen=True, kw_only=True, eq=False)
class Perfusion:
    """Control minus label per delay: plds (P,) in ms, ascending; difference (X, Y, Z, P); repeats (P,).

    `variance` (X, Y, Z, P) is that of the mean over repeats, None unless every delay was repeated.
    """

    plds: tuple[float, ...]
    difference: Array
    repeats: tuple[int, ...]
    variance: Array | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """The M0 of tissue: m0 (X, Y, Z); divisor, m0 floored where it is too small; mask; the files read."""

    m0: Array
    divisor: Array
    mask: NDArray[np.bool_]
    files: tuple[Path, ...]


def read_image(path: Path) -> Image:
    """Read a three- or four-dimensional NIfTI image.

    Raises:
        DataError: unreadable or truncated, another format, too many dimensions, complex or colour data, or
            values that are not finite.
    """
    try:
        _check_sum(path)
        image, data = _load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, OverflowError, zlib.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); allowed: NIfTI; fetch the file") from error
    bad = np.count_nonzero(~np.isfinite(data))
    if bad:
        raise DataError(f"{path}: {bad} voxels are NaN or infinite; allowed: finite numbers; set them to 0")
    data = data[..., np.newaxis] if data.ndim == 3 else data
    return Image(path=path, data=data, affine=np.asarray(image.affine, dtype=np.float64), header=image.header)


def require_same_grid(image: Image, other: Image) -> None:
    """Raise DataError unless two images have the same matrix and the same affine (to 0.001 mm)."""
    if image.data.shape[:3] != other.data.shape[:3]:
        got, allowed = _matrix(image), f"{_matrix(other)} as {other.path.name}"
    elif not np.allclose(image.affine, other.affine, rtol=0.0, atol=1e-3):
        got, allowed = "another position in space", f"the affine of {other.path.name}"
    else:
        return
    raise DataError(f"{image.path}: grid is {got}; allowed: {allowed}; resample it to that grid")


def average_pairs(image: Image, acquisition: Acquisition) -> Perfusion:
    """Mean control minus mean label, or mean deltam, at each delay.

    Raises:
        DataError: controls and labels that do not pair, or deltam beside control and label.
    """
    plds = sorted({pld for pld in acquisition.plds if not math.isnan(pld)})
    pairs = [_pairs_at(image, acquisition, pld) for pld in plds]
    repeats = tuple(differences.shape[-1] for differences in pairs)
    variance = None
    if min(repeats) > 1:
        variance = np.stack([each.var(axis=-1, ddof=1) / each.shape[-1] for each in pairs], axis=-1)
    difference = np.stack([each.mean(axis=-1) for each in pairs], axis=-1)
    return Perfusion(plds=tuple(plds), difference=difference, repeats=repeats, variance=variance)


def calibrate(image: Image, acquisition: Acquisition, root: Path, *, mask_threshold: float) -> Calibration:
    """The M0 map of an ASL image and a mask of the head.

    The mask is M0 above `mask_threshold` times its 98th percentile; below that level the divisor is the
    level, so that air is divided by something sensible. With M0Type Estimate, M0 is the same everywhere:
    M0Estimate is that of blood by the BIDS definition, hence times the partition coefficient 0.9 for tissue;
    the mask is then that of the mean control image, or of the non-zero voxels of deltam images.
    """
    if acquisition.m0_type == "Estimate":
        mask = _mask_without_m0(image, acquisition, mask_threshold)
        m0 = np.full(image.data.shape[:3], PARTITION * (acquisition.m0_estimate or math.nan))
        return Calibration(m0=m0, divisor=m0, mask=mask, files=())
    included = acquisition.m0_type == "Included"
    scan, files = _included_m0(image, acquisition) if included else _separate_m0(image, root)
    level = _level(scan, mask_threshold, files[0] if files else image.path)
    return Calibration(m0=scan, divisor=np.maximum(scan, level), mask=scan >= level, files=files)


def sha256_of(path: Path) -> str:
    """The SHA-256 digest of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_sum(path: Path) -> None:
    """Read a compressed file to its end, where its checksum is: whoever stops after the last voxel never sees it."""
    if path.suffix == ".gz":
        with gzip.open(path) as stream:
            while stream.read(CHUNK):
                pass


def _load(path: Path) -> tuple[nib.Nifti1Image, Array]:
    image = nib.load(path)
    if not isinstance(image, nib.Nifti1Image):
        raise DataError(f"{path}: is {type(image).__name__}; allowed: NIfTI; convert the image")
    shape, dtype = image.shape, image.get_data_dtype()  # type: ignore[no-untyped-call]
    if len(shape) not in (3, 4) or 0 in shape:
        raise DataError(f"{path}: dimensions are {shape}; allowed: three, or four with volumes; convert it")
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: data type is {dtype}; allowed: integer or real numbers; convert it")
    if math.prod(shape) * dtype.itemsize > GZIP_LIMIT * path.stat().st_size:
        raise DataError(f"{path}: too short for dimensions {shape}; allowed: a complete file; fetch it")
    return image, np.asarray(image.get_fdata(dtype=np.float64, caching="unchanged"))


def _pairs_at(image: Image, acquisition: Acquisition, pld: float) -> Array:
    def volumes(kind: str) -> list[int]:
        context = zip(acquisition.volume_types, acquisition.plds, strict=True)
        return [index for index, (volume, delay) in enumerate(context) if volume == kind and delay == pld]

    controls, labels, deltams = volumes("control"), volumes("label"), volumes("deltam")
    if deltams and not controls and not labels:
        return image.data[..., deltams]
    if deltams or len(controls) != len(labels):
        counts = f"{len(controls)} control, {len(labels)} label and {len(deltams)} deltam volumes"
        raise DataError(
            f"{image.path}: {counts} at PLD {pld:g} ms; allowed: as many control as label, or deltam alone; "
            "correct aslcontext.tsv or PostLabelingDelay"
        )
    return image.data[..., controls] - image.data[..., labels]


def _volumes_of(image: Image, acquisition: Acquisition, kind: str) -> Array:
    return image.data[..., [index for index, volume in enumerate(acquisition.volume_types) if volume == kind]]


def _included_m0(image: Image, acquisition: Acquisition) -> tuple[Array, tuple[Path, ...]]:
    scans = _volumes_of(image, acquisition, "m0scan")
    if not scans.shape[-1]:
        raise DataError(
            f"{image.path}: M0Type is Included but aslcontext.tsv has no m0scan row; allowed: one or more; "
            "correct aslcontext.tsv, or M0Type"
        )
    return scans.mean(axis=-1), ()


def _separate_m0(image: Image, root: Path) -> tuple[Array, tuple[Path, ...]]:
    path, sidecars = _find_m0(image.path, root)
    scan = read_image(path)
    require_same_grid(scan, image)
    return scan.data.mean(axis=-1), (path, *sidecars)


def _find_m0(asl: Path, root: Path) -> tuple[Path, tuple[Path, ...]]:
    """The one m0scan whose IntendedFor names this image; failing that, the only one that names none."""
    scans = [(path, read_sidecar(path, root, suffix="m0scan")) for path in images_of(asl.parent, "m0scan")]
    meant = [(path, car.files) for path, car in scans if asl.name in _intended_for(car.values.get("IntendedFor"))]
    free = [(path, car.files) for path, car in scans if "IntendedFor" not in car.values]
    chosen = meant or free
    if len(chosen) == 1:
        return chosen[0]
    expected = asl.name.replace("_asl.", "_m0scan.")
    listing = ", ".join(path.name for path, _ in scans) or "none"
    raise DataError(
        f"{asl}: M0Type is Separate but {len(chosen)} m0scan images fit (in the folder: {listing}); "
        f"allowed: one, with IntendedFor naming this image; add {expected}, or correct IntendedFor"
    )


def _intended_for(value: object) -> list[str]:
    """File names out of IntendedFor: one path or BIDS URI, or a list of them."""
    items: Sequence[object] = value if isinstance(value, list) else [value]
    return [PurePosixPath(item).name for item in items if isinstance(item, str)]


def _mask_without_m0(image: Image, acquisition: Acquisition, threshold: float) -> NDArray[np.bool_]:
    controls = _volumes_of(image, acquisition, "control")
    if controls.shape[-1]:
        mean = np.asarray(controls.mean(axis=-1))
        return np.asarray(mean >= _level(mean, threshold, image.path))
    return np.asarray((_volumes_of(image, acquisition, "deltam") != 0).any(axis=-1))


def _level(scan: Array, threshold: float, path: Path) -> float:
    positive = scan[scan > 0]
    if not positive.size:
        raise DataError(f"{path}: M0 has no voxel above 0; allowed: a magnitude image; check the file")
    return threshold * float(np.percentile(positive, ROBUST_MAXIMUM))


def _matrix(image: Image) -> str:
    return "x".join(str(size) for size in image.data.shape[:3])
