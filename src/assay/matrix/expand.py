"""From the arms and the matrix of a study to one set of overrides per arm; open it for `extends` and for names."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from string import Formatter
from typing import Any

from assay.config.fields import Problem
from assay.matrix.study import ArmConfig, MatrixConfig, Overrides, StudyConfig

NAME = re.compile(r"\w[\w+=-]*(\.[\w+=-]+)*", re.ASCII)
LETTERS = "A-Z, a-z, digits and _ + = - . inside"
SHOWN = 12  # names in a refusal
SYNTAX = "{}[]:!"  # what a template says of a field beside its name


@dataclass(frozen=True)
class Expanded:
    """One arm: its reason and all its overrides, those of the study first."""

    reason: str
    overrides: Overrides


@dataclass(frozen=True)
class Expansion:
    """The arms of a study, those of the matrix first, and what is wrong with the others."""

    arms: dict[str, Expanded] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    """Of all arms, those that could not be expanded too."""
    problems: list[Problem] = field(default_factory=list)


def expand(study: StudyConfig) -> Expansion:
    """Every arm with the overrides of `base`, of the arms it extends and its own, later ones winning."""
    found = Expansion()
    arms = _product(study.matrix, found.problems)
    for name in study.arms:
        if name in arms:
            found.problems.append(Problem(f"arms.{name}", "a name that the matrix makes too", "one arm for each name"))
    arms |= study.arms
    found.names.extend(arms)
    found.problems.extend(_bad_names(arms))
    for name in arms:
        chain = _chain(name, arms, found.problems)
        if chain:
            overrides = study.base
            for arm in reversed(chain):
                overrides = merged(overrides, arm.set)
            found.arms[name] = Expanded(arms[name].reason, overrides)
    return found


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> Overrides:
    """Both, where `second` replaces a key of `first` with all that lies below it."""
    if not second:
        return dict(first)
    kept = {key: value for key, value in first.items() if not any(_is_within(key, other) for other in second)}
    return kept | dict(second)


def _is_within(key: str, other: str) -> bool:
    return key == other or key.startswith(f"{other}.")


def _chain(name: str, arms: Mapping[str, ArmConfig], problems: list[Problem]) -> list[ArmConfig]:
    """The arm, the one it extends, and so on; empty if that leads nowhere. A cycle is reported once."""
    visited = [name]
    while (parent := arms[visited[-1]].extends) is not None:
        if parent not in arms:
            if len(visited) == 1:
                problems.append(Problem(f"arms.{name}.extends", parent, *nearest(parent, arms)))
            return []
        if parent in visited:
            cycle = visited[visited.index(parent) :]
            if name == min(cycle):
                given = " -> ".join([*cycle, parent])
                problems.append(Problem(f"arms.{name}.extends", given, "no cycle", "take one extends out"))
            return []
        visited.append(parent)
    return [arms[each] for each in visited]


def nearest(given: object, names: Iterable[str]) -> tuple[str, str]:
    """What is allowed instead of a name that there is not, and what was probably meant."""
    known = [str(name) for name in names]
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    match = difflib.get_close_matches(str(given), known, n=1, cutoff=0.5)
    allowed = f"one of {', '.join(known[:SHOWN])}{more}" if known else "none, as there is none"
    return allowed, f"did you mean {match[0]}?" if match else ""


def _bad_names(names: Iterable[object]) -> Iterator[Problem]:
    for name in names:
        if not is_name(name):
            yield Problem(f"arms.{name}", repr(name), f"{LETTERS}, in quotes if all digits")


def is_name(name: object) -> bool:
    """Whether a name may be that of a folder and of an experiment, which is a git reference."""
    return isinstance(name, str) and bool(NAME.fullmatch(name)) and not name.endswith(".lock")


def _product(matrix: MatrixConfig, problems: list[Problem]) -> dict[str, ArmConfig]:
    """The arms of the matrix by name."""
    found = list(_matrix_problems(matrix))
    problems += found
    if found or not matrix.axes:
        return {}
    arms: dict[str, ArmConfig] = {}
    for values in product(*matrix.axes.values()):
        combination = dict(zip(matrix.axes, values, strict=True))
        if any(excludes(pattern, combination) for pattern in matrix.exclude):
            continue
        name = filled(matrix.name, combination)
        if name in arms:
            problems.append(Problem("matrix.name", matrix.name, "a name for each", f"it makes {name} more than once"))
            return {}
        overrides = [matrix.axes[axis][value] for axis, value in combination.items()]
        arms[name] = ArmConfig(
            reason=filled(matrix.reason, combination),
            set={key: value for part in overrides for key, value in part.items()},
        )
    return arms


def filled(template: str, combination: Mapping[str, str]) -> str:
    """With the names of values for those of axes, which may look like a field's attribute or place."""
    parts = Formatter().parse(template)
    return "".join(text + ("" if axis is None else combination[axis]) for text, axis, _, _ in parts)


