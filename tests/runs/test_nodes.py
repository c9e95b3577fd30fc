"""Several nodes for one stage: who is asked for what, and how a node that fails, or does not answer, shows."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runs.begun_runs import attempt

from assay.errors import ConfigError
from assay.machine import MachineConfig
from assay.matrix.jobs import Planned, job_of
from assay.matrix.submission import Submission
from assay.runs import nodes
from assay.runs.nodes import NODES, NODES_AT, launch, meeting_place, say_the_end
from assay.runs.ranks import PROCESSES
from assay.runs.store import RunFolder
from assay.schedulers.config import ResourcesConfig

TOLD = 'import os, sys, time; rank = int(os.environ["RANK"])\n'


class Job:
    """Two nodes of a job, which on this computer differ by name only; the second one waits to be asked."""

    def __init__(self, folder: Path) -> None:
        self.run, self.asked = folder / "run", 0
        RunFolder(self.run).begin(attempt())
        self.environment = {**os.environ, "SLURM_JOB_ID": "7", "OMP_NUM_THREADS": "1", "ASSAY_TOLD": "too"}
        for name in ("ASSAY_PROGRESS", "ASSAY_CHECKPOINTS", "SLURM_JOB_END_TIME", "RANK"):
            self.environment.pop(name, None)
        command = [sys.executable, "-m", "assay.runs.nodes", str(self.run)]
        node = {**self.environment, "SLURMD_NODENAME": "n2"}
        self.helper = subprocess.Popen(command, env=node, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def start(self, program: str, processes: int = 4) -> "subprocess.Popen[str]":
        """Run a few lines of Python in every rank, as the first node does."""
        self.asked += 1
        place = meeting_place(self.run, self.environment)
        told = {PROCESSES: str(processes), NODES: "2", NODES_AT: str(place), "SLURMD_NODENAME": "n1"}
        start = "import os, sys; from assay.runs.nodes import launch; sys.exit(launch(sys.argv[1:], None, os.environ))"
        command = [sys.executable, "-c", start, sys.executable, "-S", "-E", "-c", TOLD + program]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, env={**self.environment, **told}, text=True, **pipes)

    def give(self, program: str) -> tuple[int, str]:
        """The same to its end: the code, and what was said on the first node."""
        started = self.start(program)
        said, _ = started.communicate(timeout=120)
        end = time.monotonic() + 60
        while len(list(self.run.glob("nodes/*/*.ended"))) < self.asked and time.monotonic() < end:
            time.sleep(0.05)
        return started.returncode, said

    def end(self) -> tuple[int, str]:
        """As the first node ends its job."""
        say_the_end(self.run, self.environment)
        said, _ = self.helper.communicate(timeout=30)
        return self.helper.returncode, said


@pytest.fixture
def job(tmp_path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    made.helper.kill()
    made.helper.communicate(timeout=30)


def test_every_node_has_its_part_of_the_ranks_and_a_supervisor_and_takes_part_again(job):
    program = 'print("is", rank, *(os.environ[n] for n in ("WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "ASSAY_TOLD")))'
    code, said = job.give(program)
    assert code == 0
    assert job.give(program)[0] == 0
    ended, elsewhere = job.end()
    assert ended == 0
    first = [line.split() for line in said.splitlines()]
    log = (job.run / "nodes/n2/logs/0001.log").read_text()
    second = [line.split()[1:] for line in log.splitlines() if " is " in line]
    assert [(*line[1:4], line[5]) for line in sorted(first + second)] == [
        ("0", "4", "0", "too"),
        ("1", "4", "1", "too"),
        ("2", "4", "0", "too"),
        ("3", "4", "1", "too"),
    ]
    assert len({line[4] for line in first + second}) == 1
    attempts = sorted((job.run / "nodes/n2/attempts").iterdir())
    assert [json.loads(path.read_text())["code"] for path in attempts] == [0, 0]
    assert elsewhere.count(" is 2 4 ") == 2


def test_a_rank_that_fails_on_another_node_ends_all_and_decides_the_code(job):
    code, said = job.give("sys.exit(5) if rank == 3 else time.sleep(600)")
    assert code == 5
    assert "assay: a rank on n2 ended with 5" in said
    assert "assay: rank 3 of 4 on n2 ended with 5" in job.end()[1]


@pytest.mark.torture
def test_the_other_nodes_end_with_the_first(job):
    begun = time.monotonic()
    assert job.give("sys.exit(5) if rank == 0 else time.sleep(600)")[0] == 5
    assert job.end()[0] == 0
    assert time.monotonic() - begun < 40


@pytest.mark.torture
def test_who_was_killed_and_starts_again_is_heard_again(job):
    first = job.start("print('begun', flush=True); time.sleep(600)")
    first.stdout.readline()
    log = job.run / "nodes/n2/logs/0001.log"
    while not (log.exists() and log.read_text().count("begun") == 2):
        time.sleep(0.05)
    first.kill()
    first.communicate(timeout=30)
    assert job.give("sys.exit(0)")[0] == 0


def test_a_node_that_does_not_answer_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "READY_WITHIN_S", 0.5)
    told = {PROCESSES: "2", NODES: "2", NODES_AT: str(tmp_path)}
    with pytest.raises(ConfigError, match=r"got 0 of 1 other nodes within 0\.5 s; allowed: all"):
        launch(["true"], None, told)


def test_ranks_that_cannot_be_shared_out_evenly_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ASSAY_PROCESSES: got 3 for 2 nodes; allowed: a multiple"):
        launch(["true"], None, {PROCESSES: "3", NODES: "2", NODES_AT: str(tmp_path)})


def test_a_signal_ends_a_helper_too(job):
    while not any(job.run.glob("nodes/*/n2.ready")):
        time.sleep(0.05)
    job.helper.send_signal(signal.SIGTERM)
    assert job.helper.wait(timeout=30) == 0


def test_a_helper_outside_a_job_is_refused(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "LSB"))}
    command = [sys.executable, "-m", "assay.runs.nodes", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "got no job; allowed: within a job of several nodes" in done.stderr


@pytest.mark.parametrize(("asked", "helps"), [({"nodes": 2, "processes": 2}, True), ({"nodes": 2}, False), ({}, False)])
def test_a_job_of_several_nodes_that_train_together_has_helpers(tmp_path, asked, helps):
    machine = MachineConfig(scheduler="slurm", resources=ResourcesConfig(**asked))
    told = {"experiment": "toy-slow-s0", "repository": str(tmp_path), "commit": "c", "pipeline": ".", "overrides": []}
    run = tmp_path / "runs/toy/slow/0"
    made = job_of(Planned(run=run, submission=Submission(**told, machine="/machine.yaml")), machine)
    expected = ("-m", "assay.runs.nodes", str(run), "/machine.yaml") if helps else ()
    assert made.beside[1:] == expected
