"""A recording on disk: how it is written, checked and read; open it when a data set is refused.

    activity.npy     (T, N) float32       stimulus.npy     (T, C) float32
    mean.npy         (T, N) float32, the noise-free activity at the next time step; of simulations only
    types.npy        (N,) int64, cell type of each neuron
    connections.npy  (2, E) int64, target and source of each connection; of simulations only
    manifest.json    parameters, shapes, SHA-256 of every file, of the long ones by chunks of time steps

The long arrays are written chunk by chunk and read by memory map, so neither needs the whole in memory.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config.identity import deciding
from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.errors import DataError
from assay.files import replaced_folder, write_bytes
from assay.studies.latents.config import Params
from assay.studies.latents.simulator import Rows

SCHEMA = 1
MANIFEST = "manifest.json"
CHUNK = 500  # time steps that share a digest
LONG = ("activity", "stimulus", "mean")
AGAIN = "run the simulate stage again"


class Source(NamedTuple):
    """Where a recording comes from: rows by chunks of CHUNK steps, the last one shorter, and what never changes."""

    rows: Iterator[Rows]
    types: NDArray[np.int64]
    connections: NDArray[np.int64] | None


def parameters(params: Params) -> dict[str, Any]:
    """What decides the content of a recording, by dotted key."""
    chosen: dict[str, Any] = json.loads(json.dumps(deciding(params, ("data",))))
    return chosen


def write_recording(params: Params, source: Source) -> None:
    """Write a recording to `data.path` in one step; one that stands there is replaced.

    Raises:
        DataError: a value is not finite, the folder holds something else than a recording, or cannot be written.
        Unfinished: stopped on request; what stood there stays.
    """
    names = (MANIFEST, *(f"{name}.npy" for name in (*LONG, "types", "connections")))
    with replaced_folder(Path(params.data.path), "a recording", names) as new:
        _fill(params, source, new)


def _fill(params: Params, source: Source, folder: Path) -> None:
    steps = params.data.steps
    arrays: dict[str, NDArray[np.float32]] = {}
    digests: dict[str, list[str]] = {}
    with StopRequest() as stop, phase("simulate", steps, unit="time steps", stop=stop) as progress:
        done = 0
        for rows in source.rows:
            parts = {name: part for name, part in zip(LONG, rows, strict=True) if part is not None}
            for name, part in parts.items():
                values = part.cpu().numpy()
                _refuse_not_finite(name, values, done)
                if done == 0:
                    path, shape = folder / f"{name}.npy", (steps, values.shape[1])
                    arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype="<f4", shape=shape)
                arrays[name][done : done + len(values)] = values
                digests.setdefault(name, []).append(_digest(values))
            done += len(rows.activity)
            progress.advance(len(rows.activity))
    for array in arrays.values():
        array.flush()  # type: ignore[attr-defined]
    still = {"types": source.types, "connections": source.connections}
    for name, each in still.items():
        if each is not None:
            np.save(folder / f"{name}.npy", each)
            digests[name] = [_digest(each)]
    document = {"schema": SCHEMA, "parameters": parameters(params), "sha256": digests}
    write_bytes(folder / MANIFEST, (json.dumps(document, indent=1) + "\n").encode())


def _refuse_not_finite(name: str, values: NDArray[np.float32], first: int) -> None:
    if not np.isfinite(values).all():
        step, column = np.argwhere(~np.isfinite(values))[0]
        where = f"{name}: value at time step {first + step}, column {column}"
        raise DataError(f"{where} is {values[step, column]}; allowed: finite numbers; repair or shorten the recording")


def _digest(values: NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


class Recording:
    """A recording on disk. Opening reads the manifest; values are checked when they are read.

    neurons, channels: columns of activity and of stimulus. types: (N,). connections: (2, E), None if unknown.
    digest: identity of the data.

    Raises:
        DataError: the folder is no recording, is damaged, or was made with other parameters.
    """

    def __init__(self, params: Params) -> None:
        self.folder = Path(params.data.path)
        manifest, content = _read_manifest(self.folder / MANIFEST, parameters(params))
        self.digest = hashlib.sha256(content).hexdigest()
        self._digests: Mapping[str, list[str]] = manifest["sha256"]
        self._checked: set[tuple[str, int]] = set()
        self._arrays = {name: self._open(name, params.data.steps) for name in LONG if name in self._digests}
        self.neurons, self.channels = (self._arrays[name].shape[1] for name in ("activity", "stimulus"))
        self.types = torch.from_numpy(self._still("types"))
        self.connections = torch.from_numpy(self._still("connections")) if "connections" in self._digests else None

    @property
    def has_mean(self) -> bool:
        """Whether the noise-free next activity is known."""
        return "mean" in self._arrays

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """Time steps [first, end) of activity, stimulus or mean, float32.

        Raises:
            DataError: a value is not the one written.
        """
        array = self._arrays[name]
        for chunk in range(first // CHUNK, -(-end // CHUNK)):
            if (name, chunk) not in self._checked:
                if _digest(array[chunk * CHUNK : (chunk + 1) * CHUNK]) != self._digests[name][chunk]:
                    where = f"{self.folder / name}.npy: hash of time steps from {chunk * CHUNK}"
                    raise DataError(f"{where} does not match; {AGAIN}")
                self._checked.add((name, chunk))
        return torch.from_numpy(np.array(array[first:end]))

    def _open(self, name: str, steps: int) -> NDArray[np.float32]:
        array = self._load(name, mmap_mode="r")
        if array.ndim != 2 or len(array) != steps or array.dtype != np.float32:
            got, allowed = f"{array.shape} {array.dtype}", f"({steps}, columns) float32"
            raise DataError(f"{self.folder / name}.npy: got {got}; allowed: {allowed}; {AGAIN}")
        return array

    def _still(self, name: str) -> NDArray[np.int64]:
        array = self._load(name, mmap_mode=None)
        if _digest(array) != self._digests[name][0]:
            raise DataError(f"{self.folder / name}.npy: hash does not match; {AGAIN}")
        return array

    def _load(self, name: str, mmap_mode: Any) -> NDArray[Any]:
        path = self.folder / f"{name}.npy"
        try:
            array: NDArray[Any] = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; {AGAIN}") from None
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: truncated or damaged ({error}); {AGAIN}") from None
        return array


def _read_manifest(path: Path, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    try:
        content = path.read_bytes()
        manifest: dict[str, Any] = json.loads(content)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the simulate stage") from None
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); {AGAIN}") from None
    if manifest.get("schema") != SCHEMA:
        raise DataError(f"{path}: got schema {manifest.get('schema')}; allowed: {SCHEMA}; {AGAIN}")
    made = manifest["parameters"]
    changed = [f"{key} {made.get(key)}, not {value}" for key, value in wanted.items() if made.get(key) != value]
    if changed:
        raise DataError(f"{path}: made with {'; '.join(changed)}; {AGAIN}")
    return manifest, content
