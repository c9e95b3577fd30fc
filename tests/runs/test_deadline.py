"""The deadline is what was given, else what the scheduler says, else the machine's wall limit."""

import os
import stat
import time

import pytest

from assay.errors import ConfigError
from assay.runs.deadline import lead, parse_slurm_duration, plain_lead, time_left

SQUEUE = """#!/usr/bin/env bash
[[ "$*" == "--noheader --jobs 17 --format %L" ]] || { echo "squeue: unexpected: $*" >&2; exit 1; }
echo "1-02:03:04"
"""
BJOBS = """#!/usr/bin/env bash
[[ "$*" == "-noheader -o time_left 23" ]] || { echo "bjobs: unexpected: $*" >&2; exit 255; }
echo "0:58 L"
"""


@pytest.fixture
def on_path(tmp_path, monkeypatch):
    """Install a stub program that refuses any command line but the right one."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def install(name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)

    return install


def test_what_was_given_comes_first():
    assert time_left(50, 100, {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": "1"}) == 50


def test_a_limit_that_is_not_positive_is_refused():
    with pytest.raises(ConfigError, match=r"--deadline: got 0; allowed: > 0 seconds"):
        time_left(0, None, {})


def test_slurm_tells_its_end_in_the_environment():
    left = time_left(None, 100, {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": str(int(time.time()) + 3600)})
    assert left == pytest.approx(3600, abs=5)


def test_older_slurm_is_asked(on_path):
    on_path("squeue", SQUEUE)
    assert time_left(None, 100, {"SLURM_JOB_ID": "17"}) == 86400 + 2 * 3600 + 3 * 60 + 4


def test_lsf_is_asked(on_path):
    on_path("bjobs", BJOBS)
    assert time_left(None, 100, {"LSB_JOBID": "23"}) == 58 * 60


def test_without_a_scheduler_the_machine_decides():
    assert time_left(None, 100, {}) == 100
    assert time_left(None, None, {}) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10:00", 600), ("1:00:00", 3600), ("2-00:00:01", 172801), ("UNLIMITED", None), ("INVALID", None), ("", None)],
)
def test_slurm_durations(text, seconds):
    assert parse_slurm_duration(text) == seconds


def test_the_lead_leaves_room_for_two_steps_and_a_checkpoint_and_no_more_than_five_seconds_beside():
    assert 2 * 3 + 10 < lead(3, 10) <= 2 * 3 + 10 + 5


def test_a_command_that_says_nothing_gets_its_grace_but_not_most_of_a_short_limit():
    assert plain_lead(30, 3600) == 31
    assert plain_lead(30, 20) == 3


@pytest.mark.parametrize("given", ["nan", "inf"])
def test_a_limit_must_be_a_number_of_seconds(given):
    with pytest.raises(ConfigError, match="--deadline: got"):
        time_left(float(given), None, {})


@pytest.mark.parametrize("end", ["1000", "Unknown", ""])
def test_another_jobs_end_or_no_number_is_no_end(end):
    """The variables outlive a job in a terminal that was opened in it."""
    assert time_left(None, 100, {"SLURM_JOB_ID": "1", "SLURM_JOB_END_TIME": end}) == 100