def excludes(pattern: Mapping[str, str], combination: Mapping[str, str]) -> bool:
    """Whether a combination has every value of the pattern."""
    return all(combination[axis] == value for axis, value in pattern.items())


def _matrix_problems(matrix: MatrixConfig) -> Iterator[Problem]:
    if not matrix.axes:
        if matrix != MatrixConfig():
            yield Problem("matrix.axes", "none", "one or more axes", "write matrix: null for no matrix")
        return
    unnamed = [str(axis) for axis in matrix.axes if not isinstance(axis, str) or set(axis) & set(SYNTAX)]
    if unnamed:
        remedy = "rename it, or put a number in quotes"
        yield Problem("matrix.axes", ", ".join(unnamed), f"text without {SYNTAX} as the name of an axis", remedy)
        return
    odd = [f"{axis}.{value}" for axis, values in matrix.axes.items() for value in values if not isinstance(value, str)]
    if odd:
        yield Problem("matrix.axes", ", ".join(odd), "text as the name of a value", "put the name in quotes")
        return
    for axis, values in matrix.axes.items():
        if not values:
            yield Problem(f"matrix.axes.{axis}", "no values", "one or more")
    for key in ("name", "reason"):
        yield from _template_problems(f"matrix.{key}", getattr(matrix, key), list(matrix.axes))
    yield from _overlaps(matrix)
    yield from _exclude_problems(matrix)


def _template_problems(key: str, template: str, axes: Sequence[str]) -> Iterator[Problem]:
    wanted = ", ".join(f"{{{axis}}}" for axis in axes)
    if not template:
        yield Problem(key, "no text", f"text with {wanted}")
    try:
        parts = list(Formatter().parse(template))
    except ValueError:
        yield Problem(key, template, f"text with {wanted}", "write {{ and }} for braces")
        return
    for _, name, form, conversion in parts:
        if name is not None and (name not in axes or form or conversion):
            yield Problem(key, template, f"text with {wanted}", f"there is no axis {name!r}" if not form else "")


def _overlaps(matrix: MatrixConfig) -> Iterator[Problem]:
    """Two axes that set the same key: which one wins would depend on their order."""
    keys = {axis: {key for part in values.values() for key in part} for axis, values in matrix.axes.items()}
    seen: dict[str, str] = {}
    for axis, own in keys.items():
        for key in sorted(own):
            other = next((seen[name] for name in seen if _is_within(key, name) or _is_within(name, key)), None)
            if other is not None:
                yield Problem(f"matrix.axes.{axis}", key, f"keys that axis {other} leaves alone", "set it on one axis")
        seen |= dict.fromkeys(own, axis)


def _exclude_problems(matrix: MatrixConfig) -> Iterator[Problem]:
    left = [dict(zip(matrix.axes, values, strict=True)) for values in product(*matrix.axes.values())]
    for place, pattern in enumerate(matrix.exclude):
        key, given = f"matrix.exclude.{place}", ", ".join(f"{axis}: {value}" for axis, value in pattern.items())
        unknown = [axis for axis in pattern if axis not in matrix.axes]
        if unknown:
            yield Problem(f"{key}.{unknown[0]}", "an unknown axis", *nearest(unknown[0], matrix.axes))
            continue
        rest = [each for each in left if not excludes(pattern, each)]
        if not pattern or len(rest) == len(left):
            yield Problem(key, given or "nothing", "a combination that is there", "it leaves nothing out; drop it")
        left = rest
    if not left:
        yield Problem("matrix.exclude", "every combination", "some that stay")
