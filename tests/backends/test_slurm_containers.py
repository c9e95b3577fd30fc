"""Real Slurm with real containers: `sbatch run.slurm` in a SIF, and one study on every kind of machine."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from tests.backends.images import IMAGE, contents
from tests.backends.place import wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.docker, pytest.mark.apptainer]

STUDY = """\
name: same
question: Does it matter where it runs?
study: asl
pipeline: dvc.yaml
baseline: tiny
seeds: [0]
arms:
  tiny: {reason: Very small.}
metrics:
  validate/cbf_mae: {direction: min}
"""
RUN = "runs/same/tiny/0"
SLURM = {"name": "test", "scheduler": "slurm", "resources": {"cpus": 2}, "slurm": {"partition": "main"}, "grace": 10.0}


@pytest.fixture
def cluster(project, slurm, monkeypatch):
    """Commands of the project reach the cluster as well."""
    for name, value in slurm.environment.items():
        monkeypatch.setitem(project.environment, name, value)
    return slurm


def record(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


def submit(project, folder: Path, machine: dict) -> dict[str, bytes]:
    """What the study leaves when it is submitted to a machine from a clone."""
    (folder / "study.yaml").write_text(STUDY)
    (folder / "machine.yaml").write_text(json.dumps(machine))
    project.give("git add study.yaml machine.yaml && git commit --quiet --all --message tiny", str(folder))
    assert "1 of 1 runs submitted" in project.give("assay submit study.yaml --machine machine.yaml", str(folder))
    log = folder / RUN / "job.log"
    wait_until(lambda: log.is_file() and "handed back" in log.read_text())
    return contents(folder / RUN / "results") | {"metrics": (folder / RUN / "metrics.json").read_bytes()}


def test_a_study_gives_the_same_bits_on_this_computer_and_by_slurm_in_either_container(project, clone, sif, cluster):
    here = submit(project, clone("here"), {"name": "here", "scheduler": "local"})
    assert len(here) > 3
    for kind, image in (("docker", IMAGE), ("apptainer", str(sif))):
        folder = clone(kind)
        there = submit(project, folder, {**SLURM, "container": {"kind": kind, "image": image}})
        assert [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)] == []
        assert record(folder / RUN)["image"] == project.digest
        assert json.loads((folder / RUN / "attempts/0001.json").read_text())["job"]["node"] in ("n1", "n2")
        assert "asl" in project.give("dvc exp show --csv", str(folder))


def test_sbatch_run_slurm_takes_the_sif_beside_it_and_ends_as_an_experiment(project, clone, sif, cluster):
    folder = clone("one")
    os.symlink(sif, folder / "assay.sif")
    job = project.give("sbatch --parsable run.slurm", str(folder)).strip()
    wait_until(lambda: cluster.ask("squeue", "--noheader", "--jobs", job) == "")
    log = (folder / f"slurm-{job}.log").read_text()
    words = cluster.ask("squeue", "--noheader", "--states=all", "--array", "--jobs", job, "--format=%T")
    assert words.count("COMPLETED") == 1, log
    rows = {
        row["Experiment"]: row for row in csv.DictReader(io.StringIO(project.give("dvc exp show --csv", str(folder))))
    }
    assert float(rows[f"asl-slurm-{job}"]["cbf_mae"]) > 0, log
    assert record(folder / "runs/asl/slurm/0")["image"] == project.digest
