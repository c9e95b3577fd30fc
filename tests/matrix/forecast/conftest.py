"""A small study, runs of it that never were, and its forecast."""

import shutil
from pathlib import Path

import pytest
from tests.matrix.records import ROOT, write_run

from assay.machine import MachineConfig
from assay.matrix.arms import resolve
from assay.matrix.forecast.forecast import StudyForecast, forecast

HEAD = """\
name: small
question: What does it take?
study: asl
pipeline: dvc.yaml
baseline: base
seeds: [0, 1, 2]
base: {train.steps: 100}
"""
ARMS = """\
arms:
  base: {reason: the reference}
  longer: {reason: ten times the steps, set: {train.steps: 1000}}
  rate: {reason: another rate, set: {train.optimizer.lr: 0.5}}
"""


@pytest.fixture
def study(tmp_path):
    """A function that writes a study file; its runs are below runs/small."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)

    def write(text: str = HEAD + ARMS) -> Path:
        path = tmp_path / "study.yaml"
        path.write_text(text)
        return path

    return write


def look(path: Path, **machine: object) -> StudyForecast:
    return forecast(path, resolve(path), MachineConfig(**machine))


def runs(
    path: Path, arm: str, changes: dict[str, object], noises=(0.05, -0.02, 0.0), study="small", **more: object
) -> None:
    for seed, noise in enumerate(noises):
        write_run(path.parent / "runs" / study / arm / str(seed), {"train.steps": 100, **changes}, noise, **more)
