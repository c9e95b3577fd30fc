"""Which crops train and which validate; open it to hold out data sets, or when two machines disagree.

The split is a function of a seed and the names of the crops. It is stored beside them, and every later stage reads it.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from assay.config import resolved
from assay.errors import DataError
from assay.files import write_bytes
from assay.studies.organelles.cache_files import AGAIN, SPLIT
from assay.studies.organelles.data_section import DataConfig

PARAMETERS = ("split", "validation_fraction", "held_out")
"""The keys of `data` that decide the split of given crops, beside its seed."""


class Split(NamedTuple):
    """Crop ids of both sides, increasing, and the SHA-256 of the names on each side."""

    train: tuple[int, ...]
    validation: tuple[int, ...]
    digest: str


def make_split(names: Sequence[str], datasets: Sequence[str], data: DataConfig) -> Split:
    """Draw a share of the crops, or hold out data sets: drawn, or those that are named.

    Raises:
        DataError: a named data set does not exist, or a side would be empty.
    """
    units = list(names) if data.split == "crop" else list(datasets)
    if data.held_out is not None:
        unknown = sorted(set(data.held_out) - set(datasets))
        if unknown:
            allowed = ", ".join(sorted(set(datasets)))
            raise DataError(f"data.held_out: got {', '.join(unknown)}; allowed: {allowed}; correct the name")
        chosen = set(data.held_out)
    else:
        every = sorted(set(units))
        count = max(1, round((data.validation_fraction or 0.0) * len(every)))
        order = np.random.default_rng([data.seed, 2]).permutation(len(every))
        chosen = {every[place] for place in order[:count].tolist()}
    validation = tuple(place for place, unit in enumerate(units) if unit in chosen)
    train = tuple(place for place, unit in enumerate(units) if unit not in chosen)
    for side, ids in (("train", train), ("validate", validation)):
        if not ids:
            got = f"{len(names)} crops of {len(set(datasets))} data sets, none of which would {side}"
            raise DataError(f"split: got {got}; allowed: one or more on each side; change the fraction or held_out")
    return Split(train, validation, _digest(names, train, validation))


def _digest(names: Sequence[str], train: Sequence[int], validation: Sequence[int]) -> str:
    sides = [sorted(names[place] for place in ids) for ids in (train, validation)]
    return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


def write_split(path: Path, split: Split, names: Sequence[str], data: DataConfig) -> None:
    """Store a split by the names of its crops, with the parameters that it was made with.

    Raises:
        DataError: it cannot be written.
    """
    sides = {"train": [names[place] for place in split.train]}
    sides["validation"] = [names[place] for place in split.validation]
    document = {"parameters": _parameters(data), **sides, "digest": split.digest}
    write_bytes(path, (json.dumps(document, indent=1) + "\n").encode())


def _parameters(data: DataConfig) -> dict[str, Any]:
    every = resolved(data)
    return {name: every[name] for name in PARAMETERS}


def open_split(data: DataConfig, names: Sequence[str]) -> Split:
    """The split that the simulate stage wrote beside its crops.

    Raises:
        DataError: as `read_split`, or it was made with other parameters.
    """
    folder = Path(data.path)
    split = read_split(folder, names)
    made = json.loads((folder / SPLIT).read_bytes()).get("parameters", {})
    for name, value in _parameters(data).items():
        found = made.get(name, "unknown")
        if found != value:
            raise DataError(f"{folder / SPLIT}: made with data.{name} {found}, not {value}; {AGAIN}")
    return split


def read_split(folder: Path, names: Sequence[str]) -> Split:
    """The split beside the crops of a folder.

    Raises:
        DataError: it is missing, was altered, or is of other crops.
    """
    path, place = folder / SPLIT, {name: number for number, name in enumerate(names)}
    try:
        document = json.loads(path.read_bytes())
        sides = [tuple(sorted(place[name] for name in document[key])) for key in ("train", "validation")]
        digest = document["digest"]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {AGAIN}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no split of the crops beside it ({error}); {AGAIN}") from None
    if digest != _digest(names, *sides) or set(sides[0]) & set(sides[1]):
        raise DataError(f"{path}: has been altered; {AGAIN}")
    return Split(sides[0], sides[1], digest)
