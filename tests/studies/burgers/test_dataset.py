"""The data set: reproducible, split by initial condition, in the published layout, checked when read."""

import dataclasses
import json
import os
import shutil
import signal

import h5py
import numpy as np
import pytest
import torch

from assay.errors import ConfigError, DataError, Unfinished
from assay.studies.burgers.dataset import DatasetSpec, Solutions, published, simulated, write_dataset
from assay.studies.burgers.equation import average_cells, cell_centres, frame_times, kappa
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.pdebench import open_published
from assay.studies.burgers.solver import solve
from assay.studies.burgers.trajectories import Trajectories, check_splits

SPEC = DatasetSpec(
    viscosities=(0.02, 0.1),
    training=5,
    validation=2,
    test=3,
    seed=7,
    cells=32,
    cells_internal=64,
    frames=4,
    interval=0.02,
)
VALUES = dataclasses.asdict(SPEC)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("burgers") / "data"
    write_dataset(SPEC, folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy that a test may damage."""
    copy = tmp_path / "data"
    copy.mkdir()
    for path in written.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def test_a_trajectory_is_the_averaged_solution_of_its_initial_condition(written):
    u0 = initial_conditions(SPEC.seed, [4]).sample(cell_centres(64))
    expected = average_cells(solve(u0, frame_times(4, 0.02), 0.1), 32).float()
    torch.testing.assert_close(Trajectories(written, SPEC).read(0.1, [4]), expected, rtol=0, atol=1e-6)


def test_two_simulations_of_one_seed_are_the_same_bytes(written, tmp_path):
    write_dataset(SPEC, tmp_path / "again")
    names = sorted(path.name for path in written.iterdir())
    assert names == ["burgers_nu0.02.h5", "burgers_nu0.1.h5", "manifest.json"]
    for name in names:
        assert (written / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_every_viscosity_starts_from_the_same_initial_conditions(written):
    data = Trajectories(written, SPEC)
    starts = [data.read(nu, range(10))[:, 0] for nu in SPEC.viscosities]
    assert torch.equal(*starts)
    assert not torch.equal(*(data.read(nu, range(10))[:, 1] for nu in SPEC.viscosities))


def test_splits_are_disjoint_complete_and_keep_their_test_rows_when_training_grows(written, tmp_path):
    data = Trajectories(written, SPEC)
    assert data.splits == {"test": range(3), "validation": range(3, 5), "training": range(5, 10)}
    larger = dataclasses.replace(SPEC, training=6)
    write_dataset(larger, tmp_path / "larger")
    for name in ("test", "validation"):
        grown = Trajectories(tmp_path / "larger", larger).split(name, 0.1)
        torch.testing.assert_close(grown, data.split(name, 0.1), rtol=0, atol=1e-6)


def test_statistics_are_those_of_the_training_rows_alone(written):
    data = Trajectories(written, SPEC)
    training = torch.cat([data.split("training", nu) for nu in SPEC.viscosities]).double()
    assert data.statistics.mean == pytest.approx(float(training.mean()), rel=1e-9)
    assert data.statistics.std == pytest.approx(float(training.std(correction=0)), rel=1e-9)


def test_a_file_has_the_published_layout_and_says_how_it_was_made(written):
    with h5py.File(written / "burgers_nu0.02.h5") as file:
        assert file["tensor"].shape == (10, 4, 32) and file["tensor"].dtype == np.float32
        np.testing.assert_allclose(file["x-coordinate"], (np.arange(32) + 0.5) / 32, rtol=1e-6)
        np.testing.assert_allclose(file["t-coordinate"], [0, 0.02, 0.04, 0.06], rtol=1e-6)
        attributes = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in file.attrs.items()}
    assert attributes == {
        "nu": 0.02,
        "kappa": kappa(0.02),
        "scheme": "auto",
        "cells_internal": 64,
        "seed": 7,
        "version": 1,
        "split_test": [0, 3],
        "split_validation": [3, 5],
        "split_training": [5, 10],
    }
    assert open_published(written / "burgers_nu0.02.h5").nu == 0.02


def test_rows_come_in_the_order_asked_for(written):
    data = Trajectories(written, SPEC)
    all_rows = data.read(0.02, range(10))
    assert torch.equal(data.read(0.02, [8, 1, 8]), all_rows[[8, 1, 8]])


def test_published_files_are_thinned_to_the_frames_and_cells_wanted(tmp_path):
    path = tmp_path / "1D_Burgers_Sols_Nu0.1.hdf5"
    u = torch.randn(12, 9, 64, generator=torch.Generator().manual_seed(0))
    with h5py.File(path, "w") as file:
        file["tensor"], file["x-coordinate"], file["t-coordinate"] = u, cell_centres(64), torch.arange(10) / 100
    spec = dataclasses.replace(SPEC, viscosities=(0.1,), source="published")
    file = open_published(path)
    write_dataset(spec, tmp_path / "data", published(spec, [file]))
    with h5py.File(tmp_path / "data/burgers_nu0.1.h5") as copy:
        assert copy.attrs["scheme"] == "published" and "seed" not in copy.attrs
    torch.testing.assert_close(
        Trajectories(tmp_path / "data", spec).read(0.1, range(10)), average_cells(u, 32)[:10, :7:2]
    )
    for change, words in (
        ({"viscosities": (0.2,)}, r"viscosity 0.2: no published file, got \[0.1\]"),
        ({"interval": 0.025}, r"got 4 frames every 0.025, allowed are multiples of 0.01 up to 0.08"),
        ({"frames": 6}, r"got 6 frames every 0.02, allowed are multiples of 0.01 up to 0.08"),
        (
            {"cells_internal": 128},
            r"got 64 cells, not cells_internal 128; allowed: that of the file; set data.cells_int",
        ),
        ({"training": 50}, r"got 12 samples, 55 are split; ask for fewer"),
    ):
        with pytest.raises(DataError, match=words):
            published(dataclasses.replace(spec, **change), [file])
    again = shutil.copy(path, tmp_path / "again_Nu0.1.hdf5")
    with pytest.raises(DataError, match=f"^{again}: got viscosity 0.1, that of {path}; allowed: one file of each$"):
        published(spec, [file, open_published(again)])


def test_simulated_data_are_not_taken_for_published_ones(written):
    with pytest.raises(DataError, match="made with source simulated, not published; run the simulate stage again"):
        Trajectories(written, dataclasses.replace(SPEC, source="published"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"viscosities": (0.1, -1.0)}, r"viscosity: got -1.0, allowed is a number > 0"),
        ({"viscosities": (0.1, 0.1)}, r"viscosities: got \[0.1, 0.1\], allowed are different ones"),
        ({"cells": 48}, "cells: got 48, allowed are the divisors of 64"),
        ({"validation": 0}, "validation: got 0, allowed are whole numbers >= 1"),
        ({"frames": 1}, "frames: got 1, allowed are whole numbers >= 2"),
        ({"interval": 0.0}, r"interval: got 0.0, allowed is a time > 0; use e.g. 0.01"),
        ({"scheme": "weno"}, "scheme: got 'weno', allowed are auto, muscl, spectral"),
    ],
)
def test_a_set_that_cannot_be_made_is_refused(change, words):
    with pytest.raises(ConfigError, match=words):
        DatasetSpec(**VALUES | change)


def test_overlapping_empty_and_impossible_splits_are_refused():
    check_splits({"test": range(3), "training": [3, 5]}, 6)
    with pytest.raises(DataError, match="splits test and training: share 2 initial conditions, the first is row 1"):
        check_splits({"test": range(3), "validation": [4], "training": [5, 2, 1]}, 6)
    for rows in ([], [6], [-1]):
        with pytest.raises(DataError, match="split test: allowed are rows 0 to 5, at least one"):
            check_splits({"test": rows}, 6)


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_a_manifest_whose_splits_overlap_is_refused(folder):
    edit_manifest(folder, lambda manifest: manifest["splits"].update(training=[2, 10]))
    with pytest.raises(DataError, match="splits test and training: share 1 initial conditions, the first is row 2"):
        Trajectories(folder, SPEC)


def test_another_spec_is_refused_with_what_differs(folder):
    with pytest.raises(DataError, match=r"made with seed 7, not 8; frames 4, not 5; run the simulate stage again"):
        Trajectories(folder, dataclasses.replace(SPEC, seed=8, frames=5))


def test_manifests_that_are_missing_broken_or_of_another_schema_are_refused(folder):
    edit_manifest(folder, lambda manifest: manifest.update(schema=0))
    with pytest.raises(DataError, match="got schema 0; allowed: 1; run the simulate stage again"):
        Trajectories(folder, SPEC)
    edit_manifest(folder, lambda manifest: (manifest.update(schema=1), manifest.pop("splits")))
    with pytest.raises(DataError, match="no entry 'splits'; run the simulate stage again"):
        Trajectories(folder, SPEC)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not valid JSON"):
        Trajectories(folder, SPEC)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"manifest.json: no such file; run the simulate stage"):
        Trajectories(folder, SPEC)


def test_a_changed_value_is_found_when_it_is_read(folder):
    with h5py.File(folder / "burgers_nu0.1.h5", "a") as file:
        file["tensor"][6, 2, 3] += 1e-3
    data = Trajectories(folder, SPEC)
    assert len(data.read(0.1, [5, 7])) == 2
    with pytest.raises(DataError, match=r"burgers_nu0.1.h5: hash of trajectory 6 does not match; run the simulate"):
        data.split("training", 0.1)


def test_changed_hashes_truncated_and_missing_files_are_refused(folder):
    path = folder / "burgers_nu0.1.h5"
    with h5py.File(path, "a") as file:
        file["sha256"][0] = 0
    with pytest.raises(DataError, match=r"burgers_nu0.1.h5: does not match the manifest"):
        Trajectories(folder, SPEC)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(DataError, match=r"burgers_nu0.1.h5: truncated or damaged"):
        Trajectories(folder, SPEC)
    path.unlink()
    with pytest.raises(DataError, match=r"burgers_nu0.1.h5: no such file"):
        Trajectories(folder, SPEC)


def test_viscosities_and_splits_that_are_not_there_are_refused(written):
    data = Trajectories(written, SPEC)
    with pytest.raises(DataError, match=r"viscosity 0.5: not in .*; allowed are 0.02, 0.1"):
        data.read(0.5, [0])
    with pytest.raises(DataError, match=r"split 'train': not in .*; allowed are test, validation, training"):
        data.split("train", 0.1)


def test_a_folder_with_other_files_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/thesis.tex").write_text("years of work")
    with pytest.raises(DataError, match="holds other files than a data set; allowed: a new folder"):
        write_dataset(SPEC, tmp_path / "data")
    assert (tmp_path / "data/thesis.tex").read_text() == "years of work"
    monkeypatch.chdir(tmp_path / "data")
    with pytest.raises(DataError, match="holds the working folder"):
        write_dataset(SPEC, tmp_path / "data")


def test_a_set_stands_until_the_new_one_is_complete(folder):
    before = (folder / "manifest.json").read_bytes()
    whole = simulated(dataclasses.replace(SPEC, seed=8))

    def stopped(nu, rows):
        os.kill(os.getpid(), signal.SIGTERM)
        yield from whole.rows(nu, rows)

    with pytest.raises(Unfinished, match="simulate: stopped at 10 of 80 frames"):
        write_dataset(dataclasses.replace(SPEC, seed=8), folder, Solutions(stopped, "auto"))
    assert (folder / "manifest.json").read_bytes() == before
    assert [path.name for path in folder.parent.iterdir()] == ["data"]
    assert len(Trajectories(folder, SPEC).read(0.1, range(10))) == 10


def test_a_disk_that_is_full_is_named(tmp_path):
    def full(nu, rows):
        raise OSError(28, "No space left on device")

    with pytest.raises(DataError, match=r"data: cannot be written \(.*No space left on device\); make room"):
        write_dataset(SPEC, tmp_path / "data", Solutions(full, "auto"))
    assert not list(tmp_path.iterdir())
