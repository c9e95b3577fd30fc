"""The simulated data set: reproducible, checked when read, cheap to open however large."""

import hashlib
import json
import os
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.config import load
from assay.errors import DataError
from assay.studies.asl import dataset, simulate
from assay.studies.asl.config import Params
from assay.studies.asl.dataset import nominal_physics, split, write_dataset
from assay.studies.asl.physics import joint_signal
from assay.studies.asl.source import DiskSource, SimulatedSource

CPU = torch.device("cpu")


@pytest.fixture
def params(make_params):
    return make_params()


@pytest.fixture
def folder(params) -> Path:
    path = Path(params.data.path)
    write_dataset(params, path)
    return path


def test_two_simulations_of_one_seed_are_the_same_bytes(params, folder, tmp_path):
    write_dataset(params, tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_the_number_of_threads_changes_no_byte(make_params, tmp_path, monkeypatch):
    params = make_params("data.phantoms=300")
    before = torch.get_num_threads()
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", partial(int, threads))
        write_dataset(params, tmp_path / str(threads))
    monkeypatch.undo()
    torch.set_num_threads(before)
    for path in (tmp_path / "1").iterdir():
        assert path.read_bytes() == (tmp_path / "3" / path.name).read_bytes(), path.name


def test_a_sample_does_not_depend_on_the_size_of_the_set(make_params, folder, tmp_path):
    write_dataset(make_params("data.phantoms=200"), tmp_path / "larger")
    small, large = np.load(folder / "signals.npy"), np.load(tmp_path / "larger" / "signals.npy")
    np.testing.assert_array_equal(small, large[:32])


def test_another_seed_gives_other_phantoms(make_params, folder, tmp_path):
    write_dataset(make_params("seed=1"), tmp_path / "other")
    assert not np.array_equal(np.load(folder / "targets.npy"), np.load(tmp_path / "other" / "targets.npy"))


def test_stored_signals_are_those_of_the_stored_maps(params, folder):
    clean = DiskSource(params, CPU).read([3, 17])
    expected = joint_signal(clean.cbf, clean.att, params.physics.plds, nominal_physics(params))
    torch.testing.assert_close(clean.signal, expected, rtol=1e-5, atol=1e-9)


def test_randomised_physics_is_applied_and_stored(make_params, tmp_path):
    params = make_params("physics.randomise=baseline")
    write_dataset(params, Path(params.data.path))
    clean = DiskSource(params, CPU).read([0, 1])
    assert clean.physics.t1_artery[0] != clean.physics.t1_artery[1]
    same_maps = joint_signal(clean.cbf, clean.att, params.physics.plds, clean.physics)
    torch.testing.assert_close(clean.signal, same_maps, rtol=1e-5, atol=1e-9)
    nominal = joint_signal(clean.cbf, clean.att, params.physics.plds, nominal_physics(params))
    assert not torch.allclose(clean.signal, nominal, rtol=1e-2)


def test_legacy_switch_leaves_the_randomisation_out(make_params):
    params = make_params("physics.randomise=baseline", "legacy.inactive_randomisation=true")
    write_dataset(params, Path(params.data.path))
    physics = DiskSource(params, CPU).read([0, 1]).physics
    assert physics.t1_artery.tolist() == [1850.0, 1850.0]


def test_training_and_validation_parts_do_not_overlap(params, folder):
    training, held_out = split(params)
    assert len(held_out) == 4 and sorted(training + held_out) == list(range(32))
    source = DiskSource(params, CPU)
    drawn = {index for _, index in source.draw(0, 56)[1]}
    assert drawn == set(training)


def test_statistics_are_those_of_the_training_part(params, folder):
    training, _ = split(params)
    cbf = np.load(folder / "targets.npy")[training, 0].astype(np.float64)
    statistics = DiskSource(params, CPU).statistics
    assert statistics.cbf_mean == pytest.approx(cbf.mean(), rel=1e-6)
    assert statistics.cbf_std == pytest.approx(cbf.std(ddof=1), rel=1e-6)


def test_the_order_is_a_function_of_seed_and_cursor_alone(params, folder):
    one, two = DiskSource(params, CPU), DiskSource(params, CPU)
    whole = one.draw(0, 60)[1]
    assert [key for start in (0, 20, 40) for key in two.draw(start, 20)[1]] == whole
    assert {epoch for epoch, _ in whole} == {0, 1, 2}


def test_drawn_phantoms_are_a_function_of_seed_and_cursor_and_never_repeat(make_params):
    params = make_params("data.source=simulated")
    one, two = SimulatedSource(params, CPU), SimulatedSource(params, CPU)
    torch.testing.assert_close(one.draw(8, 4)[0].signal, two.draw(8, 4)[0].signal, rtol=0, atol=0)
    assert not torch.equal(one.draw(8, 4)[0].cbf, one.draw(40, 4)[0].cbf)


def test_a_flipped_bit_is_refused_when_the_sample_is_read(params, folder):
    array = np.lib.format.open_memmap(folder / "signals.npy", mode="r+")
    array[5, 0, 3, 3] += 1e-3
    array.flush()
    source = DiskSource(params, CPU)
    source.read([4, 6])
    with pytest.raises(DataError, match="hash of sample 5 does not match; run the simulate stage again"):
        source.read([5])


def test_a_truncated_file_is_refused(params, folder):
    path = folder / "targets.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"targets\.npy: truncated or damaged.*run the simulate stage again"):
        DiskSource(params, CPU)


def test_an_array_of_another_shape_is_refused(params, folder):
    np.save(folder / "labels.npy", np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match=r"labels\.npy: got \(3, 3\) uint8; allowed: \(32, 3, 16, 16\) uint8"):
        DiskSource(params, CPU)


def test_a_manifest_that_does_not_match_its_digests_is_refused(params, folder):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": "0" * 64}))
    with pytest.raises(DataError, match=r"digests\.npy: does not match the manifest"):
        DiskSource(params, CPU)


@pytest.mark.parametrize("override", ["seed=1", "physics.t1_artery=1650", "data.blur_sigma=0"])
def test_a_set_simulated_with_other_values_is_refused(override, make_params, folder):
    with pytest.raises(DataError, match="simulated with other seed, data or physics values"):
        DiskSource(make_params(override), CPU)


def test_a_missing_set_is_refused(params):
    with pytest.raises(DataError, match=r"no such file; run the simulate stage, or set data\.source: simulated"):
        DiskSource(params, CPU)


def test_a_full_disk_leaves_the_old_set_in_place(params, folder, monkeypatch):
    before = (folder / "manifest.json").read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "open_memmap", full)
    with pytest.raises(DataError, match=r"No space left on device.*make room or change data\.path"):
        write_dataset(params, folder)
    assert (folder / "manifest.json").read_bytes() == before
    assert not list(folder.parent.glob(".*partial"))


