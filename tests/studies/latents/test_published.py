"""Published layouts: an array of nine columns, Zarr stores of two kinds; what is read of them and what is refused."""

import gzip
import json
import shutil
import sys
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.errors import DataError
from assay.studies.latents import published, simulate
from assay.studies.latents.dataset import Recording
from assay.studies.latents.published import open_published
from assay.studies.latents.zarr import ZarrArray

STEPS, NEURONS, INPUTS = 1100, 6, 2


@pytest.fixture(scope="module")
def columns():
    """(T, N, 9) as published: the stimulus is zero but for the first neurons."""
    x = np.random.default_rng(0).normal(size=(STEPS, NEURONS, 9)).astype(np.float32)
    x[:, INPUTS:, 4] = 0
    x[:, :, 6] = np.arange(NEURONS) % 3
    return x


def write_zarr(path: Path, values: np.ndarray, chunks: tuple[int, ...], compressor: str | None = None) -> None:
    """An array of format 2, its last chunks filled up as the format demands."""
    path.mkdir(parents=True)
    about = {"zarr_format": 2, "shape": values.shape, "chunks": chunks, "dtype": values.dtype.str, "order": "C"}
    known = {"compressor": compressor and {"id": compressor}, "filters": None, "fill_value": 0}
    (path / ".zarray").write_text(json.dumps(about | known))
    pack = {None: bytes, "zlib": zlib.compress, "gzip": gzip.compress, "blosc": lambda raw: raw[::-1]}[compressor]
    counts = [-(-size // chunk) for size, chunk in zip(values.shape, chunks, strict=True)]
    for index in np.ndindex(*counts):
        block = np.zeros(chunks, dtype=values.dtype)
        part = values[tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, chunks, strict=True))]
        block[tuple(slice(0, size) for size in part.shape)] = part
        (path / ".".join(map(str, index))).write_bytes(pack(block.tobytes()))


@pytest.fixture
def stores(columns, tmp_path) -> dict[str, Path]:
    """The same recording in every layout."""
    np.save(tmp_path / "x_list_0.npy", columns)
    split = tmp_path / "split"
    write_zarr(split / "metadata.zarr", columns[0][:, [0, 1, 2, 5, 6]], (NEURONS, 5), "zlib")
    write_zarr(split / "timeseries.zarr", columns[:, :, [3, 4, 7, 8]], (400, NEURONS, 1), "gzip")
    for name, column in (("voltage", 3), ("stimulus", 4), ("calcium", 7)):
        write_zarr(tmp_path / "fields" / f"{name}.zarr", columns[:, :, column], (256, 4))
    write_zarr(tmp_path / "fields/neuron_type.zarr", columns[0, :, 6].astype(np.int32), (NEURONS,))
    return {"array": tmp_path / "x_list_0.npy", "split": split, "fields": tmp_path / "fields"}


@pytest.mark.parametrize("layout", ["array", "split", "fields"])
def test_every_layout_gives_the_same_recording(layout, stores, columns):
    source = open_published(str(stores[layout]), "calcium", 1050)
    rows = list(source.rows)
    assert [len(part.activity) for part in rows] == [500, 500, 50] and rows[0].mean is None
    activity, stimulus = (torch.cat([getattr(part, name) for part in rows]) for name in ("activity", "stimulus"))
    assert np.array_equal(activity, columns[:1050, :, 7])
    assert np.array_equal(stimulus, columns[:1050, :INPUTS, 4])
    assert source.types.tolist() == [0, 1, 2, 0, 1, 2] and source.connections is None


def test_only_the_columns_needed_are_read(stores):
    """The chunks of the others are not there, and nobody asks for them."""
    for path in (stores["split"] / "timeseries.zarr").glob("*.*.[23]"):
        path.unlink()
    assert len(list(open_published(str(stores["split"]), "voltage", STEPS).rows)) == 3


def test_the_simulate_stage_takes_a_published_recording(stores, make_params, columns):
    of_source = ["data.source=published", "data.column=voltage", "data.preset=null", "data.noise=null"]
    params = make_params(*of_source, "data.scenes=null", f"data.published={stores['array']}")
    simulate.run(params)
    assert np.array_equal(Recording(params).rows("activity", 0, 700), columns[:700, :, 3])


