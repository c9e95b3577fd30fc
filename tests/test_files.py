"""Writing a file or folder in one step: the old content or the new, never a part, and one line when it cannot be."""

import csv
import json
import math
import os
from pathlib import Path

import pytest

from assay.errors import DataError
from assay.files import replaced_folder, write_bytes, write_csv, write_json


def test_a_file_is_replaced_and_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b.json"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in path.parent.iterdir()] == ["b.json"]


def test_a_full_disk_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    write_bytes(path, b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"b\.json: cannot be written \(No space left on device\); make room"):
        write_bytes(path, b"new")
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"b.json": b"old"}


def test_a_file_where_a_folder_is_needed_is_one_line(tmp_path):
    (tmp_path / "results").write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        write_bytes(Path(tmp_path / "results" / "train" / "metrics.json"), b"new")


def test_tables_have_six_digits_and_empty_cells_for_nan(tmp_path):
    write_csv(tmp_path / "t.csv", ["name", "value", "count"], [["a", 1 / 3, 2], ["b", math.nan, 1e-9]])
    rows = list(csv.reader((tmp_path / "t.csv").read_text().splitlines()))
    assert rows == [["name", "value", "count"], ["a", "0.333333", "2"], ["b", "", "1e-09"]]


def test_json_has_six_digits_and_null_for_what_is_no_number(tmp_path):
    write_json(tmp_path / "t.json", {"a": math.inf, "b": {"c": [2 / 3, math.nan], "d": True}})
    assert json.loads((tmp_path / "t.json").read_text()) == {"a": None, "b": {"c": [0.666667, None], "d": True}}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of one file that stands there."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.npy").write_bytes(b"old")
    return folder


def replace(folder: Path, error: BaseException | None = None) -> None:
    """Write another one; the error comes when it is half done."""
    with replaced_folder(folder, "a data set", ("*.npy",)) as new:
        (new / "b.npy").write_bytes(b"new")
        if error is not None:
            raise error


def found(folder: Path) -> dict[str, bytes]:
    """Every file beside and in the folder."""
    files = (path for path in folder.parent.rglob("*") if path.is_file())
    return {str(path.relative_to(folder.parent)): path.read_bytes() for path in files}


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> None:
    """The rename of this path raises, those of others do not."""
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name == name:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)


def test_a_folder_is_replaced_or_made_and_nothing_is_left_beside_it(data):
    replace(data)
    replace(data.parent / "more" / "data")
    assert found(data) == {"data/b.npy": b"new", "more/data/b.npy": b"new"}
    assert {path.name for path in data.parent.iterdir()} == {"data", "more"}
    assert data.stat().st_mode == data.parent.joinpath("more").stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), ValueError("x")])
def test_an_error_before_the_folder_is_complete_leaves_the_old_one(data, error):
    with pytest.raises(type(error)):
        replace(data, error)
    assert found(data) == {"data/a.npy": b"old"}
    assert list(data.parent.iterdir()) == [data]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(116, "Stale file handle")])
def test_an_error_between_the_two_renames_puts_the_old_folder_back(data, monkeypatch, error):
    fail_at(monkeypatch, "new", error)
    with pytest.raises((KeyboardInterrupt, DataError)):
        replace(data)
    assert found(data) == {"data/a.npy": b"old"}
    assert list(data.parent.iterdir()) == [data]


def test_an_old_folder_that_cannot_be_put_back_is_kept_and_named(data, monkeypatch):
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path == data:
            return rename(path, target)
        raise OSError(116, "Stale file handle", str(path))

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(DataError, match=r"data: cannot be written \(.*Stale file.*/\.data\..*/old'\); make room"):
        replace(data)
    assert sorted(found(data).values()) == [b"new", b"old"]


def test_a_folder_with_other_files_or_work_in_it_is_not_replaced(data, monkeypatch):
    (data / "thesis.tex").write_bytes(b"years of work")
    with pytest.raises(DataError, match=r"data: holds other files than a data set; allowed: a new folder; choose an"):
        replace(data)
    with pytest.raises(DataError, match=r"thesis\.tex: holds other files"):
        replace(data / "thesis.tex")
    monkeypatch.chdir(data)
    with pytest.raises(DataError, match=r": holds the working folder; allowed: a folder of its own; choose"):
        replace(data)
    assert found(data) == {"data/a.npy": b"old", "data/thesis.tex": b"years of work"}
