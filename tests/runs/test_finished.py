"""Complete runs are read quickly, and remembered; what is said of them is what their whole record says."""

import json
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from assay.runs import finished, status
from assay.runs.diagnose import diagnose
from assay.runs.finished import REMEMBERED, Memory, read_finished
from assay.runs.record import Attempt, Job, Progress, Stage
from assay.runs.store import RunFolder, this_process


def record(run: Path, *codes: int | None, job: Job | None = None, progress: Progress | None = None) -> None:
    """A run with attempts that ended with these codes, each after one stage."""
    for code in codes:
        begun = Attempt(number=0, holder=this_process(), command=["x"], started=100.0, heartbeat=time.time(), job=job)
        attempt = RunFolder(run).begin(begun)
        seconds = random.uniform(1, 9)
        stage = Stage(study="asl", stage="train", started=100.0, ended=100.0 + seconds, code=code)
        ended = None if code is None else 200.0
        RunFolder(run).update(replace(attempt, ended=ended, code=code, stages=[stage], progress=progress))


@pytest.mark.parametrize("codes", [(0,), (75, 75, 0), (1, 0)])
@pytest.mark.parametrize("job", [None, Job(scheduler="slurm", id="7", node="n3")])
@pytest.mark.parametrize("progress", [None, Progress(stage="train", phase="train", done=7, of=9), Progress(done=3)])
def test_a_complete_run_is_described_as_by_its_whole_record(tmp_path, codes, job, progress):
    run = tmp_path / "asl/arm/0"
    record(run, *codes, job=job, progress=progress)
    found = read_finished(run)
    assert found.diagnosis == diagnose(RunFolder(run).read(), time.time())
    assert len(found.seconds["train"]) == codes.count(0)


@pytest.mark.parametrize("codes", [(None,), (1,), (0, 75), ()])
def test_any_other_run_needs_its_whole_record(tmp_path, codes):
    record(tmp_path / "asl/arm/0", *codes)
    assert read_finished(tmp_path / "asl/arm/0") is None


def test_a_damaged_record_needs_a_closer_look(tmp_path):
    run = tmp_path / "asl/arm/0"
    record(run, 0)
    (run / "attempts/0001.json").write_text("{")
    assert read_finished(run) is None


@pytest.fixture
def many(tmp_path, monkeypatch) -> Path:
    """A folder of complete runs, which are remembered from the first look on."""
    monkeypatch.setattr(finished, "MANY", 2)
    for seed in range(4):
        record(tmp_path / f"asl/arm/{seed}", 0)
    status.collect(tmp_path)
    assert (tmp_path / REMEMBERED).is_file()
    return tmp_path


def test_what_is_remembered_is_not_read_again(many, monkeypatch):
    before = status.collect(many)
    monkeypatch.setattr(finished, "read_finished", lambda run: pytest.fail(f"{run} was read again"))
    assert status.collect(many) == before
    assert status.typical_seconds(Memory(many).known.values())["asl"]["train"] > 0


def test_a_run_that_was_written_since_is_read_again(many):
    record(many / "asl/arm/2", 1)
    assert [each.state for each in status.collect(many)] == ["complete", "complete", "failed", "complete"]


def test_a_run_that_is_gone_is_forgotten(many):
    os.rename(many / "asl/arm/1", many / ".moved")
    assert [each.seed for each in status.collect(many)] == ["0", "2", "3"]
    assert len(json.loads((many / REMEMBERED).read_text())) == 3


def test_a_memory_that_is_damaged_or_cannot_be_written_costs_only_time(many, monkeypatch):
    before = status.collect(many)
    for text in ("{", "[]", '{"x": 1}', '{"x": {"diagnosis": {}}}'):
        (many / REMEMBERED).write_text(text)
        assert status.collect(many) == before
    (many / REMEMBERED).unlink()
    (many / REMEMBERED).mkdir()
    assert status.collect(many) == before
