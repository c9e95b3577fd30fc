"""The Burgers data set: what it consists of and how it is written; trajectories.py reads it.

A set is a folder with one file for each viscosity, in the layout of PDEBench, and a manifest:

    burgers_nu0.01.h5  tensor (n, frames, cells) float32, x-coordinate, t-coordinate (frames, none too many),
                       sha256 (n, 32) of each trajectory; attributes nu, kappa, scheme, cells_internal, version,
                       of simulated ones the seed, and the rows of each split
    manifest.json      parameters, splits, statistics of the training rows, hashes

Row i has the same initial condition in every file, and the splits are rows: test first, then validation, then
training, so that more training data leave the others as they are.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.engine.progress import Phase, phase
from assay.engine.stop import StopRequest
from assay.errors import ConfigError, DataError
from assay.files import replaced_folder, write_bytes
from assay.studies.burgers.equation import CELLS, FRAMES, INTERVAL, average_cells, cell_centres, frame_times, kappa
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.pdebench import TENSOR, PublishedFile, T, X
from assay.studies.burgers.sections import DataConfig
from assay.studies.burgers.solver import SchemeName, frames, scheme

SCHEMA = 1
BLOCK = 256  # trajectories solved and written at once
MANIFEST = "manifest.json"
DIGESTS = "sha256"


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """What a data set consists of; the number of trajectories is per viscosity.

    cells: of a stored frame; cells_internal: of the solver's, averaged to `cells`. interval: time between frames.
    exact_period: see `InitialConditions.sample`. source: solved here, or read from published files.

    Raises:
        ConfigError: a viscosity is not positive or is there twice, or a count is too small or does not divide.
    """

    viscosities: tuple[float, ...]
    training: int
    validation: int
    test: int
    seed: int
    cells: int = CELLS
    cells_internal: int = CELLS
    frames: int = FRAMES
    interval: float = INTERVAL
    scheme: SchemeName = "auto"
    exact_period: bool = True
    source: Literal["simulated", "published"] = "simulated"

    def __post_init__(self) -> None:
        for nu in self.viscosities:
            scheme(self.scheme, self.cells_internal, nu)
        if len(set(self.viscosities)) != len(self.viscosities) or not self.viscosities:
            raise ConfigError(f"viscosities: got {list(self.viscosities)}, allowed are different ones, at least one")
        least = {"training": 1, "validation": 1, "test": 1, "cells": 1, "cells_internal": 8, "frames": 2}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}: got {getattr(self, name)}, allowed are whole numbers >= {low}")
        if not self.interval > 0:
            raise ConfigError(f"interval: got {self.interval}, allowed is a time > 0; use e.g. {INTERVAL}")
        average_cells(torch.empty(self.cells_internal), self.cells)

    @property
    def samples(self) -> int:
        """Trajectories of each viscosity."""
        return self.test + self.validation + self.training

    @property
    def splits(self) -> dict[str, range]:
        """Rows of each split."""
        ends = list(itertools.accumulate((0, self.test, self.validation, self.training)))
        return {name: range(*ends[i : i + 2]) for i, name in enumerate(("test", "validation", "training"))}


def dataset_spec(data: DataConfig) -> DatasetSpec:
    """What the data set of a parameter file consists of."""
    return DatasetSpec(**{field.name: getattr(data, field.name) for field in dataclasses.fields(DatasetSpec)})


class Solutions(NamedTuple):
    """Where trajectories come from: their frames (n, cells) in turn, by viscosity and rows, and what made them."""

    rows: Callable[[float, range], Iterator[Tensor]]
    scheme: str


def simulated(spec: DatasetSpec, device: torch.device | str = "cpu") -> Solutions:
    """Trajectories solved on `device`; on a CPU each is a function of (seed, row, viscosity), whatever the others."""
    x = cell_centres(spec.cells_internal)
    times = frame_times(spec.frames, spec.interval)

    def rows(nu: float, numbers: range) -> Iterator[Tensor]:
        u0 = initial_conditions(spec.seed, numbers).sample(x, spec.exact_period).to(device)
        for u in frames(scheme(spec.scheme, spec.cells_internal, nu), u0, times):
            yield average_cells(u, spec.cells).cpu()

    return Solutions(rows, spec.scheme)


def published(spec: DatasetSpec, files: Sequence[PublishedFile]) -> Solutions:
    """Trajectories of published files, thinned to the frames and cells of `spec`.

    Raises:
        DataError: a viscosity has no file, or two; a file has other cells, too few samples, or lacks frames at these
            times.
    """
    by_viscosity: dict[float, PublishedFile] = {}
    for file in files:
        if (other := by_viscosity.setdefault(file.nu, file)) is not file:
            raise DataError(f"{file.path}: got viscosity {file.nu:g}, that of {other.path}; allowed: one file of each")
    strides = {nu: _stride(spec, nu, by_viscosity) for nu in spec.viscosities}

    def rows(nu: float, numbers: range) -> Iterator[Tensor]:
        u = by_viscosity[nu].read(slice(numbers.start, numbers.stop))
        yield from average_cells(u[:, :: strides[nu]][:, : spec.frames], spec.cells).unbind(1)

    return Solutions(rows, "published")


def _stride(spec: DatasetSpec, nu: float, files: Mapping[float, PublishedFile]) -> int:
    if nu not in files:
        raise DataError(f"viscosity {nu:g}: no published file, got {sorted(files)}; leave it out or add its file")
    file = files[nu]
    stride = round(spec.interval / float(file.t[1] - file.t[0]))
    wanted = frame_times(spec.frames, spec.interval)
    times = file.t[:: max(stride, 1)][: spec.frames]
    if len(times) < spec.frames or not torch.allclose(times - times[0], wanted, rtol=0, atol=1e-3 * spec.interval):
        got = f"{spec.frames} frames every {spec.interval:g}"
        raise DataError(f"{file.path}: got {got}, allowed are multiples of {file.t[1]:g} up to {file.t[-1]:g}")
    if len(file.x) != spec.cells_internal:
        got = f"{len(file.x)} cells, not cells_internal {spec.cells_internal}"
        raise DataError(f"{file.path}: got {got}; allowed: that of the file; set data.cells_internal to it")
    if file.samples < spec.samples:
        raise DataError(f"{file.path}: got {file.samples} samples, {spec.samples} are split; ask for fewer")
    return stride


def write_dataset(spec: DatasetSpec, folder: Path, solutions: Solutions | None = None) -> None:
    """Write a data set, simulated on the CPU if nothing else is given, in one step; one that stands there is replaced.

    Raises:
        DataError: the folder holds something else than a data set, or cannot be written.
        Unfinished: stopped on request; what stood there stays.
    """
    with replaced_folder(folder, "a data set", ("burgers_nu*.h5", MANIFEST)) as new:
        _fill(spec, new, solutions or simulated(spec))


def _fill(spec: DatasetSpec, folder: Path, solutions: Solutions) -> None:
    total = len(spec.viscosities) * spec.samples * spec.frames
    with StopRequest() as stop, phase("simulate", total, unit="frames", stop=stop) as progress:
        written = [_write_file(spec, nu, folder, solutions, progress) for nu in spec.viscosities]
    document = {
        "schema": SCHEMA,
        "source": solutions.scheme,
        "parameters": dataclasses.asdict(spec),
        "splits": {name: [rows.start, rows.stop] for name, rows in spec.splits.items()},
        "statistics": _statistics([moments for _, moments in written]),
        "sha256": {file_name(nu): digest for nu, (digest, _) in zip(spec.viscosities, written, strict=True)},
    }
    write_bytes(folder / MANIFEST, (json.dumps(document, indent=2) + "\n").encode())


def _write_file(
    spec: DatasetSpec, nu: float, folder: Path, solutions: Solutions, progress: Phase
) -> tuple[str, NDArray[np.float64]]:
    """Write the file of one viscosity; gives the hash of its hashes and the moments of its training rows."""
    digests = np.zeros((spec.samples, 32), dtype=np.uint8)
    moments = np.zeros(3)
    with h5py.File(folder / file_name(nu), "w") as file:
        file.attrs.update(_attributes(spec, nu, solutions.scheme))
        shape = (spec.samples, spec.frames, spec.cells)
        tensor = file.create_dataset(TENSOR, shape, dtype="<f4", chunks=(1, *shape[1:]))
        file[X] = cell_centres(spec.cells).numpy().astype("<f4")
        file[T] = frame_times(spec.frames, spec.interval).numpy().astype("<f4")
        for start in range(0, spec.samples, BLOCK):
            rows = range(start, min(start + BLOCK, spec.samples))
            u = np.empty((len(rows), *shape[1:]), dtype=np.float32)
            for k, frame in enumerate(solutions.rows(nu, rows)):
                u[:, k] = frame
                progress.advance(len(rows))
            tensor[rows.start : rows.stop] = u
            digests[rows.start : rows.stop] = [trajectory_digest(row) for row in u]
            moments += _moments(u[max(spec.splits["training"].start - start, 0) :])
        file[DIGESTS] = digests
    return hashlib.sha256(digests.tobytes()).hexdigest(), moments


def _attributes(spec: DatasetSpec, nu: float, made_by: str) -> dict[str, Any]:
    splits = {f"split_{name}": [rows.start, rows.stop] for name, rows in spec.splits.items()}
    known = {"nu": nu, "kappa": kappa(nu), "scheme": made_by, "version": SCHEMA, "cells_internal": spec.cells_internal}
    return known | splits | ({"seed": spec.seed} if spec.source == "simulated" else {})


def file_name(nu: float) -> str:
    """The file of a viscosity."""
    return f"burgers_nu{nu}.h5"


def trajectory_digest(u: NDArray[Any]) -> NDArray[np.uint8]:
    """SHA-256 (32,) of one trajectory (frames, cells)."""
    return np.frombuffer(hashlib.sha256(np.ascontiguousarray(u, dtype="<f4").data).digest(), dtype=np.uint8)


def _moments(u: NDArray[np.float32]) -> NDArray[np.float64]:
    """Number of values, their sum and the sum of their squares."""
    values = u.astype(np.float64)
    return np.array([values.size, values.sum(), np.square(values).sum()])


def _statistics(moments: list[NDArray[np.float64]]) -> dict[str, float]:
    """Mean and standard deviation of the training rows of all viscosities."""
    count, total, squares = np.sum(moments, axis=0)
    mean = total / count
    return {"mean": float(mean), "std": float(np.sqrt(squares / count - mean**2))}
