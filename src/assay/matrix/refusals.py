"""What a study file may not say: names that there are not, margins of the wrong sign, keys that nothing reads.

Open it to change a refusal; all of a file's are listed at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from assay.config.fields import Problem
from assay.config.load import read
from assay.matrix.expand import LETTERS, is_name, nearest
from assay.matrix.study import HypothesisConfig, MetricConfig, StudyConfig, overrides_by_place, params_path
from assay.studies import study_names


def place_problems(path: Path, study: StudyConfig) -> Iterator[Problem]:
    """What keeps the parameters from being read at all: no such study, no such pipeline."""
    if study.study not in study_names():
        yield Problem("study", study.study, *nearest(study.study, study_names()))
    absent = [file for file in (path.parent / study.pipeline, params_path(path, study)) if not file.is_file()]
    if absent:
        allowed = "a dvc.yaml, relative to the study file, with params.yaml beside it"
        yield Problem("pipeline", study.pipeline, allowed, f"there is no {absent[0]}; write it, or correct the path")


def study_problems(path: Path, study: StudyConfig, arms: Sequence[str]) -> Iterator[Problem]:
    """Contradictions of the study file itself; `arms` are the names of all arms."""
    if not is_name(study.name):
        yield Problem("name", repr(study.name), LETTERS)
    none = not arms and not study.matrix.axes
    yield from _no_arms() if none else _baseline_problems(study, arms)
    if len(set(study.seeds)) < len(study.seeds):
        yield Problem("seeds", str(list(study.seeds)), "different numbers", "drop repeats")
    if study.machine is not None and not (path.parent / study.machine).is_file():
        yield Problem("machine", study.machine, "a machine file, relative to the study file, or null")
    for section in ("hypotheses", "metrics"):
        for name in getattr(study, section):
            if not (isinstance(name, str) and name.strip()):  # YAML has numbers, dates and null for names, too
                yield Problem(f"{section}.{name}", f"{name!r} as a name", "text", "put it in quotes")
    for name, hypothesis in () if none else study.hypotheses.items():
        for problem in _hypothesis_problems(hypothesis, study, arms):
            yield Problem(f"hypotheses.{name}.{problem.key}", problem.given, problem.allowed, problem.remedy)
    yield from _metric_problems(path, study)


def _no_arms() -> Iterator[Problem]:
    """In place of every name that is then unknown."""
    yield Problem("arms", "none", "one or more arms", "add arms or matrix")


def _baseline_problems(study: StudyConfig, arms: Sequence[str]) -> Iterator[Problem]:
    if study.baseline not in arms:
        yield Problem("baseline", study.baseline, *nearest(study.baseline, arms))


def _hypothesis_problems(hypothesis: HypothesisConfig, study: StudyConfig, arms: Sequence[str]) -> Iterator[Problem]:
    if hypothesis.arm not in arms:
        yield Problem("arm", hypothesis.arm, *nearest(hypothesis.arm, arms))
    if isinstance(hypothesis.versus, str) and hypothesis.versus not in arms:
        allowed, remedy = nearest(hypothesis.versus, arms)
        yield Problem("versus", hypothesis.versus, f"a number, or {allowed}", remedy)
    if hypothesis.versus == hypothesis.arm:
        yield Problem("versus", str(hypothesis.versus), "another arm than `arm`, or a number")
    if hypothesis.metric not in study.metrics:
        allowed, remedy = nearest(hypothesis.metric, study.metrics)
        yield Problem("metric", hypothesis.metric, allowed, remedy or "declare it under metrics")
    yield from _margin_problems(hypothesis, study.metrics)


def _margin_problems(hypothesis: HypothesisConfig, metrics: Mapping[str, MetricConfig]) -> Iterator[Problem]:
    margin, given = hypothesis.margin, f"{hypothesis.margin:g}"
    relative, superior = hypothesis.margin_is == "relative", hypothesis.test == "superior"
    if relative and not isinstance(hypothesis.versus, str) and hypothesis.versus <= 0:
        words = f"absolute with versus {hypothesis.versus:g}"
        yield Problem("margin_is", "relative", words, "a margin is a share of something positive")
    if superior and margin < 0:
        yield Problem("margin", given, ">= 0 with test superior", "how much better it has to be; 0 for any difference")
    elif not superior and margin <= 0:
        yield Problem("margin", given, f"> 0 with test {hypothesis.test}", "how large a difference counts as none")
    elif relative and margin >= 1 and not (superior and _direction(hypothesis, metrics) == "max"):
        yield Problem("margin", given, "< 1 with margin_is relative", "5 % is 0.05")


def _direction(hypothesis: HypothesisConfig, metrics: Mapping[str, MetricConfig]) -> str:
    return metrics[hypothesis.metric].direction if hypothesis.metric in metrics else "max"


def _metric_problems(path: Path, study: StudyConfig) -> Iterator[Problem]:
    """Metrics that no file of the pipeline can hold."""
    pipeline = path.parent / study.pipeline
    folders = metric_folders(read(pipeline)) if pipeline.is_file() else None
    named = {f"metrics.{name}": name for name in study.metrics}
    controls = {kind: getattr(study.controls, kind) for kind in ("null", "constant", "classical")}
    named |= {f"controls.{kind}": name for kind, name in controls.items() if name is not None}
    for key, name in named.items():
        folder = str(PurePosixPath(name).parent)
        if folders is not None and folder not in folders:
            allowed = ", ".join(f"{each}/KEY" for each in folders) or "none, as it names no metrics file"
            yield Problem(key, name, f"metrics of {study.pipeline}: {allowed}")


def metric_folders(pipeline: Mapping[str, Any]) -> list[str]:
    """Folders below results of the metrics files that a dvc.yaml names; `.` for results itself."""
    stages = pipeline["stages"].values() if "stages" in pipeline else ()
    entries = [entry for part in (pipeline, *stages) if "metrics" in part for entry in part["metrics"] or ()]
    paths = [PurePosixPath(next(iter(each)) if isinstance(each, dict) else each) for each in entries]
    return sorted({str(each.parent.relative_to("results")) for each in paths if each.parts[0] == "results"})


def key_problems(study: StudyConfig, data: Mapping[str, Any]) -> Iterator[Problem]:
    """Overrides of keys that the parameters do not have, and of the seed, by the place that gives them."""
    known = set(_keys(data))
    for place, overrides in overrides_by_place(study).items():
        for key in overrides:
            if key == "seed":
                yield Problem(f"{place}: seed", str(overrides[key]), "no seed", "list it under seeds")
            elif key not in known:
                yield Problem(f"{place}: {key}", "an unknown key", *_instead(key, known))


def _instead(key: str, known: set[str]) -> tuple[str, str]:
    """What the innermost section that exists holds, and the key that was probably meant, in whichever section."""
    allowed, remedy = nearest(key, _siblings(key, known))
    namesakes = sorted(each for each in known if each.endswith("." + key.rpartition(".")[2]))
    if namesakes:
        remedy = f"did you mean {namesakes[0]}?"
    return allowed, remedy or nearest(key, sorted(known))[1] or f"remove {key}"


def _keys(data: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in data.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def _siblings(key: str, known: set[str]) -> list[str]:
    """Keys of the innermost section that exists."""
    section = key
    while "." in section:
        section = section.rpartition(".")[0]
        if section in known:
            return sorted(each for each in known if each.rpartition(".")[0] == section)
    return sorted(each for each in known if "." not in each)
