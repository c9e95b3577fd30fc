"""The job of one run, `run.slurm`, with stand-ins for what it calls."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEM = "/usr/bin:/bin"


@pytest.mark.parametrize(
    ("squeue", "end"), [("echo 2026-11-21T10:00:00", "1795255200"), (":", "unknown"), ("echo N/A", "unknown")]
)
def test_the_command_is_told_when_its_job_must_be_over_only_if_slurm_says_so(tmp_path, squeue, end):
    stubs = {"squeue": squeue, "assay": 'echo "${SLURM_JOB_END_TIME:-unknown}" >end', "dvc": ":", "scancel": ":"}
    for name, body in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURMD_NODENAME": "n1", "SLURM_SUBMIT_DIR": str(tmp_path)}
    environment = {**job, "PATH": f"{tmp_path}:{SYSTEM}", "HOME": os.environ["HOME"], "TZ": "UTC"}
    subprocess.run(["bash", ROOT / "run.slurm"], env=environment, check=True)
    assert (tmp_path / "end").read_text() == f"{end}\n"
