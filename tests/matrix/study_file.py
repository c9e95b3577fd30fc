"""A study file that is valid until a test edits it."""

import shutil
from pathlib import Path

import pytest

from assay.errors import ConfigError
from assay.matrix.arms import resolve

ROOT = Path(__file__).parents[2]
TEXT = """\
name: small
question: Does it matter?
study: asl
pipeline: dvc.yaml
baseline: plain
seeds: [0, 1]
base: {train.steps: 50}
arms:
  plain: {reason: the reference}
  wide: {reason: more channels, set: {model.hidden_sizes: [32, 64]}}
  wider: {reason: even more, extends: wide, set: {train.batch_size: 4}}
matrix: null
metrics:
  validate/cbf_mae: {direction: min, unit: ml/100 g/min}
  validate/cbf_win_rate: {direction: max}
hypotheses:
  H1: {claim: c, metric: validate/cbf_mae, arm: wide, versus: plain, test: superior, margin: 0.1}
"""


def placed(folder: Path, text: str = TEXT) -> Path:
    """A study file beside the default pipeline and its parameters."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder / name)
    path = folder / "study.yaml"
    path.write_text(text)
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refusals(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]