def test_blosc_needs_numcodecs_and_is_read_with_it(tmp_path, monkeypatch):
    values = np.arange(6, dtype=np.float32)
    write_zarr(tmp_path / "a.zarr", values, (4,), "blosc")
    monkeypatch.setitem(sys.modules, "numcodecs", None)
    monkeypatch.setitem(sys.modules, "numcodecs.blosc", None)
    with pytest.raises(DataError, match=r"a\.zarr: compressed by blosc; this needs numcodecs; pip install numcodecs"):
        ZarrArray(tmp_path / "a.zarr").read(0, 6)
    stub = types.ModuleType("numcodecs.blosc")
    stub.decompress = lambda raw: raw[::-1]
    monkeypatch.setitem(sys.modules, "numcodecs", types.ModuleType("numcodecs"))
    monkeypatch.setitem(sys.modules, "numcodecs.blosc", stub)
    assert np.array_equal(ZarrArray(tmp_path / "a.zarr").read(1, 6), values[1:])


def change(path: Path, **keys: object) -> None:
    (path / ".zarray").write_text(json.dumps(json.loads((path / ".zarray").read_text()) | keys))


def test_stores_that_cannot_be_read_are_refused(stores):
    path = stores["split"] / "timeseries.zarr"
    whole = open_published(str(stores["split"]), "voltage", STEPS)
    (path / "0.0.0").write_bytes((path / "0.0.0").read_bytes()[:50])
    with pytest.raises(DataError, match=r"0\.0\.0: truncated or damaged"):
        list(whole.rows)
    (path / "0.0.0").unlink()
    with pytest.raises(DataError, match=r"0\.0\.0: no such chunk; the store is incomplete"):
        list(open_published(str(stores["split"]), "voltage", STEPS).rows)
    change(path, compressor={"id": "lzma"})
    with pytest.raises(DataError, match="got compressor lzma; allowed: null, zlib, gzip, blosc"):
        ZarrArray(path).read(400, 500, 0)
    change(path, order="F")
    with pytest.raises(DataError, match="got filters or order F; allowed: neither"):
        ZarrArray(path)
    (path / ".zarray").write_text("{}")
    with pytest.raises(DataError, match="not a description of an array"):
        ZarrArray(path)
    (path / ".zarray").unlink()
    with pytest.raises(DataError, match=r"no \.zarray; allowed: an array of Zarr format 2"):
        ZarrArray(path)


def test_a_store_of_another_rank_is_refused(stores, columns):
    path = stores["split"] / "timeseries.zarr"
    change(path, shape=[STEPS, NEURONS], chunks=[400, NEURONS])
    with pytest.raises(DataError, match=rf"got shape \({STEPS}, {NEURONS}\); allowed: \(T, N, 4\)"):
        open_published(str(stores["split"]), "voltage", STEPS)


@pytest.mark.parametrize("shape", [(20, 6), (20, 6, 4)])
def test_an_array_of_another_rank_is_refused(shape, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(shape, dtype=np.float32))
    with pytest.raises(DataError, match=r"x\.npy: got shape \(20, 6.*\); allowed: \(T, N, 9\); give an x_list_0\.npy"):
        open_published(str(tmp_path / "x.npy"), "voltage", 10)


def test_recordings_that_are_missing_damaged_or_too_short_are_refused(stores, tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such file or folder; give data\.published as"):
        open_published(str(tmp_path / "nowhere"), "voltage", 10)
    (tmp_path / "x.npy").write_bytes(b"not an array")
    with pytest.raises(DataError, match=r"x\.npy: truncated or no array"):
        open_published(str(tmp_path / "x.npy"), "voltage", 10)
    with pytest.raises(DataError, match=r"got 1100 time steps; allowed: data\.steps 1101 or more; lower data\.steps"):
        open_published(str(stores["array"]), "voltage", STEPS + 1)


def test_a_column_shorter_than_the_others_is_refused(stores, columns):
    """Its last chunk is filled up with zeros, which are no values."""
    shutil.rmtree(stores["fields"] / "stimulus.zarr")
    write_zarr(stores["fields"] / "stimulus.zarr", columns[:1030, :, 4], (256, 4))
    with pytest.raises(DataError, match=r"stimulus\.zarr: got 1030 time steps; allowed: 1050 or more; get the store"):
        list(open_published(str(stores["fields"]), "voltage", 1050).rows)


def test_a_recording_that_begins_without_a_stimulus_is_refused(columns, tmp_path):
    dark = columns.copy()
    dark[:600, :, 4] = 0
    np.save(tmp_path / "x.npy", dark)
    with pytest.raises(DataError, match="no neuron has a stimulus in the first 500 time steps; allowed: one that"):
        list(open_published(str(tmp_path / "x.npy"), "voltage", 1000).rows)


def test_a_stimulus_that_begins_later_is_refused(columns, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "CHUNK", 100)
    late = columns.copy()
    late[:150, 0, 4] = 0
    np.save(tmp_path / "x.npy", late)
    with pytest.raises(DataError, match="stimulus of neuron 0 begins after time step 100; allowed: the same input"):
        list(open_published(str(tmp_path / "x.npy"), "voltage", 300).rows)
