"""A study file: the question, arms, seeds, metrics and hypotheses, typed; open it to add a key to study.yaml.

What the keys say about each other (an arm that a hypothesis names, the sign of a margin) is checked in refusals.py.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from assay.config.fields import Bounds, entry_class, fields_of, section_class
from assay.config.load import build, read
from assay.errors import ConfigError

BASELINE = re.compile(rb"^baseline:", re.MULTILINE)
"""What every study file has, and no other YAML file of a study."""
SHOWN = 3

Overrides = dict[str, Any]
"""Dotted parameter keys and their values; a mapping as value replaces what was there."""


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """One arm: what it changes relative to `base`, and why."""

    reason: str
    """Why the arm exists, for the reader of the report."""
    extends: str | None = None
    """An arm whose overrides come first; null for none."""
    set: Overrides = field(default_factory=dict)
    """Dotted parameter keys and their values, as with dvc exp run -S; empty for the base itself."""


@dataclass(frozen=True, kw_only=True)
class MatrixConfig:
    """Arms as a product of axes, in the order of the axes."""

    reason: str = ""
    """Why these arms exist; {axis} stands for the value's name."""
    name: str = ""
    """The arms' names: text in which {axis} stands for the value's name."""
    axes: dict[str, dict[str, Overrides]] = field(default_factory=dict)
    """Axis to the names of its values to what each one sets; empty for no matrix."""
    exclude: tuple[dict[str, str], ...] = ()
    """Combinations that are left out, each by one or more of its axes."""


@dataclass(frozen=True, kw_only=True)
class MetricConfig:
    """A number that the pipeline writes and that arms are compared by."""

    direction: Literal["min", "max"]
    """Which end is better."""
    unit: str = ""
    """Unit, for tables and axes; empty for none."""
    failed: Literal["worst", "exclude"] | None = None
    """What a seed that failed counts as: worse than every other, or left out and shown; null: worst."""


@dataclass(frozen=True, kw_only=True)
class HypothesisConfig:
    """A claim that is written down before the runs."""

    claim: str
    """The claim in words."""
    metric: str
    """One of `metrics`."""
    arm: str
    """The arm that the claim is about."""
    versus: str | float
    """The arm that it is compared with, seed by seed, or a number."""
    test: Literal["superior", "equivalent", "non_inferior"]
    """superior: better by more than the margin; equivalent: within it; non_inferior: not worse by more than it."""
    margin: float
    """How large a difference matters, in the metric's unit or as a share of `versus`."""
    margin_is: Literal["relative", "absolute"] = "relative"
    """What the margin is measured in: the value of `versus`, or the metric's unit."""
    confidence: Annotated[float, Bounds(ge=0.5, lt=1)] = 0.95
    """One minus the rate of false claims that is accepted."""


@dataclass(frozen=True, kw_only=True)
class ControlsConfig:
    """Metrics of the pipeline that stand beside the first of `metrics`; null where it writes none."""

    null: str | None = None
    """The untrained model, evaluated alike."""
    constant: str | None = None
    """A constant predictor."""
    classical: str | None = None
    """The study's classical method."""


@dataclass(frozen=True, kw_only=True)
class BudgetConfig:
    """What the whole study may take."""

    hours: Annotated[float, Bounds(gt=0)] | None = None
    """GPU hours, or hours of runs where no GPU is used; null for no bound."""
    money: Annotated[float, Bounds(gt=0)] | None = None
    """In the currency of the machine's price; null for no bound."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study: a question, a baseline arm and others, over several seeds."""

    name: str
    """Short name, part of every experiment's name."""
    question: str
    """What the study asks."""
    study: str
    """The study package whose stages are run."""
    pipeline: str
    """The dvc.yaml of the stages, relative to the study file; params.yaml lies beside it."""
    baseline: str
    """The arm that the others are compared with."""
    seeds: Annotated[tuple[int, ...], Bounds(ge=0, items=1)]
    """Replicates of every arm."""
    base: Overrides = field(default_factory=dict)
    """Dotted keys and values for every arm, e.g. the study's scale."""
    arms: dict[str, ArmConfig] = field(default_factory=dict)
    """Arm name to what it changes."""
    matrix: MatrixConfig = field(default_factory=MatrixConfig)
    """More arms, as a product; null for none."""
    metrics: dict[str, MetricConfig] = field(default_factory=dict)
    """Metrics that decide, the first one foremost; `<folder below results>/<key>`, e.g. validate/rollout_nrmse."""
    hypotheses: dict[str, HypothesisConfig] = field(default_factory=dict)
    """Registered claims by name; empty for none."""
    correction: Literal["holm", "none"] = "holm"
    """For several hypotheses: Holm's step-down procedure over all of them, or none."""
    controls: ControlsConfig = field(default_factory=ControlsConfig)
    """What the first metric is shown beside."""
    machine: str | None = None
    """Machine file, relative to the study file; null: this computer as it is."""
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    """What the study may take."""


