"""What of a node reaches into a container: named variables, and paths that are there."""

import subprocess
from pathlib import Path

import pytest

from assay.containers import FORWARDED, Bind
from assay.containers.host import committer, refuse_missing, variables
from assay.errors import DataError

JOB = {
    "SLURM_JOB_ID": "7",
    "SLURMD_NODENAME": "n1",
    "SLURM_JOB_END_TIME": "1700000000",
    "SLURM_JWT": "secret",
    "LSB_JOBID": "8",
    "GIT_AUTHOR_NAME": "A. Uthor",
    "WANDB_API_KEY": "secret",
    "HOME": "/home/me",
    "LD_PRELOAD": "/evil.so",
}


def test_what_a_scheduler_says_of_the_job_is_passed_on_and_nothing_else():
    assert set(variables(FORWARDED, JOB)) == {
        "SLURM_JOB_ID",
        "SLURMD_NODENAME",
        "SLURM_JOB_END_TIME",
        "LSB_JOBID",
        "GIT_AUTHOR_NAME",
    }


def test_a_variable_with_a_secret_name_is_passed_on_only_if_it_is_named_in_full():
    assert variables(["*"], {"MY_TOKEN": "x", "DB_PASSWORD": "y", "KEYBOARD": "us"}) == {"KEYBOARD": "us"}
    assert variables(["WANDB_API_KEY"], JOB) == {"WANDB_API_KEY": "secret"}


def test_every_missing_path_is_named_with_what_helps(tmp_path):
    there, gone = Bind(source=tmp_path, target=Path("/a")), Bind(source=tmp_path / "gone", target=Path("/b"))
    refuse_missing([there])
    with pytest.raises(DataError, match=r"gone: is bound to /b, and is not there on .*container\.binds"):
        refuse_missing([there, gone])


def test_who_commits_is_known_inside_as_on_the_host(tmp_path):
    assert committer(tmp_path / "nowhere") == {}
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    for key, value in (("name", "Ada; rm -rf"), ("email", "ada@localhost")):
        subprocess.run(["git", "config", f"user.{key}", value], cwd=tmp_path, check=True)
    assert committer(tmp_path) == {
        "GIT_AUTHOR_NAME": "Ada; rm -rf",
        "GIT_COMMITTER_NAME": "Ada; rm -rf",
        "GIT_AUTHOR_EMAIL": "ada@localhost",
        "GIT_COMMITTER_EMAIL": "ada@localhost",
    }
