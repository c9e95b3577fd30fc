"""Reads a Burgers data set and checks every trajectory once; open it when a data set is refused."""

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from assay.errors import DataError
from assay.studies.burgers.dataset import DIGESTS, MANIFEST, SCHEMA, DatasetSpec, file_name, trajectory_digest
from assay.studies.burgers.pdebench import TENSOR, open_hdf5, read_array

AGAIN = "run the simulate stage again"


class Statistics(NamedTuple):
    """Mean and standard deviation of u over the training rows of all viscosities."""

    mean: float
    std: float


def check_splits(splits: Mapping[str, Sequence[int]], samples: int) -> None:
    """Refuse splits that share initial conditions.

    Raises:
        DataError: a split is empty, names a row that is not there, or shares a row with another one.
    """
    for name, rows in splits.items():
        if not rows or min(rows) < 0 or max(rows) >= samples:
            raise DataError(f"split {name}: allowed are rows 0 to {samples - 1}, at least one; change the split")
    for (one, rows), (other, others) in itertools.combinations(splits.items(), 2):
        shared = sorted(set(rows) & set(others))
        if shared:
            what = f"splits {one} and {other}: share {len(shared)} initial conditions, the first is row {shared[0]}"
            raise DataError(f"{what}; allowed are splits without common rows; change one of them")


class Trajectories:
    """A data set on disk. Opening reads the manifest and the hashes; trajectories are checked when they are read.

    statistics: of the training rows. digest: identity of the data. splits: rows by name.

    Raises:
        DataError: the folder is no data set, is damaged, was made with other parameters, or its splits overlap.
    """

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder, self.spec = folder, spec
        manifest, content = _read_manifest(folder / MANIFEST, spec)
        self.statistics = Statistics(**manifest["statistics"])
        self.digest = hashlib.sha256(content).hexdigest()
        self.splits = {name: range(*ends) for name, ends in manifest["splits"].items()}
        check_splits(self.splits, spec.samples)
        self._digests = {nu: self._open(nu, manifest["sha256"][file_name(nu)]) for nu in spec.viscosities}
        self._checked = {nu: np.zeros(spec.samples, dtype=bool) for nu in spec.viscosities}

    def _open(self, nu: float, expected: str) -> np.typing.NDArray[np.uint8]:
        path, shape = self.folder / file_name(nu), (self.spec.samples, self.spec.frames, self.spec.cells)
        with open_hdf5(path) as file:
            digests = read_array(file, DIGESTS)
            got = file[TENSOR].shape if TENSOR in file else None
        if got != shape or hashlib.sha256(digests.tobytes()).hexdigest() != expected:
            raise DataError(f"{path}: does not match the manifest; {AGAIN}")
        return digests

    def split(self, name: str, nu: float) -> Tensor:
        """All trajectories of a split, (n, frames, cells) float32."""
        if name not in self.splits:
            raise DataError(f"split {name!r}: not in {self.folder}; allowed are {', '.join(self.splits)}")
        return self.read(nu, self.splits[name])

    def read(self, nu: float, rows: Sequence[int]) -> Tensor:
        """Trajectories `rows` of one viscosity, (n, frames, cells) float32.

        Raises:
            DataError: there are none of this viscosity, or a trajectory is not the one written.
        """
        if nu not in self._digests:
            known = ", ".join(f"{value:g}" for value in self._digests)
            raise DataError(f"viscosity {nu:g}: not in {self.folder}; allowed are {known}")
        path = self.folder / file_name(nu)
        wanted = sorted(set(rows))
        is_run = wanted == list(range(wanted[0], wanted[-1] + 1))
        with open_hdf5(path) as file:
            u = read_array(file, TENSOR, slice(wanted[0], wanted[-1] + 1) if is_run else wanted)
        for row, trajectory in zip(wanted, u, strict=True):
            if not self._checked[nu][row] and not np.array_equal(trajectory_digest(trajectory), self._digests[nu][row]):
                raise DataError(f"{path}: hash of trajectory {row} does not match; {AGAIN}")
            self._checked[nu][row] = True
        values = torch.from_numpy(u)
        return values if wanted == list(rows) else values[torch.tensor([wanted.index(row) for row in rows])]


def _read_manifest(path: Path, spec: DatasetSpec) -> tuple[dict[str, Any], bytes]:
    try:
        content = path.read_bytes()
        manifest: dict[str, Any] = json.loads(content)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the simulate stage") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {AGAIN}") from None
    if manifest.get("schema") != SCHEMA:
        raise DataError(f"{path}: got schema {manifest.get('schema')}; allowed: {SCHEMA}; {AGAIN}")
    missing = [name for name in ("parameters", "splits", "statistics", "sha256") if name not in manifest]
    if missing:
        raise DataError(f"{path}: no entry {missing[0]!r}; {AGAIN}")
    made, wanted = manifest["parameters"], json.loads(json.dumps(vars(spec)))
    changed = [f"{name} {made.get(name)}, not {wanted[name]}" for name in wanted if made.get(name) != wanted[name]]
    if changed:
        raise DataError(f"{path}: made with {'; '.join(changed)}; {AGAIN}")
    return manifest, content
