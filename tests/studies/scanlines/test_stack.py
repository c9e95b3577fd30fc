"""A sweep of optimisers whose runs are trained in one pass, interrupted and gone on with, then submitted."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from tests.studies.scanlines.conftest import TINY

pytestmark = pytest.mark.pipeline

WHERE = "studies/scanlines"
STEPS = 400
STUDY = """\
name: sweep
question: Which rate?
study: scanlines
pipeline: dvc.yaml
baseline: slow
seeds: [0]
arms:
  slow: {reason: the reference}
  fast: {reason: a higher rate, set: {train.optimizer.lr: 0.01}}
metrics:
  validate/balanced_accuracy: {direction: max}
base:
"""


@pytest.fixture
def make_sweep(make_project):
    """Copies of the project, each with the same study at tiny size, and a cache of its own."""

    def make():
        project = make_project()
        values = dict(override.split("=", 1) for override in TINY)
        values |= {"train.steps": STEPS, "train.validate_every": STEPS, "train.checkpoint_every": 20}
        project.write(f"{WHERE}/sweep.yaml", STUDY + "".join(f"  {key}: {value}\n" for key, value in values.items()))
        project.commit()
        return project

    return make


def losses(project, arm: str) -> list[float]:
    path = project.folder / WHERE / "runs/sweep" / arm / "0/results/train/log/live/plots/metrics/train/loss.tsv"
    return [float(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]


def wait_for(pattern: str, folder: Path) -> None:
    until = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert time.monotonic() < until, f"{pattern} has not come"
        time.sleep(0.05)


def test_a_sweep_is_trained_in_one_pass_and_its_runs_come_out_as_they_do_alone(make_sweep):
    project, other = make_sweep(), make_sweep()
    runs = project.folder / WHERE / "runs/sweep"
    process = project.start("exec assay submit sweep.yaml --stack", WHERE)
    wait_for("*/0/checkpoints/*/step-*[24680].safetensors", runs)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 75, said
    assert "stack: stopped while slow, fast at seed 0 were trained; the same command goes on from there" in said
    assert not (runs / "slow/0/submission.json").exists()

    listed = project.give("assay submit sweep.yaml --stack --json 2>said.txt", WHERE)
    assert [each["what"] for each in json.loads(listed)] == ["submit", "submit"]
    assert "stack: trains slow, fast at seed 0" in (project.folder / WHERE / "said.txt").read_text()
    project.give("assay status sweep.yaml --watch", WHERE)
    assert [each["attempt"] for each in json.loads((runs / "slow/0/stack.json").read_text())] == [1, 2]
    assert "stack: goes on from step" in project.give("assay logs runs/sweep/.stack/slow/0", WHERE)
    assert f"train: goes on from step {STEPS}" in project.give("assay logs runs/sweep/fast/0", WHERE)

    other.give("assay submit sweep.yaml && assay status sweep.yaml --watch", WHERE)
    for arm in ("slow", "fast"):
        together, alone = losses(project, arm), losses(other, arm)
        assert len(together) == len(alone) == STEPS // 2
        assert together[:20] == pytest.approx(alone[:20], rel=1e-3)
    assert losses(project, "slow") != pytest.approx(losses(project, "fast"), rel=0.1)
