"""Writing a file in one step: the old content or the new, never a part, and one line when it cannot be."""

import csv
import json
import math
import os
from pathlib import Path

import pytest

from assay.errors import DataError
from assay.files import write_bytes, write_csv, write_json


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
