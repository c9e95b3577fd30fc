"""Every arm x seed of a study file, validated and identified; open it for what `plan`, `submit` and `report` run on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from assay.config.fields import Problem, before, leaves
from assay.config.identity import deciding, digest
from assay.config.load import assign, build, read
from assay.errors import ConfigError
from assay.matrix.expand import Expanded, expand, nearest
from assay.matrix.refusals import key_problems, place_problems, study_problems
from assay.matrix.study import Overrides, StudyConfig, params_path, read_mended, read_study
from assay.studies import study_config

Arm = TypeVar("Arm")


@dataclass(frozen=True, kw_only=True)
class ResolvedArm:
    """An arm that is valid with every seed."""

    name: str
    reason: str
    params: Any
    """The study's typed `Params` of the first seed."""
    overrides: Overrides
    """Dotted keys and values on top of params.yaml, without the seed: the study's, those it extends, its own."""
    differences: dict[str, Any]
    """Dotted leaf to its value in this arm, null if it has none, for leaves that differ from the baseline's."""
    identities: dict[int, str]
    """Seed to the digest of every parameter that can change a result; code and data add to it when it runs."""
    runs: str
    """What the first seed runs, in one line."""
    same_as: str | None
    """An earlier arm that runs exactly the same."""


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A study file with its arms: those asked for, the matrix's first."""

    config: StudyConfig
    arms: dict[str, ResolvedArm]
    compared: dict[str, dict[str, Any]]
    """The baseline and every arm that a hypothesis names, asked for or not, to the dotted parameters that decide."""

    @property
    def identities(self) -> set[str]:
        """One for each run that differs from every other."""
        return {identity for arm in self.arms.values() for identity in arm.identities.values()}


def outline(path: Path, only: str | None = None) -> tuple[StudyConfig, dict[str, Expanded]]:
    """A study and its arms by name, matrix first; what they set is not looked at. For what has been submitted.

    Raises:
        ConfigError: the file cannot be expanded into arms, or none matches `only`.
    """
    study = read_study(path)
    expansion = expand(study)
    if expansion.problems:
        raise _refusal(path, expansion.problems)
    return study, _only(path, expansion.arms, only)


def resolve(path: Path, only: str | None = None) -> Resolved:
    """Resolve and validate every arm x seed of a study file; keep the arms whose names match the pattern `only`.

    Raises:
        ConfigError: one line for everything that is wrong with the file and its arms, or no arm matches.
    """
    study, unknown_keys = read_mended(path)
    expansion = expand(study)
    problems = [*place_problems(path, study), *expansion.problems, *study_problems(path, study, expansion.names)]
    if any(each.key in ("study", "pipeline") for each in problems):
        raise _refusal(path, [*unknown_keys, *problems])
    data = read(params_path(path, study))
    problems += key_problems(study, data)
    unknown = {problem.key.partition(": ")[2] for problem in problems}
    module = study_config(study.study)
    params, wrong = _build(module.Params, data, expansion.arms, study.seeds[0], unknown)
    if unknown_keys or problems or wrong:
        raise _refusal(path, [*unknown_keys, *problems, *wrong])
    arms = _describe(study, expansion.arms, params, module)
    equal = list(_equals_of_the_baseline(arms, study.baseline))
    if equal:
        raise _refusal(path, equal)
    return Resolved(config=study, arms=_only(path, arms, only), compared=_compared(study, params, module))


def _refusal(path: Path, problems: Sequence[object]) -> ConfigError:
    return ConfigError("\n".join(f"{path}: {problem}" for problem in problems))


def _build(
    params: type, data: Mapping[str, Any], arms: Mapping[str, Expanded], seed: int, unknown: set[str]
) -> tuple[dict[str, Any], list[str]]:
    """Typed parameters by arm, and one line for every wrong value; keys in `unknown` are left out."""
    built: dict[str, Any] = {}
    lines: dict[str, list[str]] = {}
    for name, arm in arms.items():
        changes = {key: value for key, value in arm.overrides.items() if key not in unknown}
        try:
            built[name] = build(params, assign(data, {**changes, "seed": seed}))
        except ConfigError as error:
            for line in str(error).splitlines():
                lines.setdefault(line, []).append(name)
    everywhere = len(arms) if len(arms) > 1 else 0
    return built, [
        f"{place}: {line}"
        for line, names in lines.items()
        for place in (["every arm"] if len(names) == everywhere else [f"arms.{name}" for name in names])
    ]


def _describe(study: StudyConfig, arms: Mapping[str, Expanded], params: Any, module: Any) -> dict[str, ResolvedArm]:
    """What each arm differs in from the baseline, and which earlier one it repeats."""
    keys = _stage_keys(module)
    baseline = _leaves(params[study.baseline])
    twins: dict[tuple[str, ...], str] = {}
    found: dict[str, ResolvedArm] = {}
    for name, arm in arms.items():
        own = _leaves(params[name])
        identities = _identities(deciding(params[name], keys), study.seeds)
        twin = twins.setdefault(tuple(identities.values()), name)
        found[name] = ResolvedArm(
            name=name,
            reason=arm.reason,
            params=params[name],
            overrides=arm.overrides,
            differences={key: own.get(key) for key in {**own, **baseline} if own.get(key) != baseline.get(key)},
            identities=identities,
            runs=module.describe(params[name]),
            same_as=twin if twin != name else None,
        )
    return found


def _compared(study: StudyConfig, params: Mapping[str, Any], module: Any) -> dict[str, dict[str, Any]]:
    """Without the seed, and without leaves that are what runs did before there were they."""
    named = {study.baseline, *(name for each in study.hypotheses.values() for name in (each.arm, each.versus))}
    marks = {key: before(hint) for key, hint, _ in leaves(params[study.baseline])}
    new = {key: mark.value for key, mark in marks.items() if mark}
    found = {name: deciding(params[name], _stage_keys(module)) for name in params if name in named}
    return {
        name: {key: value for key, value in leaf.items() if key != "seed" and (key not in new or value != new[key])}
        for name, leaf in found.items()
    }


def _stage_keys(module: Any) -> list[str]:
    """The sections and keys that the stages of a pipeline read."""
    return sorted({key for stage in module.STAGES.values() for key in stage} - {"predict"})


def _identities(leaves_that_decide: Mapping[str, Any], seeds: Sequence[int]) -> dict[int, str]:
    """Seed to digest; one digest for all where no stage reads the seed."""
    if "seed" not in leaves_that_decide:
        return dict.fromkeys(seeds, digest(leaves_that_decide))
    return {seed: digest({**leaves_that_decide, "seed": seed}) for seed in seeds}


def _leaves(params: Any) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, _, value in leaves(params)}


def _equals_of_the_baseline(arms: Mapping[str, ResolvedArm], baseline: str) -> Iterator[Problem]:
    for name, arm in arms.items():
        if name != baseline and arm.identities == arms[baseline].identities:
            given = ", ".join(arm.differences) or "no difference"
            why = f"the parameters of the baseline {baseline}, as far as they can change a result ({given})"
            yield Problem(f"arms.{name}", why, "an arm that differs", "change something else, or drop it")


def _only(path: Path, arms: Mapping[str, Arm], pattern: str | None) -> dict[str, Arm]:
    if pattern is None:
        return dict(arms)
    kept = {name: arm for name, arm in arms.items() if fnmatchcase(name, pattern)}
    if not kept:
        allowed, remedy = nearest(pattern, arms)
        raise _refusal(path, [Problem("--only", pattern, f"a pattern that matches {allowed}", remedy)])
    return kept