def read_study(path: Path) -> StudyConfig:
    """Read a study file; a key that may be left out has its default.

    Raises:
        ConfigError: one line for every key that is unknown, missing or has a wrong value.
    """
    study, unknown = read_mended(path)
    if unknown:
        raise ConfigError("\n".join(f"{path}: {line}" for line in unknown))
    return study


def read_mended(path: Path) -> tuple[StudyConfig, list[str]]:
    """A study file as if every unknown key were the one meant, or were not there; and a refusal of each.

    Raises:
        ConfigError: keys are missing or have a wrong value; one line for each, and for every unknown key.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: got a folder; allowed: a study file; {_instead(path)}")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a study file, e.g. study.yaml")
    study, lines = _built(read(path))
    if study is None:
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines))
    for place, overrides in overrides_by_place(study).items():
        for key in overrides:
            if not isinstance(key, str):
                raise ConfigError(f"{path}: {place}: got the key {key}; allowed: text; write a dotted key")
    return study, lines


def _instead(folder: Path) -> str:
    """Which study files there are in a folder, or one level below it."""
    for pattern in ("*.yaml", "*/*.yaml"):
        found = [str(file) for file in sorted(folder.glob(pattern)) if file.is_file() and _is_study(file)]
        if found:
            return f"give {', '.join(found[:SHOWN])}" + (" or another" if len(found) > SHOWN else "")
    return "there is none in it"


def _is_study(file: Path) -> bool:
    with suppress(OSError):
        return BASELINE.search(file.read_bytes()) is not None
    return False


def _built(data: dict[str, Any]) -> tuple[StudyConfig | None, list[str]]:
    """The study, if what is wrong is unknown keys alone; and what is wrong."""
    try:
        return build(StudyConfig, _completed(StudyConfig, data)), []
    except ConfigError as error:
        lines = [_redirected(line, data) for line in str(error).splitlines()]
    try:
        return build(StudyConfig, _completed(StudyConfig, _mended(StudyConfig, data))), lines
    except ConfigError as error:
        return None, list(dict.fromkeys([*lines, *str(error).splitlines()]))


def _redirected(line: str, data: Mapping[str, Any]) -> str:
    """A refusal that says of a parameter beside `set` where it belongs."""
    arms = data.get("arms")
    for name, arm in arms.items() if isinstance(arms, Mapping) else ():
        for key in arm if isinstance(arm, Mapping) else ():
            if "." in str(key) and line.startswith(f"arms.{name}.{key}: got an unknown key"):
                return f"{line.rpartition('; ')[0]}; put it under arms.{name}.set"
    return line


def _mended(config_class: Any, given: Any) -> Any:
    """With each unknown key as the one that was probably meant, or without it."""
    if not isinstance(given, Mapping):
        return given
    hints, found = fields_of(config_class), {}
    for key, value in _named(given).items():
        name = key if key in hints else next(iter(get_close_matches(str(key), hints, n=1, cutoff=0.5)), None)
        if name is None or (name != key and name in given):
            continue
        section, entry = section_class(hints[name]), entry_class(hints[name])
        if entry and isinstance(value, Mapping):
            found[name] = {each: _mended(entry, item) for each, item in value.items()}
        else:
            found[name] = _mended(section, value) if section else value
    return found


def overrides_by_place(study: StudyConfig) -> dict[str, Overrides]:
    """Every set of overrides by the key of the study file that gives it."""
    axes = study.matrix.axes.items()
    places = {"base": study.base, **{f"arms.{name}": arm.set for name, arm in study.arms.items()}}
    return places | {f"matrix.axes.{axis}.{value}": given for axis, values in axes for value, given in values.items()}


def params_path(path: Path, study: StudyConfig) -> Path:
    """The parameter file that the overrides start from."""
    return path.parent / Path(study.pipeline).parent / "params.yaml"


def _named(given: Mapping[Any, Any]) -> dict[Any, Any]:
    """YAML reads the key in `null: METRIC` as no text but null."""
    return {"null" if key is None else key: value for key, value in given.items()}


def _completed(config_class: Any, given: Any) -> Any:
    """`given` with the defaults of keys that it leaves out; a section that is null is left out."""
    if not isinstance(given, Mapping):
        return given
    data = _named(given)
    hints = fields_of(config_class)
    for each in fields(config_class):
        section, entry = section_class(hints[each.name]), entry_class(hints[each.name])
        value = data.get(each.name)
        if value is None and (section or each.name not in data) and _has_default(each):
            data[each.name] = _completed(section, {}) if section else _default(each)
        elif section:
            data[each.name] = _completed(section, value)
        elif entry and isinstance(value, Mapping):
            data[each.name] = {name: _completed(entry, item) for name, item in value.items()}
    return data


def _has_default(each: "Field[Any]") -> bool:
    return each.default is not MISSING or each.default_factory is not MISSING


def _default(each: "Field[Any]") -> Any:
    return each.default if each.default_factory is MISSING else each.default_factory()
