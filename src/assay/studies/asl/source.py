"""Where training samples come from: a data set on disk, or phantoms drawn as needed; open it when one is refused."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config import config_digest
from assay.engine.random import DataOrder, derive
from assay.errors import DataError
from assay.studies.asl.config import STAGES, Params
from assay.studies.asl.dataset import (
    ARRAYS,
    BLOCK,
    SCHEMA,
    Clean,
    array_shapes,
    sample_digest,
    simulate_block,
    split,
    statistics_of,
)
from assay.studies.asl.physics import Physics
from assay.studies.asl.statistics import Statistics


class Source(Protocol):
    """Where training and validation samples come from."""

    statistics: Statistics
    """Of the training targets."""
    digest: str
    """Identity of the data."""
    samples_per_epoch: int
    """Training samples in one epoch."""

    def draw(self, cursor: int, count: int) -> tuple[Clean, list[tuple[int, int]]]:
        """`count` training samples from position `cursor` on, and the (epoch, index) key of each."""
        ...

    def validation(self) -> Clean:
        """The samples held out of training."""
        ...


class DiskSource:
    """A data set on disk. Opening reads the manifest alone; samples are read and checked when drawn."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.folder, self.device = Path(params.data.path), device
        self.manifest = _read_manifest(self.folder, config_digest(params, STAGES["simulate"]))
        self.arrays = {name: self._open(name, *spec) for name, spec in array_shapes(params).items()}
        digests = np.ascontiguousarray(self.arrays["digests"])
        if hashlib.sha256(digests.data).hexdigest() != self.manifest["sha256"]:
            raise DataError(f"{self.folder}/digests.npy: does not match the manifest; run the simulate stage again")
        self.statistics = Statistics(**self.manifest["statistics"])
        self.digest: str = self.manifest["sha256"]
        self.checked = np.zeros(len(digests), dtype=bool)
        training, self.held_out = split(params)
        self.samples_per_epoch = len(training)
        self.order = DataOrder(derive(params.seed, "data"), training)

    def _open(self, name: str, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run the simulate stage again") from None
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path}: truncated or damaged ({error}); run the simulate stage again") from None
        if array.shape != shape or array.dtype != np.dtype(dtype):
            got = f"{array.shape} {array.dtype}"
            raise DataError(f"{path}: got {got}; allowed: {shape} {np.dtype(dtype)}; run the simulate stage again")
        return array

    def draw(self, cursor: int, count: int) -> tuple[Clean, list[tuple[int, int]]]:
        """Training samples in the order of the epochs' permutations."""
        keys = self.order.at(cursor, count)
        return self.read([index for _, index in keys]), keys

    def validation(self) -> Clean:
        """The held-out part, in order of index."""
        return self.read(self.held_out)

    def read(self, indices: list[int]) -> Clean:
        """The samples at `indices`.

        Raises:
            DataError: a sample's digest is not the one written when it was simulated.
        """
        rows = {name: self.arrays[name][indices] for name in ARRAYS}
        for row, index in enumerate(indices):
            self._check(index, {name: values[row] for name, values in rows.items()})
        signal, targets, physics = (
            torch.from_numpy(rows[name]).to(self.device) for name in ("signals", "targets", "physics")
        )
        return Clean(signal, targets[:, 0], targets[:, 1], _physics_of(physics))

    def _check(self, index: int, sample: dict[str, NDArray[Any]]) -> None:
        if self.checked[index]:
            return
        if not np.array_equal(sample_digest(sample), sample["digests"]):
            raise DataError(f"{self.folder}: hash of sample {index} does not match; run the simulate stage again")
        self.checked[index] = True


class SimulatedSource:
    """Samples drawn on the device when asked for; an epoch is `data.phantoms` of them, and none comes twice."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.params, self.device = params, device
        self.samples_per_epoch = params.data.phantoms
        self.digest = config_digest(params, STAGES["simulate"])
        maps = simulate_block(params, 4 * BLOCK, (params.seed, "statistics"), device)[1]
        self.statistics = statistics_of(maps.cbf, maps.att)

    def draw(self, cursor: int, count: int) -> tuple[Clean, list[tuple[int, int]]]:
        """New phantoms, a function of (seed, cursor)."""
        clean = simulate_block(self.params, count, (self.params.seed, "drawn", cursor), self.device)[1]
        return clean, [divmod(place, self.samples_per_epoch) for place in range(cursor, cursor + count)]

    def validation(self) -> Clean:
        """Phantoms from a key of their own."""
        count = self.params.data.validation_phantoms
        return simulate_block(self.params, count, (self.params.seed, "held out"), self.device)[1]


def _physics_of(columns: Tensor) -> Physics:
    """Physics with (B,) fields from the rows (B, 8) of physics.npy."""
    names = [field.name for field in dataclasses.fields(Physics)]
    return Physics(**dict(zip(names, columns.unbind(dim=1), strict=True)))


def open_source(params: Params, device: torch.device) -> Source:
    """The source that `data.source` names."""
    return DiskSource(params, device) if params.data.source == "disk" else SimulatedSource(params, device)


def _read_manifest(folder: Path, parameters: str) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the simulate stage, or set data.source: simulated") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); run the simulate stage again") from None
    if manifest.get("schema") != SCHEMA:
        raise DataError(f"{path}: got schema {manifest.get('schema')}; allowed: {SCHEMA}; run the simulate stage again")
    if manifest.get("parameters") != parameters:
        raise DataError(f"{path}: simulated with other seed, data or physics values; run the simulate stage again")
    return manifest
