"""The data set of the study on disk: what it consists of, how it is written and read.

A folder with `scanlines.h5` (images (n, lines, points) float32, labels, clean_labels, switch, group and parameters,
one row each; the order of the axes is an attribute) and `manifest.json` (parameters, splits as rows, digests).
Labels are those of the source, before merging; `clean_labels` are without label noise, `switch` is the line of a tip
change or the number of lines, `first_labels` the class of the surface before it.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config import resolved
from assay.engine.progress import phase
from assay.engine.random import generator
from assay.engine.stop import StopRequest
from assay.errors import DataError
from assay.files import replaced_folder, write_bytes
from assay.studies.scanlines.archive import Labelled, looks_transposed, read_archive
from assay.studies.scanlines.draw import Draw
from assay.studies.scanlines.generator import Scene, draw_scene, scan
from assay.studies.scanlines.microscope import read_scans
from assay.studies.scanlines.sections import DataConfig
from assay.studies.scanlines.splits import PARTS, Splits, shared_groups, split_digest, split_groups
from assay.studies.scanlines.surface import COUNTS

SCHEMA = 1
BLOCK = 64  # parents drawn from one key: image k does not depend on how many there are
FILE, MANIFEST = "scanlines.h5", "manifest.json"
AXES = "image, line (slow, in order of acquisition), point (fast)"
ROWS = ("labels", "clean_labels", "first_labels", "switch", "group")


class Rows(NamedTuple):
    """Some images (n, N, P) float32 and what is known of each, (n,) int64; see the module."""

    images: Tensor
    labels: Tensor
    clean_labels: Tensor
    first_labels: Tensor
    switch: Tensor
    group: Tensor

    def to(self, device: torch.device) -> "Rows":
        """The same on another device."""
        return Rows(*(column.to(device) for column in self))


class Dataset(NamedTuple):
    """All rows, the rows of each part, and the SHA-256 of images, labels and parts."""

    rows: Rows
    splits: Splits
    digest: str

    def part(self, name: str) -> Rows:
        """The rows of one part."""
        return Rows(*(column[torch.from_numpy(self.splits[name])] for column in self.rows))


def simulate_block(data: DataConfig, block: int, device: torch.device | str = "cpu") -> tuple[Tensor, Scene]:
    """Images of the parents of one block, a function of (data.seed, block) alone on a CPU, and their scenes."""
    draw = Draw(generator(data.seed, "scans", block, device=device))
    points = data.points or data.lines
    scene = draw_scene(BLOCK, data.lines, points, draw).repeated(data.copies or 1)
    return scan(scene, data.lines, points, draw), scene


def drawn_rows(data: DataConfig, count: int, rng: torch.Generator) -> Rows:
    """`count` new images of unlike parents, on the generator's device, with merged labels of which a share is wrong."""
    draw, points = Draw(rng), data.points or data.lines
    scene = draw_scene(count, data.lines, points, draw)
    images = scan(scene, data.lines, points, draw)
    wrong = draw.chance(data.label_noise or 0.0, count)
    merge = torch.tensor(data.merge, device=rng.device)
    labels = torch.where(wrong, draw.choice(COUNTS, count), scene.label)
    first, group = scene.first_labels(data.lines), torch.arange(count, device=rng.device)
    return Rows(images, merge[labels], merge[scene.label], merge[first], scene.switch, group)


