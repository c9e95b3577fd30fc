"""Which images train, validate and test: by group, stratified by class; open it when two parts share a scan.

A group is a parent scan with all its copies, or trace and retrace of one scan. It lies in one part as a whole.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from assay.errors import DataError

PARTS = ("training", "validation", "test")
Splits = Mapping[str, NDArray[np.int64]]
"""Rows of the data set by part, increasing."""


def split_groups(
    labels: NDArray[np.int64], groups: NDArray[np.int64], validation: float, test: float, seed: int
) -> dict[str, NDArray[np.int64]]:
    """Rows of each part, so that a part has about the same share of every class and no group is torn apart.

    A group counts for the class that most of its images have. validation, test: shares of each class's groups.

    Raises:
        DataError: a part would be left without images.
    """
    names, inverse = np.unique(groups, return_inverse=True)
    table = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(table, (inverse, labels), 1)
    majority = table.argmax(1)
    rng = np.random.default_rng(seed)
    part = np.zeros(len(names), dtype=np.int64)
    for label in range(table.shape[1]):
        members = rng.permutation(np.flatnonzero(majority == label))
        ends = np.floor(np.cumsum([test, validation]) * len(members) + 0.5).astype(int)
        part[members[: ends[0]]], part[members[ends[0] : ends[1]]] = 2, 1
    found = {name: np.flatnonzero(part[inverse] == place) for place, name in enumerate(PARTS)}
    _refuse_empty(found, len(names))
    return found


def _refuse_empty(splits: Splits, groups: int) -> None:
    for name, rows in splits.items():
        if not len(rows):
            got = f"{groups} groups leave the {name} part empty"
            raise DataError(f"split: {got}; allowed: one image or more in each part; give more scans or larger shares")


def split_digest(splits: Splits) -> str:
    """SHA-256 (hex) over the rows of every part."""
    document = {name: splits[name].tolist() for name in PARTS}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def shared_groups(splits: Splits, groups: NDArray[np.int64]) -> dict[str, int]:
    """Number of groups that are in both parts of a pair, e.g. `training+test`; all 0 with a split by group."""
    found = {name: set(groups[rows].tolist()) for name, rows in splits.items()}
    pairs: Sequence[tuple[str, str]] = [(a, b) for place, a in enumerate(PARTS) for b in PARTS[place + 1 :]]
    return {f"{a}+{b}": len(found[a] & found[b]) for a, b in pairs}
