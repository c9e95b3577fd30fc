"""A study file: the question, the arms and the seeds; open it to add a key to study.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from assay.config import Bounds, load
from assay.errors import ConfigError
from assay.studies import study_names


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """One arm: what it changes relative to `base`, and why."""

    reason: str
    """Why the arm exists, for the reader of the report."""
    set: dict[str, Any]
    """Dotted parameter keys and their values, as with dvc exp run -S; empty for the base itself."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study: a question, a baseline arm and others, over several seeds."""

    name: str
    """Short name, part of every experiment's name."""
    question: str
    """What the study asks."""
    study: str
    """The study package whose stages are run."""
    params: str
    """Parameter file that the overrides start from, relative to the study file."""
    baseline: str
    """The arm that the others are compared with."""
    seeds: Annotated[tuple[int, ...], Bounds(ge=0, items=1)]
    """Replicates of every arm."""
    base: dict[str, Any]
    """Dotted keys and values for every arm, e.g. the study's scale."""
    arms: dict[str, ArmConfig]
    """Arm name to what it changes."""


def read_study(path: Path) -> StudyConfig:
    """Read a study file.

    Raises:
        ConfigError: a key or value is wrong, the baseline is no arm, or the study package does not exist.
    """
    study = load(StudyConfig, path)
    if study.baseline not in study.arms:
        raise ConfigError(f"{path}: baseline: got {study.baseline}; allowed: one of {', '.join(study.arms)}")
    if study.study not in study_names():
        raise ConfigError(f"{path}: study: got {study.study}; allowed: one of {', '.join(study_names())}")
    if len(set(study.seeds)) < len(study.seeds):
        raise ConfigError(f"{path}: seeds: got {list(study.seeds)}; allowed: different numbers; drop repeats")
    for place, keys in {
        "base": study.base,
        **{f"arms.{name}.set": arm.set for name, arm in study.arms.items()},
    }.items():
        if "seed" in keys:
            raise ConfigError(f"{path}: {place}.seed: got {keys['seed']}; allowed: no seed; list it under seeds")
    return study