def noisy_labels(labels: NDArray[np.int64], parents: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Labels of which a share of the parents has one drawn from the priors, all copies of a parent the same."""
    rng = np.random.default_rng([seed, 1])
    count = int(parents.max()) + 1
    drawn = rng.choice(len(COUNTS), size=count, p=np.array(COUNTS) / sum(COUNTS))
    wrong = rng.random(count) < share
    return np.where(wrong[parents], drawn[parents], labels)


def write_dataset(data: DataConfig, folder: Path) -> None:
    """Write the data set of a parameter file in one step; one that stands there is replaced.

    Raises:
        DataError: the folder holds something else, a file of the user's is not what it should be, the disk is full.
        Unfinished: stopped on request; what stood there stays.
    """
    with replaced_folder(folder, "a data set", (FILE, MANIFEST)) as new:
        _fill(data, new)


def _fill(data: DataConfig, folder: Path) -> None:
    with h5py.File(folder / FILE, "w") as file:
        file.attrs.update({"axes": AXES, "schema": SCHEMA, "seed": data.seed, "source": data.source})
        columns = _simulate(data, file) if data.source == "simulated" else _import(data, file)
        splits = split(data, columns["labels"], columns["group"])
        if data.label_noise is not None:
            noisy = noisy_labels(columns["labels"], columns["group"], data.label_noise, data.seed)
            noisy[splits["test"]] = columns["labels"][splits["test"]]
            columns["labels"] = noisy
        for name, column in columns.items():
            file[name] = column
    content = _sha256(folder / FILE)
    document = {
        "schema": SCHEMA,
        "parameters": identifying(data),
        "splits": {name: splits[name].tolist() for name in PARTS},
        "split_sha256": split_digest(splits),
        "groups_in_two_parts": shared_groups(splits, columns["group"]),
        "sha256": content,
    }
    write_bytes(folder / MANIFEST, (json.dumps(document) + "\n").encode())


def split(data: DataConfig, labels: NDArray[np.int64], group: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The parts, by group, or by image as published."""
    groups = group if data.split == "group" else np.arange(len(group))
    return split_groups(labels, groups, data.validation_fraction, data.test_fraction, data.seed)


def identifying(data: DataConfig) -> dict[str, Any]:
    """The parameters that a data set depends on: all but the path, and the merging of classes, which comes later."""
    every = resolved(data)
    return {name: every[name] for name in sorted(every) if name not in ("path", "merge")}


def _simulate(data: DataConfig, file: h5py.File) -> dict[str, NDArray[Any]]:
    count, copies = data.images or 0, data.copies or 1
    shape = (count, data.lines, data.points or data.lines)
    images = file.create_dataset("images", shape, dtype="<f4", chunks=(1, *shape[1:]))
    scenes, size = [], BLOCK * copies
    with StopRequest() as stop, phase("simulate", count, unit="images", stop=stop) as progress:
        for block, start in enumerate(range(0, count, size)):
            image, scene = simulate_block(data, block)
            kept = min(size, count - start)
            images[start : start + kept] = image[:kept].numpy()
            scenes.append(scene)
            progress.advance(kept)
    joined = {
        field.name: torch.cat([getattr(scene, field.name) for scene in scenes])[:count]
        for field in dataclasses.fields(Scene)
    }
    labels, first = joined["label"].numpy(), Scene(**joined).first_labels(data.lines).numpy()
    columns = {"labels": labels, "clean_labels": labels, "first_labels": first}
    columns |= {"switch": joined["switch"].numpy(), "group": np.arange(count) // copies}
    parameters = ("states", "field", "angle", "weights", "shift", "blur", "origin", "drift", "stretch", "jump")
    return columns | {f"parameters/{name}": joined[name].numpy() for name in (*parameters, "relief", "spots")}


def _import(data: DataConfig, file: h5py.File) -> dict[str, NDArray[Any]]:
    found = _user_file(data)
    if looks_transposed(found.images):
        remark = "heights jump more between columns than between lines; compare data.transpose"
        print(f"{data.file}: {remark}", file=sys.stderr)
    file["images"] = found.images
    switch = np.full(len(found.labels), data.lines)
    names = dict.fromkeys(("labels", "clean_labels", "first_labels"), found.labels)
    return {**names, "switch": switch, "group": found.groups}


def _user_file(data: DataConfig) -> Labelled:
    path, transpose, classes = Path(data.file or ""), bool(data.transpose), len(data.merge)
    if data.source == "archive":
        return read_archive(path, data.lines, classes, data.groups or "", transpose)
    return read_scans(path, data.lines, data.points or data.lines, classes, transpose)


def open_dataset(data: DataConfig) -> Dataset:
    """The data set that the simulate stage wrote, with merged labels.

    Raises:
        DataError: it is missing, damaged, or was made with other parameters.
    """
    folder = Path(data.path)
    manifest = _manifest(folder)
    there, here = manifest["parameters"], identifying(data)
    for name, value in here.items():
        if there.get(name) != value:
            got = f"made with data.{name} {there.get(name)}, not {value}"
            raise DataError(f"{folder}: {got}; run assay stage scanlines simulate again")
    path = folder / FILE
    if _sha256(path) != manifest["sha256"]:
        raise DataError(f"{path}: is not what its manifest says; run assay stage scanlines simulate again")
    with h5py.File(path, "r") as file:
        images = torch.from_numpy(file["images"][()])
        columns = {name: torch.from_numpy(file[name][()].astype(np.int64)) for name in ROWS}
    merge = torch.tensor(data.merge)
    columns |= {name: merge[columns[name]] for name in ROWS[:3]}
    splits = {name: np.array(rows, dtype=np.int64) for name, rows in manifest["splits"].items()}
    if split_digest(splits) != manifest["split_sha256"]:
        raise DataError(f"{folder / MANIFEST}: its splits have been changed; run assay stage scanlines simulate again")
    return Dataset(Rows(images, **columns), splits, f"{manifest['sha256']}{manifest['split_sha256']}"[:128])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file() or not (folder / FILE).is_file():
        raise DataError(f"{folder}: holds no data set; allowed: the simulate stage's; run it, or set data.path")
    try:
        document = json.loads(path.read_bytes())
        complete = document["schema"] == SCHEMA and {"parameters", "splits", "sha256"} <= document.keys()
    except (ValueError, KeyError, TypeError):
        complete = False
    if not complete:
        raise DataError(f"{path}: is no manifest of this version; run assay stage scanlines simulate again")
    return dict(document)
