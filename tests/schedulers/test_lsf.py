"""What LSF is told, with stand-ins for its commands that check its syntax; beyond what every scheduler does."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.errors import SchedulerError
from assay.machine import OURS
from assay.schedulers import Job
from assay.schedulers.config import LsfConfig, ResourcesConfig
from assay.schedulers.lsf import MEANINGS, Lsf

STUBS = Path(__file__).parents[1] / "stubs"
STATES = ["PEND", "PROV", "PSUSP", "RUN", "USUSP", "SSUSP", "DONE", "EXIT", "UNKWN", "WAIT", "ZOMBI"]
"""Job states of bjobs(1), LSF 10.1."""


@pytest.fixture(autouse=True)
def cluster(tmp_path, monkeypatch) -> Path:
    """The folder of the cluster that the stand-ins play."""
    monkeypatch.setenv("PATH", f"{STUBS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_CLUSTER", str(tmp_path / "cluster"))
    monkeypatch.setattr("assay.schedulers.words.POLL_S", 0.0)
    return tmp_path / "cluster"


@pytest.fixture
def job(tmp_path) -> Callable[..., Job]:
    def make(**more: object) -> Job:
        paths = {"folder": tmp_path, "log": tmp_path / "job.log", "script": tmp_path / "job.sh"}
        return Job(name="latents[1]-batch 32", command=["true"], **paths, **more)

    return make


def told(text: str) -> set[str]:
    return set(re.findall("^#BSUB (.*)$", text, re.MULTILINE))


def test_a_job_asks_for_what_the_machine_file_says(tmp_path, job):
    lsf = Lsf(tmp_path, LsfConfig(queue="gpu_a100", project="lab", options=("-sp 10",)))
    resources = ResourcesConfig(cpus=12, memory=60.0, gpus=1)
    made = job(resources=resources, wall_limit=14400.0, avoid=("h01", "h02"))
    assert told(lsf.render(made)) == {
        '-J "latents_1_-batch_32"',  # brackets would make it an array
        f'-g "/assay/{made.token}"',
        f'-o "{tmp_path}/job.log"',
        '-q "gpu_a100"',
        '-P "lab"',
        '-n "12"',
        "-R \"select[hname!='h01' && hname!='h02'] span[hosts=1] rusage[mem=61440MB]\"",
        '-M "61440MB"',
        '-gpu "num=1"',
        '-W "240"',
        '-wt "1"',
        '-wa "USR1"',
        "-sp 10",
    }


def test_no_option_that_a_job_is_given_may_be_given_again_but_what_it_needs_which_lsf_joins(tmp_path, job):
    asked = ResourcesConfig(memory=1.0, gpus=1)
    text = Lsf(tmp_path, LsfConfig(queue="normal", project="lab")).render(job(resources=asked, wall_limit=600.0))
    assert {option.partition(" ")[0] for option in told(text)} <= {*OURS["lsf"], "-R"}


def test_the_kind_of_gpu_is_its_model(tmp_path, job):
    text = Lsf(tmp_path, LsfConfig()).render(job(resources=ResourcesConfig(gpus=2, gpu="TeslaT4")))
    assert '-gpu "num=2:gmodel=TeslaT4"' in told(text)


def test_every_host_but_the_first_runs_what_is_to_run_beside_the_command(tmp_path, job):
    """Rendered only; the list of hosts is the shell's work."""
    resources = ResourcesConfig(nodes=3, cpus=2, processes=3)
    text = Lsf(tmp_path, LsfConfig()).render(job(resources=resources, beside=("help", "a run")))
    (started,) = re.findall(r"^blaunch -z (.*) help 'a run' &$", text, re.MULTILINE)
    environment = {**os.environ, "LSB_HOSTS": "h1 h1 h2 h2 h3 h3"}
    said = subprocess.run(["bash", "-c", f"echo {started}"], env=environment, capture_output=True, text=True).stdout
    assert said == "h2 h3\n"


def test_a_chain_waits_for_the_end_of_each_job_however_it_ends(tmp_path, job, cluster):
    lsf = Lsf(tmp_path / "lsf", LsfConfig())
    first, second, third = lsf.submit(job(attempts=3)).split(",")
    given = [line for line in (cluster / "calls").read_text().splitlines() if line.startswith(("bsub", "bresume"))]
    assert given == ["bsub -H", f"bsub -w ended({first})", f"bsub -w ended({second})", f"bresume {first}"]
    lsf.cancel(f"{first},{second},{third}")


def test_a_chain_that_stalls_avoids_that_host_besides_those_it_had_to_avoid_before(tmp_path, job):
    text = Lsf(tmp_path, LsfConfig()).render(job(attempts=2, avoid=("h01",)))
    (told,) = re.findall(r'bmod -R (".*?") "\$id"', text)
    environment = {**os.environ, "LSB_HOSTS": "h02 h02"}
    said = subprocess.run(["bash", "-c", f"echo {told}"], env=environment, capture_output=True, text=True).stdout
    assert said == "select[hname!='h01' && hname!='h02'] span[hosts=1]\n"


def test_a_queue_that_there_is_not_is_named_with_the_fix(tmp_path, job):
    with pytest.raises(SchedulerError, match=r"bsub: failed .*-q nope: Bad syntax"):
        Lsf(tmp_path / "lsf", LsfConfig(queue="nope")).submit(job())


def test_a_chain_of_which_some_jobs_were_refused_is_shorter(tmp_path, job, cluster, monkeypatch):
    from assay.schedulers import lsf as module

    refusing = iter([None, None, SchedulerError("bsub: failed (Pending job threshold reached)")])
    give = module.give

    def sometimes(command, *more, **options):
        refusal = next(refusing, None) if command[0] == "bsub" else None
        if refusal:
            raise refusal
        return give(command, *more, **options)

    monkeypatch.setattr(module, "give", sometimes)
    lsf = Lsf(tmp_path / "lsf", LsfConfig())
    chain = lsf.submit(job(attempts=4))
    assert len(chain.split(",")) == 2
    lsf.cancel(chain)


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_the_manual_has_a_meaning(state, tmp_path):
    assert state in MEANINGS
    assert Lsf(tmp_path, LsfConfig()).meaning(f"{state} TERM_RUNLIMIT: job killed") == MEANINGS[state]


def test_a_state_of_no_manual_is_unknown(tmp_path):
    assert Lsf(tmp_path, LsfConfig()).meaning("RUNS") == "unknown"


def test_programs_that_are_missing_are_named_with_the_fix(tmp_path, job, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "bsub: not on PATH; give the command on a login node" in Lsf(tmp_path, LsfConfig()).unavailable(job())[0]


def test_lsf_that_is_down_is_named_with_the_fix(tmp_path, job, cluster):
    cluster.mkdir()
    (cluster / "down").write_text("LSF is down. Please wait ...")
    assert "LSF is down; tell whoever runs the cluster" in Lsf(tmp_path, LsfConfig()).unavailable(job())[0]
