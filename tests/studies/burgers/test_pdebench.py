"""Published files: read as they are, one time too many, old version refused or corrected, damage said in words."""

import math

import h5py
import numpy as np
import pytest
import torch

from assay.errors import ConfigError, DataError
from assay.studies.burgers.equation import cell_centres
from assay.studies.burgers.pdebench import open_published
from assay.studies.burgers.solver import solve

CELLS, FRAMES = 64, 5


@pytest.fixture
def write(tmp_path):
    """Write a file in the published layout; `old` as before November 2023."""

    def write(name="1D_Burgers_Sols_Nu0.1.hdf5", old=False, **changes):
        x = cell_centres(CELLS)
        u0 = torch.stack([torch.sin(2 * math.pi * x), 0.2 + torch.cos(2 * math.pi * x)])
        arrays = {
            "tensor": solve(u0, torch.arange(FRAMES) / 100, 0.025 if old else 0.1).float().numpy(),
            "x-coordinate": (2 * x - 1 if old else x).float().numpy(),
            "t-coordinate": np.arange(FRAMES + 1, dtype=np.float32) / 100,
        }
        with h5py.File(tmp_path / name, "w") as file:
            for key, values in (arrays | changes).items():
                if values is not None:
                    file[key] = values
        return tmp_path / name

    return write


def test_a_file_is_read_without_its_extra_time(write):
    file = open_published(write())
    assert (file.nu, file.is_old, file.samples, len(file.x)) == (0.1, False, 2, CELLS)
    torch.testing.assert_close(file.t, torch.arange(FRAMES).double() / 100, rtol=0, atol=1e-8)
    u = file.read(slice(1, 2))
    assert u.shape == (1, FRAMES, CELLS) and u.dtype == torch.float32
    torch.testing.assert_close(u[0, 0], 0.2 + torch.cos(2 * math.pi * file.x).float(), rtol=0, atol=1e-6)


def test_a_file_of_the_old_version_is_refused_and_says_what_to_do(write):
    with pytest.raises(DataError, match=r"x starts at -0.98438, a file from before November 2023.*get it, or .*nu / 4"):
        open_published(write(old=True))


def test_a_corrected_file_solves_the_equation_of_its_viscosity(write):
    file = open_published(write(old=True), old_version="correct")
    assert (file.nu, file.is_old) == (0.1 / 4, True)
    torch.testing.assert_close(file.x, cell_centres(CELLS), rtol=0, atol=1e-7)
    u = file.read(slice(0, 2)).double()
    again = solve(u[:, 0], file.t, file.nu)
    assert (u - again).abs().max() < 1e-5


def test_other_layouts_are_refused(write):
    with pytest.raises(DataError, match=r"no array t-coordinate, got tensor, x-coordinate; allowed is the layout"):
        open_published(write(**{"t-coordinate": None}))
    with pytest.raises(DataError, match=r"got tensor of shape \(2, 3\); allowed: \(samples, frames, cells\)"):
        open_published(write(tensor=np.zeros((2, 3))))
    with pytest.raises(
        DataError, match="got 64 places and 9 times for 64 cells and 5 frames; allowed: as many, or one"
    ):
        open_published(write(**{"t-coordinate": np.arange(9.0)}))


@pytest.mark.parametrize("times", [np.zeros(6), np.full(6, np.nan), np.arange(6.0)[::-1]])
def test_times_that_do_not_increase_are_refused(write, times):
    with pytest.raises(DataError, match="got times that do not increase; allowed: two or more, finite; get the file"):
        open_published(write(**{"t-coordinate": times}))


def test_a_single_frame_is_refused(write):
    with pytest.raises(DataError, match="got times that do not increase; allowed: two or more"):
        open_published(write(**{"tensor": np.zeros((2, 1, CELLS), np.float32), "t-coordinate": np.zeros(1)}))


def test_the_viscosity_is_in_the_name_or_an_attribute(write):
    path = write("own.hdf5")
    with pytest.raises(DataError, match=r"viscosity unknown; allowed: an attribute nu, or a name like 1D_Burgers"):
        open_published(path)
    with h5py.File(path, "a") as file:
        file.attrs["nu"] = 0.5
    assert open_published(path).nu == 0.5
    with pytest.raises(ConfigError, match=r"viscosity: got 0.0, allowed is a number > 0"):
        open_published(write("1D_Burgers_Sols_Nu0.0.hdf5"))


def test_missing_truncated_and_non_finite_files_are_refused(write, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.hdf5: no such file; get the file"):
        open_published(tmp_path / "nowhere.hdf5")
    path = write()
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"truncated or damaged .*; get it or make it anew"):
        open_published(path)
    nan = np.full((2, FRAMES, CELLS), np.nan, dtype=np.float32)
    with pytest.raises(DataError, match=r"values that are not finite in rows 0 to 2"):
        open_published(write(tensor=nan)).read(slice(0, 2))
