"""How much a pipeline leaves, by its lock file."""

import pytest

from assay.runs.disk import output_bytes

LOCK = """\
schema: '2.0'
stages:
  simulate:
    cmd: make
    deps: [{path: code.py, size: 9000}]
    outs: [{path: data, size: 100, nfiles: 2}, {path: table.csv, size: 11}]
  train:
    cmd: train
"""


def test_outputs_are_summed_by_stage_and_dependencies_left_out(tmp_path):
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert output_bytes(tmp_path) == {"simulate": 111, "train": 0}


@pytest.mark.parametrize("text", [None, "", "- 1", "stages: [1]", "a: b: c", "stages: {train: {outs: [{size: x}]}}"])
def test_a_lock_that_is_missing_or_damaged_tells_nothing(tmp_path, text):
    if text is not None:
        (tmp_path / "dvc.lock").write_text(text)
    assert sum(output_bytes(tmp_path).values()) == 0
