"""The simulated data set: phantoms, signals, and the folder they are written to; source.py reads it.

A set is a folder:

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
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.config import config_digest
from assay.engine.progress import phase
from assay.engine.random import generator
from assay.engine.stop import StopRequest
from assay.files import replaced_folder, write_bytes, write_json
from assay.studies.asl.config import STAGES, Params
from assay.studies.asl.phantom import PhantomBatch, simulate_phantoms
from assay.studies.asl.physics import Physics, joint_signal, randomise_physics
from assay.studies.asl.statistics import Statistics

SCHEMA = 1
BLOCK = 128  # phantoms drawn from one key: sample i belongs to block i // BLOCK whatever the size of the set
ARRAYS = ("signals", "targets", "labels", "physics", "digests")
Rows = dict[str, NDArray[Any]]
"""Some samples of every array, by its name."""


class Clean(NamedTuple):
    """Noise-free samples: signal (B, 2P, H, W) dM/M0, cbf and att (B, H, W), physics with (B,) fields."""

    signal: Tensor
    cbf: Tensor
    att: Tensor
    physics: Physics


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
        count,
        size=data.image_size,
        ranges=data.ranges,
        lesions=data.lesions,
        blur_sigma=data.blur_sigma,
        generator=random,
    )
    physics = nominal_physics(params)
    ranges = params.physics.randomise
    if ranges != "none" and not params.legacy.inactive_randomisation:
        physics = randomise_physics(physics, ranges, count, random)
    physics = physics.map(lambda value: torch.as_tensor(value, dtype=torch.float32, device=device).expand(count))
    signal = torch.empty(count, 2 * len(params.physics.plds), data.image_size, data.image_size, device=device)
    joint_signal(phantoms.cbf, phantoms.att, params.physics.plds, physics, out=signal)
    return phantoms, Clean(signal, phantoms.cbf, phantoms.att, physics)


def write_dataset(params: Params, folder: Path) -> None:
    """Simulate a whole data set into `folder`; a data set that stands there is replaced when the new one is complete.

    Raises:
        DataError: the folder holds something that is no data set, the disk is full, or it cannot be written.
        Unfinished: stopped on request; what stood there stays.
    """
    with _replaced(folder) as new:
        _fill(params, new)


def write_note(params: Params, folder: Path) -> None:
    """Say in `folder` that samples are drawn while training; a data set that stands there is replaced.

    Raises:
        DataError: as for `write_dataset`.
    """
    note = {"schema": SCHEMA, "source": "simulated", "parameters": config_digest(params, STAGES["simulate"])}
    with _replaced(folder) as new:
        write_json(new / "manifest.json", note)


def _replaced(folder: Path) -> AbstractContextManager[Path]:
    names = ("manifest.json", *(f"{name}.npy" for name in ARRAYS))
    return replaced_folder(folder, "a data set", names, "change data.path")


def _fill(params: Params, folder: Path) -> None:
    arrays = {name: _new_array(folder / f"{name}.npy", *spec) for name, spec in array_shapes(params).items()}
    with StopRequest() as stop, phase("simulate", params.data.phantoms, unit="phantoms", stop=stop) as progress:
        for count in _write_blocks(params, arrays):
            progress.advance(count)
    for array in arrays.values():
        array.flush()
    write_bytes(folder / "manifest.json", _manifest(params, arrays["targets"], arrays["digests"]))


def _new_array(path: Path, shape: tuple[int, ...], dtype: str) -> Any:
    """A memory-mapped array whose space is taken at once: a full disk is an error here, not a bus error later."""
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _write_blocks(params: Params, arrays: Rows) -> Iterator[int]:
    """Fill the arrays a block at a time, as many at once as torch has threads; gives the size of each when it is there.

    Whole blocks side by side take half the time of threads inside each operation, which are short.
    """
    threads = torch.get_num_threads()
    waiting: deque[Future[int]] = deque()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for start in range(0, params.data.phantoms, BLOCK):
                waiting.append(pool.submit(_write_block, params, arrays, start))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # part of it belongs to the process, not to the thread that sets it


def _write_block(params: Params, arrays: Rows, start: int) -> int:
    """The samples from `start` on, on the CPU: the same parameters give the same data set on any machine."""
    phantoms, clean = simulate_block(params, BLOCK, (params.seed, "phantoms", start // BLOCK), torch.device("cpu"))
    kept = min(BLOCK, params.data.phantoms - start)
    values = {
        "signals": clean.signal,
        "targets": torch.stack([clean.cbf, clean.att], dim=1),
        "labels": torch.stack([phantoms.tissue, phantoms.lesion, phantoms.boundary.to(torch.uint8)], dim=1),
        "physics": torch.stack(list(dataclasses.astuple(clean.physics)), dim=1),
    }
    rows = {name: value[:kept].numpy() for name, value in values.items()}
    samples = ({name: row[offset] for name, row in rows.items()} for offset in range(kept))
    rows["digests"] = np.stack([sample_digest(sample) for sample in samples])
    for name, row in rows.items():
        arrays[name][start : start + kept] = row
    return kept


def array_shapes(params: Params) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array of a data set."""
    count, size = params.data.phantoms, params.data.image_size
    return {
        "signals": ((count, 2 * len(params.physics.plds), size, size), "<f4"),
        "targets": ((count, 2, size, size), "<f4"),
        "labels": ((count, 3, size, size), "|u1"),
        "physics": ((count, len(dataclasses.fields(Physics))), "<f4"),
        "digests": ((count, 32), "|u1"),
    }


def sample_digest(sample: Rows) -> NDArray[np.uint8]:
    """SHA-256 (32,) of one sample's arrays."""
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
    """Mean and standard deviation over all voxels, in float64; by NumPy, whose sums do not depend on the threads."""
    found = {}
    for name, values in (("cbf", cbf), ("att", att)):
        maps = values.cpu().numpy()
        found[f"{name}_mean"] = float(maps.mean(dtype=np.float64))
        found[f"{name}_std"] = float(maps.std(dtype=np.float64, ddof=1))
    return Statistics(**found)


def _manifest(params: Params, targets: NDArray[Any], digests: NDArray[np.uint8]) -> bytes:
    training, _ = split(params)
    maps = torch.from_numpy(np.asarray(targets[training[:4096]]))
    document = {
        "schema": SCHEMA,
        "parameters": config_digest(params, STAGES["simulate"]),
        "seed": params.seed,
        "arrays": {name: {"shape": shape, "dtype": dtype} for name, (shape, dtype) in array_shapes(params).items()},
        "statistics": dataclasses.asdict(statistics_of(maps[:, 0], maps[:, 1])),
        "sha256": hashlib.sha256(digests.tobytes()).hexdigest(),
    }
    return (json.dumps(document, indent=2) + "\n").encode()
