"""The files in which crops are kept: how they are written in one step, and what is refused; open it when one is.

images.bin, labels.bin   uint8, crop after crop in C order (z, y, x)
manifest.json            parameters; of each crop its name, data set, shape, place in the files, voxel size, label
                         box, annotated classes, voxels of each class, SHA-256 of both parts; crops left out, why
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError
from assay.files import replaced_folder, write_bytes
from assay.studies.organelles.classes import CLASSES, OUTSIDE
from assay.studies.organelles.crop import Flags, NewCrop, Volume

SCHEMA = 1
IMAGES, LABELS, MANIFEST, SPLIT = "images.bin", "labels.bin", "manifest.json", "split.json"
PIECE = 1 << 24  # bytes that are read at once
AGAIN = "run assay stage organelles simulate again"


class CropWriter:
    """Appends crops to the files of a new folder."""

    def __init__(self, folder: Path, images: BinaryIO, labels: BinaryIO) -> None:
        self.folder = folder
        self.files = images, labels
        self.entries: list[dict[str, Any]] = []
        self.skipped: list[dict[str, str]] = []
        self.offset = 0

    def add(self, crop: NewCrop) -> None:
        """Append a crop.

        Raises:
            DataError: image and label differ in shape, or a label is not in the class table.
        """
        if crop.image.shape != crop.label.shape or crop.image.ndim != 3:
            got = f"an image of {crop.image.shape} and labels of {crop.label.shape}"
            raise DataError(f"crop {crop.name}: got {got}; allowed: equal shapes z, y, x")
        counts = _counts(crop.label)
        outside = [label for label in np.flatnonzero(counts).tolist() if len(CLASSES) < label != OUTSIDE]
        if outside:
            allowed = f"0 to {len(CLASSES)}, or {OUTSIDE} for unknown"
            raise DataError(f"crop {crop.name}: got label {outside[0]}; allowed: {allowed}; map it to a class")
        for file, volume in zip(self.files, (crop.image, crop.label), strict=True):
            file.write(np.ascontiguousarray(volume).data)
        self.entries.append({"offset": self.offset, **_entry(crop)})
        self.offset += crop.image.size

    def skip(self, name: str, reason: str) -> None:
        """Note a crop that is left out."""
        self.skipped.append({"name": name, "reason": reason})


def _entry(crop: NewCrop) -> dict[str, Any]:
    sides = tuple(slice(*ends) for ends in crop.box) if crop.box is not None else ...
    counts = _counts(crop.label[sides])
    return {
        "name": crop.name,
        "dataset": crop.dataset,
        "shape": list(crop.image.shape),
        "voxel_nm": list(crop.voxel_nm),
        "box": None if crop.box is None else [list(ends) for ends in crop.box],
        "annotated": names_of(crop.annotated),
        "labelled": names_of(crop.labelled),
        "voxels": counts[1 : len(CLASSES) + 1].tolist(),
        "known_voxels": int(counts[:OUTSIDE].sum()),
        "image_sha256": digest_of(crop.image),
        "label_sha256": digest_of(crop.label),
    }


def _counts(label: Volume) -> NDArray[np.int64]:
    """Voxels of each label (256,), slice by slice, since counting makes whole numbers of 8 bytes."""
    counts = np.zeros(256, np.int64)
    for plane in label:
        counts += np.bincount(plane.ravel(), minlength=256)
    return counts


def names_of(chosen: Flags) -> list[str]:
    """Names of the classes that are true."""
    return [name for name, wanted in zip(CLASSES, chosen.tolist(), strict=True) if wanted]


def digest_of(volume: Volume) -> str:
    """SHA-256 of the voxels in C order."""
    return hashlib.sha256(np.ascontiguousarray(volume).data).hexdigest()


@contextmanager
def new_crops(folder: Path, parameters: Mapping[str, Any]) -> Iterator[CropWriter]:
    """A writer whose crops replace those of `folder` in one step at the end of the context; on an error nothing does.

    Raises:
        DataError: the folder holds something else, cannot be written, or no crop was added.
    """
    with replaced_folder(folder, "crops", (IMAGES, LABELS, MANIFEST, SPLIT)) as new:
        with (new / IMAGES).open("wb") as images, (new / LABELS).open("wb") as labels:
            writer = CropWriter(new, images, labels)
            yield writer
        _write_manifest(writer, parameters)


def _write_manifest(writer: CropWriter, parameters: Mapping[str, Any]) -> None:
    if not writer.entries:
        reasons = "; ".join(f"{each['name']}: {each['reason']}" for each in writer.skipped[:3])
        raise DataError(f"crops: got none that can be kept ({reasons or 'none was found'}); allowed: one or more")
    body = {
        "schema": SCHEMA,
        "parameters": dict(parameters),
        "crops": writer.entries,
        "skipped": writer.skipped,
    }
    document = {**body, "digest": _digest_of_body(body)}
    write_bytes(writer.folder / MANIFEST, (json.dumps(document, indent=1) + "\n").encode())


def _digest_of_body(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of crops.

    Raises:
        DataError: there is none, or it is not of this version or was altered.
    """
    path = folder / MANIFEST
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{folder}: holds no crops; allowed: the simulate stage's; run it, or set data.path") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {AGAIN}") from None
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise DataError(f"{path}: is no manifest of version {SCHEMA}; {AGAIN}")
    body = {key: value for key, value in document.items() if key != "digest"}
    if document.get("digest") != _digest_of_body(body):
        raise DataError(f"{path}: has been altered; {AGAIN}")
    return document


def _digest_of_next(file: BinaryIO, size: int) -> str:
    """SHA-256 of the next bytes of a file."""
    digest = hashlib.sha256()
    for start in range(0, size, PIECE):
        digest.update(file.read(min(PIECE, size - start)))
    return digest.hexdigest()


def check_file(path: Path, manifest: Mapping[str, Any], key: str, digests: bool) -> None:
    """Compare a file with the manifest: its size and, if asked for, the SHA-256 `key` of every crop.

    Raises:
        DataError: it is missing, truncated or altered; names the crop.
    """
    last = manifest["crops"][-1]
    size = last["offset"] + int(np.prod(last["shape"]))
    try:
        with path.open("rb") as file:
            found = path.stat().st_size
            if found != size:
                raise DataError(f"{path}: got {found} bytes; allowed: {size}, as its manifest says; {AGAIN}")
            for entry in manifest["crops"] if digests else ():
                if _digest_of_next(file, int(np.prod(entry["shape"]))) != entry[key]:
                    raise DataError(f"{path}: crop {entry['name']} is not what its manifest says; {AGAIN}")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {AGAIN}") from None
