"""A study file: the question, the arms and the seeds; open it to add a key to study.yaml."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

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
class HypothesisConfig:
    """A claim that is written down before the runs: an arm's metric over another's, seed by seed."""

    claim: str
    """The claim in words."""
    kind: Literal["equivalence", "superiority"]
    """equivalence: the ratio of the metrics is within 1 +- margin; superiority: it is below 1 - margin."""
    metric: str
    """Name in the metrics of the pipeline; lower is better."""
    arm: str
    """The arm that the claim is about."""
    against: str
    """The arm that it is compared with."""
    margin: Annotated[float, Bounds(gt=0, lt=1)]
    """How large a relative difference matters."""


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
    hypotheses: dict[str, HypothesisConfig]
    """Registered claims by name; empty for none."""


def read_study(path: Path) -> StudyConfig:
    """Read a study file.

    Raises:
        ConfigError: a key or value is wrong, the baseline or a hypothesis names no arm, or there is no such study.
    """
    study = load(StudyConfig, path)
    if study.baseline not in study.arms:
        raise ConfigError(f"{path}: baseline: got {study.baseline}; allowed: one of {', '.join(study.arms)}")
    if study.study not in study_names():
        raise ConfigError(f"{path}: study: got {study.study}; allowed: one of {', '.join(study_names())}")
    if len(set(study.seeds)) < len(study.seeds):
        raise ConfigError(f"{path}: seeds: got {list(study.seeds)}; allowed: different numbers; drop repeats")
    for name, hypothesis in study.hypotheses.items():
        for key in ("arm", "against"):
            if getattr(hypothesis, key) not in study.arms:
                given = getattr(hypothesis, key)
                raise ConfigError(f"{path}: hypotheses.{name}.{key}: got {given}; allowed: {', '.join(study.arms)}")
    for place, keys in {
        "base": study.base,
        **{f"arms.{name}.set": arm.set for name, arm in study.arms.items()},
    }.items():
        if "seed" in keys:
            raise ConfigError(f"{path}: {place}.seed: got {keys['seed']}; allowed: no seed; list it under seeds")
    return study