def test_space_is_taken_before_it_is_written(params, monkeypatch):
    """Writing to a memory map on a full disk would end the process with a bus error."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match="No space left on device"):
        write_dataset(params, Path(params.data.path))
    assert list(Path(params.data.path).parent.iterdir()) == []


def test_a_folder_with_other_files_is_not_replaced(params, tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.txt").write_text("years of work")
    with pytest.raises(DataError, match=r"thesis: holds other files than a data set; allowed: a new folder"):
        write_dataset(params, thesis)
    assert (thesis / "chapter.txt").read_text() == "years of work"


def test_neither_is_one_by_the_note_that_samples_are_drawn(make_params, tmp_path):
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    for name in ("chapter.txt", "manifest.json"):
        (thesis / name).write_text("years of work")
    with pytest.raises(DataError, match=r"thesis: holds other files than a data set; .* change data\.path"):
        simulate.run(make_params("data.source=simulated", f"data.path={thesis}"))
    assert (thesis / "manifest.json").read_text() == "years of work"


def test_the_note_that_samples_are_drawn_leaves_no_arrays_of_an_old_set(make_params, folder):
    simulate.run(make_params("data.source=simulated"))
    (path,) = folder.iterdir()
    assert json.loads(path.read_text())["source"] == "simulated"


@pytest.mark.parametrize("path", [".", ".."])
def test_the_working_folder_is_not_replaced(path, params, tmp_path, monkeypatch):
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "outer" / "inner")
    with pytest.raises(DataError, match=r": holds the working folder"):
        write_dataset(params, Path(path))
    assert (tmp_path / "outer" / "inner").is_dir()


def test_an_old_set_is_replaced_by_a_new_one(params, make_params, folder):
    write_dataset(make_params("seed=3"), folder)
    assert DiskSource(make_params("seed=3"), CPU).manifest["seed"] == 3


FIRST_BATCH = """
import resource, sys, time
from pathlib import Path
import torch
from assay.config import load
from assay.studies.asl.config import Params
from assay.studies.asl.source import DiskSource
params = load(Params, Path(sys.argv[1]), ["data.phantoms=100000", "data.path=" + sys.argv[2]])
rss = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
before, begun = rss(), time.perf_counter()
clean, keys = DiskSource(params, torch.device("cpu")).draw(0, 32)
print(time.perf_counter() - begun, (rss() - before) / 1e6, *clean.signal.shape)
"""


def sparse_dataset(params, folder: Path) -> None:
    """A valid data set of all-zero samples whose large files are holes."""
    folder.mkdir()
    shapes = dataset.array_shapes(params)
    for name, (shape, dtype) in shapes.items():
        np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=shape).flush()
    row = dataset.sample_digest({name: np.zeros(shape[1:], dtype) for name, (shape, dtype) in shapes.items()})
    digests = np.broadcast_to(row, shapes["digests"][0])
    np.save(folder / "digests.npy", digests)
    manifest = {
        "schema": dataset.SCHEMA,
        "parameters": dataset.config_digest(params, dataset.STAGES["simulate"]),
        "statistics": {"cbf_mean": 0.0, "cbf_std": 1.0, "att_mean": 0.0, "att_std": 1.0},
        "sha256": hashlib.sha256(digests.tobytes()).hexdigest(),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_first_batch_of_100_000_samples_is_there_in_a_second_with_little_memory(make_params, tmp_path):
    source = Path(__file__).parents[3] / "params.yaml"
    folder = tmp_path / "huge"
    sparse_dataset(load(Params, source, ["data.phantoms=100000"]), folder)
    assert (folder / "signals.npy").stat().st_size > 19e9
    command = [sys.executable, "-c", FIRST_BATCH, str(source), str(folder)]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(3)]
    assert runs[0][2:] == ["32", "12", "64", "64"]
    assert statistics.median(float(run[0]) for run in runs) < 1.0
    assert max(float(run[1]) for run in runs) < 300
