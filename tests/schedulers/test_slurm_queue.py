"""What is made of sacct's words, with a stand-in for it: of jobs that the controller has forgotten."""

import os
from pathlib import Path

import pytest

from assay.errors import SchedulerError
from assay.schedulers.client import SilentError
from assay.schedulers.config import SlurmConfig
from assay.schedulers.slurm import Slurm
from assay.schedulers.slurm_queue import accounted

STUBS = Path(__file__).parents[1] / "stubs"
DOWN = "sacct: error: Problem talking to the database: Connection refused"


@pytest.fixture(autouse=True)
def accounting(tmp_path, monkeypatch) -> Path:
    """The file that says what is on record; without it there is no accounting."""
    monkeypatch.setenv("PATH", f"{STUBS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_CLUSTER", str(tmp_path))
    return tmp_path / "accounting"


def test_without_accounting_nothing_is_known():
    assert accounted(["12", "13_4"]) == {}


def test_a_chain_is_as_the_last_of_its_jobs_that_ran(accounting):
    accounting.write_text("12_1|FAILED\n12_2|COMPLETED\n12_[3-4%1]|CANCELLED by 0\n")
    assert accounted(["12"]) == {"12": "COMPLETED"}


@pytest.mark.parametrize(
    ("tasks", "each"),
    [("3", {3}), ("[0-2]", {0, 1, 2}), ("[0-1,3,5-6%2]", {0, 1, 3, 5, 6}), ("[0-8:4,11]", {0, 4, 8, 11})],
)
def test_tasks_that_never_ran_share_a_line(accounting, tasks, each):
    accounting.write_text(f"12_{tasks}|CANCELLED by 1000\n")
    assert accounted([f"12_{task}" for task in range(12)]) == {f"12_{task}": "CANCELLED by 1000" for task in each}


def test_a_job_that_is_alive_on_record_only_is_not_alive(accounting):
    accounting.write_text("12|RUNNING\n13_1|FAILED\n13_2|RUNNING\n14_[0-2]|PENDING\n15|TIMEOUT\n")
    assert accounted(["12", "13", "14_1", "15"]) == {"15": "TIMEOUT"}


def test_accounting_that_does_not_answer_is_an_error(accounting):
    accounting.write_text(DOWN)
    with pytest.raises(SchedulerError, match=r"sacct: failed .*Connection refused.*; slurmdbd does not answer"):
        accounted(["12"])


def test_it_is_a_silence_for_who_asks_how_a_job_ended_and_none_for_who_asks_whether_it_is_alive(accounting, tmp_path):
    accounting.write_text(DOWN)
    slurm = Slurm(tmp_path / "slurm", SlurmConfig())
    with pytest.raises(SilentError, match="slurmdbd does not answer"):
        slurm.states(["12"])
    assert slurm.states(["12"], insist=True) == {}
