"""What Slurm is told and how its words are read, with stand-ins for its commands; beyond what every scheduler does."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.errors import SchedulerError
from assay.machine import OURS
from assay.schedulers import Job
from assay.schedulers.client import SilentError
from assay.schedulers.config import ResourcesConfig, SlurmConfig
from assay.schedulers.slurm import Slurm
from assay.schedulers.slurm_queue import MEANINGS, Entry, meaning, word_by_id

STUBS = Path(__file__).parents[1] / "stubs"
STATES = [
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "CONFIGURING",
    "COMPLETING",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PENDING",
    "PREEMPTED",
    "RUNNING",
    "RESV_DEL_HOLD",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "REQUEUED",
    "RESIZING",
    "REVOKED",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
    "TIMEOUT",
]
"""JOB STATE CODES of squeue(1), Slurm 22.05."""


@pytest.fixture(autouse=True)
def cluster(tmp_path, monkeypatch) -> Path:
    """The folder of the cluster that the stand-ins play."""
    monkeypatch.setenv("PATH", f"{STUBS}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STUB_CLUSTER", str(tmp_path / "cluster"))
    return tmp_path / "cluster"


@pytest.fixture
def slurm(tmp_path) -> Slurm:
    return Slurm(tmp_path / "slurm", SlurmConfig())


@pytest.fixture
def job(tmp_path) -> Callable[..., Job]:
    def make(name: str = "job", **more: object) -> Job:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "job.sh").write_text("#!/bin/bash\nexit 0\n")
        paths = {"folder": tmp_path, "log": folder / "job.log", "script": folder / "job.sh"}
        return Job(name=name, command=["true"], **paths, **more)

    return make


def calls(cluster: Path, program: str) -> int:
    return sum(line.split()[0] == program for line in (cluster / "calls").read_text().splitlines())


def told(slurm: Slurm, job: Job) -> set[str]:
    return set(re.findall("^#SBATCH (.*)$", slurm.render(job), re.MULTILINE))


def test_a_job_asks_for_what_the_machine_file_says(tmp_path, job):
    config = SlurmConfig(partition="gpu_a100", account="lab", qos="high", constraint="a&b", exclude=("n7",))
    resources = ResourcesConfig(cpus=8, memory=31.5, gpus=2, gpu="a100")
    made = job(resources=resources, wall_limit=21601.0, avoid=("n9",))
    assert told(Slurm(tmp_path, config), made) >= {
        "--nodes=1",
        "--cpus-per-task=8",
        "--mem=32256M",
        "--gres=gpu:a100:2",
        "--time=361",
        "--signal=B:USR1@60",
        "--partition=gpu_a100",
        "--account=lab",
        "--qos=high",
        '--constraint="a&b"',
        "--exclude=n7,n9",
    }


def test_no_option_that_a_job_is_given_may_be_given_again_in_the_machine_file(tmp_path, job):
    config = SlurmConfig(partition="main", account="lab", qos="high", constraint="a&b", exclude=("n7",))
    asked = ResourcesConfig(memory=1.0, gpus=1)
    names = {
        option.partition("=")[0]
        for option in told(Slurm(tmp_path, config), job(resources=asked, wall_limit=600.0, attempts=2))
    }
    assert names == set(OURS["slurm"])


def test_what_is_not_asked_for_is_left_to_the_cluster(slurm, job):
    names = {option.partition("=")[0] for option in told(slurm, job())}
    expected = {"--job-name", "--comment", "--output", "--open-mode", "--signal"}
    assert names == expected | {"--nodes", "--ntasks-per-node", "--cpus-per-task"}


def test_every_node_but_the_first_runs_what_is_to_run_beside_the_command(slurm, job):
    text = slurm.render(job(resources=ResourcesConfig(nodes=3, cpus=4, processes=3), beside=("help", "a run")))
    assert {"--nodes=3", "--ntasks-per-node=1"} <= set(re.findall("^#SBATCH (.*)$", text, re.MULTILINE))
    step = "srun --nodes=2 --ntasks=2 --cpus-per-task=4 --relative=1 --input=none help 'a run' &\nbeside=$!\ntrue &\n"
    assert step in text
    assert re.search(r'code=\$\?\nsleep 2 .*\nkill "\$beside" 2>/dev/null\nwait "\$beside"\nexit "\$code"\n', text)
    assert "srun" not in slurm.render(job(resources=ResourcesConfig(nodes=3)))


def test_more_options_are_passed_on(tmp_path, job):
    assert "--mail-type=END" in told(Slurm(tmp_path, SlurmConfig(options=("--mail-type=END",))), job())


def test_the_warning_comes_later_where_the_limit_is_short(slurm, job):
    assert "--signal=B:USR1@6" in told(slurm, job(wall_limit=60.0))


def test_a_chain_is_an_array_of_which_one_task_runs_at_a_time(slurm, job):
    assert "--array=1-4%1" in told(slurm, job(attempts=4))
    assert not any(option.startswith("--array") for option in told(slurm, job()))


@pytest.mark.parametrize(("now", "forwarded"), [(100, True), (9000, False)])
def test_a_warning_long_before_the_end_is_of_a_preemption_and_is_passed_on(slurm, job, now, forwarded):
    """Near the end it is not: the supervisor asks by itself, as late as a checkpoint allows."""
    (trap,) = re.findall("^trap '(.*)' USR1$", slurm.render(job(wall_limit=9000.0)), re.MULTILINE)
    shell = f"date() {{ echo {now}; }}; kill() {{ echo forwarded; }}; SLURM_JOB_END_TIME=9000; child=1; {trap}"
    said = subprocess.run(["bash", "-c", shell], capture_output=True, text=True).stdout
    assert said == ("forwarded\n" if forwarded else "")


def test_runs_that_fit_one_job_are_one_array_and_no_array_is_larger_than_the_cluster_allows(
    slurm, job, cluster, monkeypatch
):
    monkeypatch.setenv("STUB_MAX_ARRAY_SIZE", "3")
    ids = list(slurm.submit_all([job(f"job{number}") for number in range(7)]))
    assert [each.partition("_")[2] for each in ids] == ["0", "1", "2", "0", "1", "2", ""]
    assert calls(cluster, "sbatch") == 1 + 3  # the first one only tests


def test_jobs_that_ask_for_different_things_are_different_arrays(slurm, job, cluster):
    large = ResourcesConfig(cpus=4)
    jobs = [job("a"), job("b"), job("c", resources=large), job("d", resources=large), job("e", attempts=2)]
    ids = list(slurm.submit_all(jobs))
    assert len({each.partition("_")[0] for each in ids}) == 3
    assert [each.partition("_")[2] for each in ids] == ["0", "1", "0", "1", ""]


def test_what_slurm_would_refuse_is_refused_before_anything_is_submitted(tmp_path, job, cluster):
    slurm = Slurm(tmp_path, SlurmConfig(partition="nope"))
    with pytest.raises(SchedulerError, match=r"sbatch: failed .*nope.*; correct slurm.partition; sinfo lists them"):
        list(slurm.submit_all([job("a"), job("b")]))
    assert not (cluster / "jobs.json").exists()
    assert "correct slurm.partition" in slurm.unavailable(job())[0]


def test_programs_that_are_missing_are_named_with_the_fix(slurm, job, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "sbatch: not on PATH; give the command on a login node" in slurm.unavailable(job())[0]
    with pytest.raises(SchedulerError, match="sbatch: not on PATH; give the command on a login node"):
        slurm.submit(job())


def test_an_environment_too_large_for_any_command_is_named(slurm, job, monkeypatch):
    for number in range(100):
        monkeypatch.setenv(f"LARGE_{number}", "x" * 100_000)
    monkeypatch.setenv("LARGEST", "x" * 120_000)
    with pytest.raises(
        SchedulerError, match=r"the environment has 10.\d MB; unset its largest variable, LARGEST \(0.1"
    ):
        slurm.submit(job())


def test_munge_that_is_down_is_named_with_the_fix(slurm, job, cluster):
    cluster.mkdir()
    (cluster / "down").write_text("sbatch: error: Munge encode failed: Failed to access socket (Did you start munged?)")
    with pytest.raises(SchedulerError, match=r"munge signs every message; start it on this computer"):
        slurm.submit(job())


@pytest.mark.parametrize("state", STATES)
def test_every_state_of_the_manual_has_a_meaning(state):
    assert meaning(state) != "unknown"


def test_states_come_with_reasons_and_names_and_unknown_ones_stay_unknown():
    assert meaning("CANCELLED by 1000") == "ended"
    assert meaning("PENDING Resources") == "queued"
    assert meaning("PENDINGS") == meaning("") == "unknown"
    assert set(MEANINGS.values()) == {"queued", "running", "ended"}


def entries(*words: str) -> list[Entry]:
    return [Entry("12", str(number), word, "") for number, word in enumerate(words, 1)]


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["FAILED NonZeroExitCode", "RUNNING", "PENDING JobArrayTaskLimit"], "RUNNING"),
        (["FAILED NonZeroExitCode", "PENDING JobArrayTaskLimit"], "PENDING JobArrayTaskLimit"),
        (["TIMEOUT", "COMPLETED", "CANCELLED"], "COMPLETED"),
        (["FAILED NonZeroExitCode", "TIMEOUT TimeLimit"], "TIMEOUT TimeLimit"),
        (["CANCELLED", "CANCELLED"], "CANCELLED"),
    ],
)
def test_a_chain_is_as_its_living_task_or_else_as_the_last_that_ran(words, whole):
    assert word_by_id(entries(*words))["12"] == whole


def test_a_job_that_the_controller_forgot_keeps_its_last_word(slurm, job, cluster, monkeypatch):
    monkeypatch.setattr("assay.schedulers.words.POLL_S", 0.0)
    job_id = slurm.submit(job())
    while slurm.states([job_id]) != {job_id: "COMPLETED"}:
        pass
    (cluster / "jobs.json").write_text("[]")
    assert slurm.states([job_id]) == {job_id: "COMPLETED"}
    assert calls(cluster, "sacct") == 0


def test_silence_is_an_error_that_has_the_last_words(slurm, job, cluster, monkeypatch):
    job_id = slurm.submit(job())
    path = slurm.words.path
    path.write_text(json.dumps({**json.loads(path.read_text()), "asked": 0.0}))
    (cluster / "down").write_text("slurm_load_jobs error: Unable to contact slurm controller (connect failure)")
    with pytest.raises(SilentError, match="slurmctld does not answer; wait for it") as silence:
        slurm.states([job_id])
    assert silence.value.known == {job_id: "PENDING"}
