"""The simulated data set: memory-mapped arrays with a manifest, or batches drawn on the device.

Open it when a data set is refused. A set is a folder:

    signals.npy  (N, 2P, H, W) float32   noise-free dM/M0, P PCASL then P VSASL delays
    targets.npy  (N, 2, H, W)  float32   CBF in ml/100 g/min, ATT in ms
    labels.npy   (N, 3, H, W)  uint8     tissue, lesion, boundary
    physics.npy  (N, 8)        float32   the constants of each phantom, in the order of `Physics`
    digests.npy  (N, 32)       uint8     SHA-256 of each sample, compared when it is read
    manifest.json                        seed, parameters, shapes, statistics of the training part
"""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config import config_digest
from assay.engine.progress import phase
from assay.engine.random import DataOrder, derive, generator
from assay.errors import AssayError, DataError
from assay.files import write_bytes
from assay.studies.asl.config import STAGES, Params
from assay.studies.asl.model import Statistics
from assay.studies.asl.phantom import PhantomBatch, simulate_phantoms
from assay.studies.asl.physics import Physics, joint_signal, randomise_physics

SCHEMA = 1
BLOCK = 128  # phantoms drawn from one key: sample i belongs to block i // BLOCK whatever the size of the set
ARRAYS = ("signals", "targets", "labels", "physics", "digests")


class Clean(NamedTuple):
    """Noise-free samples: signal (B, 2P, H, W) dM/M0, cbf and att (B, H, W), physics with (B,) fields."""

    signal: Tensor
    cbf: Tensor
    att: Tensor
    physics: Physics


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


def nominal_physics(params: Params) -> Physics:
    """The signal model's constants of a parameter file."""
    return Physics(**{field.name: getattr(params.physics, field.name) for field in dataclasses.fields(Physics)})


def simulate_block(
    params: Params, count: int, key: Sequence[int | str], device: torch.device
) -> tuple[PhantomBatch, Clean]:
    """`count` phantoms and their signals from one key."""
    random = generator(*key, device=device)
    data = params.data
    phantoms = simulate_phantoms(
        count, size=data.size, ranges=data.ranges, lesions=data.lesions, blur_sigma=data.blur_sigma, generator=random
    )
    physics = nominal_physics(params)
    ranges = params.physics.randomise
    if ranges != "none" and not params.legacy.inactive_randomisation:
        physics = randomise_physics(physics, ranges, count, random)
    physics = physics.map(lambda value: torch.as_tensor(value, dtype=torch.float32, device=device).expand(count))
    signal = torch.empty(count, 2 * len(params.physics.plds), data.size, data.size, device=device)
    joint_signal(phantoms.cbf, phantoms.att, params.physics.plds, physics, out=signal)
    return phantoms, Clean(signal, phantoms.cbf, phantoms.att, physics)


def write_dataset(params: Params, folder: Path) -> None:
    """Simulate a whole data set into `folder`; what stands there is replaced only when the new one is complete.

    Raises:
        DataError: the disk is full or the folder cannot be written.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _fill(params, partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.replace(folder)
    except (OSError, AssayError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise DataError(f"{folder}: cannot be written ({error}); make room or change data.path") from error


def _fill(params: Params, folder: Path) -> None:
    shapes = _shapes(params)
    arrays = {}
    for name, (shape, dtype) in shapes.items():
        if name != "digests":
            arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape)
    digests = np.zeros(*shapes["digests"])
    with phase("simulate", params.data.phantoms) as progress:
        for start, rows in _blocks(params):
            for name, values in rows.items():
                arrays[name][start : start + len(values)] = values
            for offset in range(len(rows["signals"])):
                digests[start + offset] = _digest({name: values[offset] for name, values in rows.items()})
            progress.advance(len(rows["signals"]))
    for array in arrays.values():
        array.flush()
    np.save(folder / "digests.npy", digests, allow_pickle=False)
    write_bytes(folder / "manifest.json", _manifest(params, arrays["targets"], digests))


def _blocks(params: Params) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for start in range(0, params.data.phantoms, BLOCK):
        key = (params.seed, "phantoms", start // BLOCK)
        phantoms, clean = simulate_block(params, BLOCK, key, device)
        kept = min(BLOCK, params.data.phantoms - start)
        rows = {
            "signals": clean.signal,
            "targets": torch.stack([clean.cbf, clean.att], dim=1),
            "labels": torch.stack([phantoms.tissue, phantoms.lesion, phantoms.boundary.to(torch.uint8)], dim=1),
            "physics": torch.stack(list(dataclasses.astuple(clean.physics)), dim=1),
        }
        yield start, {name: values[:kept].cpu().numpy() for name, values in rows.items()}


def _shapes(params: Params) -> dict[str, tuple[tuple[int, ...], str]]:
    count, size = params.data.phantoms, params.data.size
    return {
        "signals": ((count, 2 * len(params.physics.plds), size, size), "<f4"),
        "targets": ((count, 2, size, size), "<f4"),
        "labels": ((count, 3, size, size), "|u1"),
        "physics": ((count, len(dataclasses.fields(Physics))), "<f4"),
        "digests": ((count, 32), "|u1"),
    }


def _digest(sample: dict[str, NDArray[Any]]) -> NDArray[np.uint8]:
    total = hashlib.sha256()
    for name in ("signals", "targets", "labels", "physics"):
        total.update(np.ascontiguousarray(sample[name]).data)
    return np.frombuffer(total.digest(), dtype=np.uint8)


def split(params: Params) -> tuple[list[int], list[int]]:
    """Indices of the training and of the validation part, a function of the seed."""
    shuffled = torch.randperm(params.data.phantoms, generator=generator(params.seed, "split")).tolist()
    held_out = params.data.validation_phantoms
    return sorted(shuffled[held_out:]), sorted(shuffled[:held_out])


def statistics_of(cbf: Tensor, att: Tensor) -> Statistics:
    """Mean and standard deviation over all voxels, in float64."""
    values = {"cbf": cbf.double(), "att": att.double()}
    moments = {f"{name}_{which}": float(getattr(v, which)()) for name, v in values.items() for which in ("mean", "std")}
    return Statistics(**moments)


def _manifest(params: Params, targets: NDArray[Any], digests: NDArray[np.uint8]) -> bytes:
    training, _ = split(params)
    maps = torch.from_numpy(np.asarray(targets[training[:4096]]))
    document = {
        "schema": SCHEMA,
        "parameters": config_digest(params, STAGES["simulate"]),
        "seed": params.seed,
        "arrays": {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in _shapes(params).items()},
        "statistics": dataclasses.asdict(statistics_of(maps[:, 0], maps[:, 1])),
        "sha256": hashlib.sha256(digests.tobytes()).hexdigest(),
    }
    return (json.dumps(document, indent=2) + "\n").encode()


class DiskSource:
    """A data set on disk. Opening reads the manifest alone; samples are read and checked when drawn."""

    def __init__(self, params: Params, device: torch.device) -> None:
        self.folder, self.device = Path(params.data.path), device
        self.manifest = _read_manifest(self.folder, config_digest(params, STAGES["simulate"]))
        self.arrays = {name: self._open(name, *spec) for name, spec in _shapes(params).items()}
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
        if not np.array_equal(_digest(sample), sample["digests"]):
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
