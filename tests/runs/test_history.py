"""What a run knows of its siblings' times, without looking at all of a large study."""

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from assay.runs.history import known_seconds, stage_tries, until_done
from assay.runs.record import Attempt, Stage
from assay.runs.store import RunFolder, this_process


def record(run: Path, checkpoint_s: float) -> Path:
    """A run that has written one checkpoint."""
    begun = Attempt(number=0, holder=this_process(), command=["x"], started=1.0, heartbeat=time.time())
    attempt = RunFolder(run).begin(begun)
    stage = Stage(study="asl", stage="train", started=1.0, ended=2.0, code=0, seconds={"checkpoint": [checkpoint_s]})
    RunFolder(run).update(replace(attempt, ended=2.0, code=0, stages=[stage]))
    return run


@pytest.fixture
def looked_at(monkeypatch) -> Counter[str]:
    """How often files were looked at, and folders listed."""
    calls: Counter[str] = Counter()

    def counted(name: str) -> Callable[..., object]:
        real = getattr(os, name)
        return lambda *arguments, **options: (calls.update([name]), real(*arguments, **options))[1]

    for name in ("stat", "scandir", "listdir"):
        monkeypatch.setattr(os, name, counted(name))
    return calls


def test_the_longest_checkpoint_of_any_sibling_counts(tmp_path):
    run = record(tmp_path / "asl/base/0", 1.0)
    record(tmp_path / "asl/base/1", 3.0)
    record(tmp_path / "asl/deep/0", 2.0)
    (tmp_path / "asl/registered.json").touch()
    assert known_seconds(run) == {"checkpoint": 3.0}


def test_a_stage_took_what_all_its_tries_took_until_it_was_done():
    tries = [
        ("simulate", 9.0, 0),
        ("train", 3600.0, 75),
        ("train", 3600.0, None),
        ("train", 60.0, 0),
        ("train", 5.0, 0),
    ]
    assert until_done([*tries, ("validate", 7.0, 1)]) == {"simulate": [9.0], "train": [7260.0, 5.0]}


def test_a_try_that_was_killed_lasted_as_long_as_its_attempt():
    stage = Stage(study="asl", stage="train", started=10.0)
    killed = Attempt(number=1, holder=this_process(), command=["x"], started=1.0, heartbeat=40.0, stages=[stage])
    assert list(stage_tries([killed, replace(killed, ended=50.0)])) == [("train", 30.0, None), ("train", 40.0, None)]


def test_other_seeds_of_its_arm_come_first(tmp_path):
    run = record(tmp_path / "asl/zoom/0", 1.0)
    record(tmp_path / "asl/zoom/1", 5.0)
    for seed in range(25):
        record(tmp_path / f"asl/base/{seed}", 2.0)
    assert known_seconds(run) == {"checkpoint": 5.0}


@pytest.mark.parametrize("begun", [True, False])
def test_of_a_large_study_few_runs_are_looked_at(tmp_path, looked_at, begun):
    for arm in range(50):
        for seed in range(40):
            (tmp_path / f"asl/arm{arm:02d}/{seed}" / ("attempts" if begun else "")).mkdir(parents=True)
    looked_at.clear()
    known_seconds(tmp_path / "asl/arm07/3")
    assert looked_at.total() < 500
