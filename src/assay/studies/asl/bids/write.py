"""Writes CBF and ATT maps as a BIDS derivative data set; open it for file names, units and sidecars.

BIDS has no perfusion derivatives yet; names follow the convention of ASLPrep
(doi:10.1038/s41592-022-01458-7), suffixes `cbf` and `att`, with `desc-assay`. Values are float32, zero
outside the mask, which is written beside them.
"""

import gzip
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.files import write_bytes
from assay.studies.asl.bids.series import Array, AslSeries

BIDS_VERSION = "1.10.0"
ExtraMap = Literal["cbf_sd", "att_sd", "residual"]


@dataclass(frozen=True, kw_only=True)
class MapKind:
    """How one map is named and described: `<entities>_<name>.nii.gz`, unit, one sentence."""

    name: str
    units: str
    description: str


CBF = MapKind(name="desc-assay_cbf", units="mL/100 g/min", description="Cerebral blood flow.")
ATT = MapKind(name="desc-assay_att", units="ms", description="Arterial transit time.")
MASK = MapKind(name="desc-brain_mask", units="1", description="Quantified voxels; maps are 0 elsewhere.")
EXTRA_MAPS: dict[ExtraMap, MapKind] = {
    "cbf_sd": MapKind(name="desc-assaySd_cbf", units="mL/100 g/min", description="Standard deviation of blood flow."),
    "att_sd": MapKind(name="desc-assaySd_att", units="ms", description="Standard deviation of transit time."),
    "residual": MapKind(
        name="desc-assayResidual_asl",
        units="1",
        description="Fit quality: root mean square of measured minus modelled dM/M0 over the delays.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where maps come from: software and model, and the physics (by name, times in ms) they assume."""

    version: str
    model_name: str
    model_digest: str
    physics: Mapping[str, float]
    parameters: Mapping[str, str | float | int | bool | None] = field(default_factory=dict)


def write_derivative(
    series: AslSeries,
    cbf: Array,
    att: Array,
    *,
    out: Path,
    provenance: Provenance,
    extra: Mapping[ExtraMap, Array] | None = None,
) -> tuple[Path, ...]:
    """Write the maps of one series into the derivative data set `out`; the same input gives the same bytes.

    cbf (X, Y, Z) is in ml/100 g/min, att (X, Y, Z) in ms; `extra` maps have the same shape. Each file is
    complete or absent, also when the process is killed. Returns the images written.

    Raises:
        DataError: a map is not finite within the mask, or `out` is a data set of another kind.
        ValueError: a map has another shape than the series.
    """
    maps = [(CBF, cbf), (ATT, att), *((EXTRA_MAPS[name], values) for name, values in (extra or {}).items())]
    for kind, values in maps:
        _require_map(series, kind, values)
    _write_description(series, out, provenance)
    written = [_write_map(series, kind, np.where(series.mask, values, 0), out) for kind, values in maps]
    mask = _write_map(series, MASK, series.mask.astype(np.uint8), out)
    for (kind, _), path in zip(maps, written, strict=True):
        _write_json(_sidecar_path(path), _sidecar(series, kind, provenance))
    _write_json(_sidecar_path(mask), {"Type": "Brain", "Sources": _uris(series)})
    return (*written, mask)


def _require_map(series: AslSeries, kind: MapKind, values: Array) -> None:
    if values.shape != series.mask.shape:
        raise ValueError(f"{kind.name} has shape {values.shape}; the series has {series.mask.shape}")
    bad = np.count_nonzero(~np.isfinite(values[series.mask]))
    if bad:
        raise DataError(
            f"{series.root / series.folder}: {series.name}: {bad} of {np.count_nonzero(series.mask)} voxels "
            f"of {kind.name} are not finite; allowed: finite maps; look at the model and at the input images"
        )


def _write_description(series: AslSeries, out: Path, provenance: Provenance) -> None:
    """Describe the data set; refuse to mix derivatives with raw data or with those of other software."""
    path = out / "dataset_description.json"
    if path.exists():
        _require_own(path)
    raw = Path(os.path.relpath(series.root, out.resolve())).as_posix()
    description = {
        "Name": "Perfusion maps by assay",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "assay", "Version": provenance.version}],
        "SourceDatasets": [{"URL": raw}],
        "DatasetLinks": {"raw": raw},
    }
    _write_json(path, description)


def _require_own(path: Path) -> None:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        names = [entry["Name"] for entry in description["GeneratedBy"]]
    except (OSError, ValueError, LookupError, TypeError):
        names = []
    if names != ["assay"]:
        raise DataError(
            f"{path}: GeneratedBy is {names or 'missing'}; allowed: a data set of assay, or an empty folder; "
            "write to another folder"
        )


def _write_map(series: AslSeries, kind: MapKind, values: NDArray[np.generic], out: Path) -> Path:
    data = values if values.dtype == np.uint8 else values.astype(np.float32)
    image = nib.Nifti1Image(data, series.affine)  # type: ignore[no-untyped-call]
    image.header.set_xyzt_units("mm")  # type: ignore[no-untyped-call]
    image.set_sform(series.affine, code=int(series.header["sform_code"]) or 1)  # type: ignore[no-untyped-call]
    image.set_qform(series.affine, code=int(series.header["qform_code"]))  # type: ignore[no-untyped-call]
    path = out / series.folder / f"{series.name}_{kind.name}.nii.gz"
    write_bytes(path, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    return path


def _sidecar(series: AslSeries, kind: MapKind, provenance: Provenance) -> dict[str, object]:
    return {
        "Description": kind.description,
        "Units": kind.units,
        "SkullStripped": True,
        "ModelName": provenance.model_name,
        "ModelDigest": provenance.model_digest,
        "Physics": dict(provenance.physics),
        "Parameters": dict(provenance.parameters),
        "Sequences": list(series.kinds),
        "PostLabelingDelay": [pld / 1000.0 for pld in series.plds],
        "Sources": _uris(series),
        "SourceSHA256": {_uri(source.path): source.sha256 for source in series.sources},
    }


def _uris(series: AslSeries) -> list[str]:
    return [_uri(source.path) for source in series.sources]


def _uri(path: str) -> str:
    return f"bids:raw:{path}"


def _sidecar_path(image: Path) -> Path:
    return image.with_name(image.name.removesuffix(".nii.gz") + ".json")


def _write_json(path: Path, values: Mapping[str, object]) -> None:
    write_bytes(path, (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode())
