"""Reads the published PDEBench files of the Burgers equation (doi 10.18419/darus-2986); open it when one is refused.

A file holds `tensor` (10000, 201, 1024) float32, `x-coordinate` (1024) and `t-coordinate` (202), one entry too many.
Sample i has the same initial condition in the file of every viscosity. Files made before November 2023 lack the factor
1/2 in the flux and span (-1, 1): in x' = (x + 1) / 2 they solve the equation of `equation` with nu / 4.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.errors import DataError
from assay.studies.burgers.equation import kappa

TENSOR, X, T = "tensor", "x-coordinate", "t-coordinate"
OLD_VERSION = 4.0  # by which the viscosity of a file from before November 2023 is too large


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """What is in a file: u (samples, frames, cells) is read row by row.

    nu: the viscosity that its trajectories have. is_old: made before November 2023, corrected. x: centres in (0, 1).
    """

    path: Path
    nu: float
    is_old: bool
    samples: int
    x: Tensor
    t: Tensor

    def read(self, rows: slice) -> Tensor:
        """The trajectories `rows`, (n, frames, cells) float32.

        Raises:
            DataError: the file is damaged, or holds values that are not finite.
        """
        with open_hdf5(self.path) as file:
            values = read_array(file, TENSOR, rows)
        if not np.isfinite(values).all():
            raise DataError(f"{self.path}: values that are not finite in rows {rows.start} to {rows.stop}; get it anew")
        return torch.from_numpy(values.astype(np.float32, copy=False))


def open_published(path: Path, old_version: Literal["refuse", "correct"] = "refuse") -> PublishedFile:
    """Look into a file; its viscosity is the one in its name, `..._Nu0.01.hdf5`, or its attribute `nu`.

    A file from before November 2023 is refused, or its coordinates and its viscosity are corrected.

    Raises:
        DataError: no such file, truncated, of another layout, of the old version, or of unknown viscosity.
    """
    with open_hdf5(path) as file:
        samples, frames, cells = _shape(path, file)
        x, t = (read_array(file, name) for name in (X, T))
        nu = float(file.attrs["nu"]) if "nu" in file.attrs else _viscosity_in_name(path)
    if len(x) != cells or len(t) not in (frames, frames + 1):
        got = f"{len(x)} places and {len(t)} times for {cells} cells and {frames} frames"
        raise DataError(f"{path}: got {got}; allowed: as many, or one time more; get the file anew")
    for name, axis in (("places", x), ("times", t[:frames])):
        if len(axis) < 2 or not (np.isfinite(axis).all() and (np.diff(axis) > 0).all()):
            raise DataError(f"{path}: got {name} that do not increase; allowed: two or more, finite; get the file anew")
    is_old = bool(x[0] < 0)
    if is_old and old_version == "refuse":
        raise DataError(
            f"{path}: x starts at {x[0]:.5f}, a file from before November 2023, which solves another equation; "
            "allowed: the later version, x from 0; get it, or read this one with old_version='correct' as nu / 4"
        )
    kappa(nu)
    places = torch.from_numpy((x + 1) / 2 if is_old else x).double()
    times = torch.from_numpy(t[:frames]).double()
    effective = nu / OLD_VERSION if is_old else nu
    return PublishedFile(path=path, nu=effective, is_old=is_old, samples=samples, x=places, t=times)


@contextmanager
def open_hdf5(path: Path) -> Iterator[Any]:
    """An HDF5 file, to read.

    Raises:
        DataError: it does not exist, or is truncated or damaged, here or inside the context.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; get the file or make it, or change the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path}: truncated or damaged ({error}); get it or make it anew") from error


def read_array(file: Any, name: str, rows: slice | list[int] = slice(None)) -> NDArray[Any]:
    """Rows of one array of an open file.

    Raises:
        DataError: it has no such array.
    """
    if name not in file:
        raise DataError(f"{file.filename}: no array {name}, got {', '.join(file)}; allowed is the layout of PDEBench")
    values: NDArray[Any] = file[name][rows]
    return values


def _shape(path: Path, file: Any) -> tuple[int, int, int]:
    shape: tuple[int, ...] = file[TENSOR].shape if TENSOR in file else ()
    if len(shape) != 3:
        raise DataError(f"{path}: got tensor of shape {shape}; allowed: (samples, frames, cells); get another file")
    samples, frames, cells = shape
    return samples, frames, cells


def _viscosity_in_name(path: Path) -> float:
    found = re.search(r"_Nu(\d+(?:\.\d+)?)$", path.stem)
    if found is None:
        raise DataError(
            f"{path}: viscosity unknown; allowed: an attribute nu, or a name like 1D_Burgers_Sols_Nu0.01.hdf5"
        )
    return float(found[1])
