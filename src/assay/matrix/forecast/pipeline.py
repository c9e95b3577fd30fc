"""The stages of a pipeline as a forecast sees them: what each reads, trains, needs; open it to change what a shape is.

Two runs have the same *shape* in a stage where every parameter is equal that it reads, or a stage that it needs, for
a larger network takes longer to judge, too. Real numbers do not count, unless one is zero: they seldom change how much
is computed. Nor does how a stage before was trained. The *form* is the shape without the budget of its own training.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from assay.config.fields import alternatives, entry_class, layout, marks, section_class
from assay.config.load import read
from assay.engine.config import training_sections
from assay.matrix.forecast.scaling import Target
from assay.studies import study_config

BUDGET = ("steps", "epochs", "validate_every", "patience", "checkpoint_every")
"""Keys of a training section that say how much is trained, and nothing of what one step takes."""
MEMBERS = "ensemble_size"
"""The key of a training section that later stages feel."""
SEED = "seed"
Leaves = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Parameters:
    """All leaves of a run; one object for runs that differ in the seed alone, so that much is worked out once."""

    leaves: Leaves

    @cached_property
    def shapes(self) -> dict[str, str]:
        """Leaf to what counts of its value for a shape."""
        return {key: _shape(value) for key, value in self.leaves.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class PipelineStage:
    """One stage. keys: sections and dotted keys that it reads; train: its training section; needs: earlier stages.

    behind: those, and what they need in turn.
    """

    name: str
    command: str
    keys: tuple[str, ...]
    train: str | None
    needs: tuple[str, ...]
    behind: tuple["PipelineStage", ...]
    outs: tuple[str, ...]

    def reads(self, leaf: str) -> bool:
        """Whether a parameter is among those it reads; all are where nothing is known."""
        return not self.keys or f"{leaf}.".startswith(tuple(f"{key}." for key in self.keys))

    def leaves_its_mark(self, leaf: str) -> bool:
        """Whether later stages may take longer for a parameter of this one: they do not for how it was trained."""
        section, _, key = leaf.rpartition(".")
        return self.reads(leaf) and (
            self.train is None or key == MEMBERS or not f"{section}.".startswith(f"{self.train}.")
        )

    def names(self, leaves: Leaves) -> tuple[str, ...]:
        """The names of those that tell how much it does, without the seed."""
        return _names(self, tuple(leaves))

    def leaves(self, leaves: Leaves) -> Leaves:
        """Those it reads, without the seed."""
        return {leaf: value for leaf, value in leaves.items() if leaf != SEED and self.reads(leaf)}


@lru_cache(maxsize=1000)
def _names(stage: PipelineStage, leaves: tuple[str, ...]) -> tuple[str, ...]:
    told = (leaf for leaf in leaves if stage.reads(leaf) or any(each.leaves_its_mark(leaf) for each in stage.behind))
    return tuple(sorted(leaf for leaf in told if leaf != SEED))


def read_pipeline(path: Path, study: str) -> dict[str, PipelineStage]:
    """The stages of a dvc.yaml in its order; what each reads is as the study's package says.

    Raises:
        ConfigError: the file cannot be read.
    """
    module = study_config(study)
    found: dict[str, PipelineStage] = {}
    for name, told in dict(read(path).get("stages") or {}).items():
        keys = tuple(module.STAGES.get(name, ()))
        deps, outs = (
            paths_of(told, "deps"),
            tuple(path for kind in ("outs", "metrics") for path in paths_of(told, kind)),
        )
        needed = [each for each in found.values() if _overlap(deps, each.outs)]
        found[name] = PipelineStage(
            name=name,
            command=str(told.get("cmd", "")),
            keys=keys,
            train=_training(module.Params, keys),
            needs=tuple(each.name for each in needed),
            behind=tuple(dict.fromkeys(stage for each in needed for stage in (each, *each.behind))),
            outs=outs,
        )
    return found


def paths_of(told: Mapping[str, Any], key: str) -> list[str]:
    """Paths listed under deps, outs or metrics; an entry with options is a mapping from its path."""
    return [str(next(iter(each))) if isinstance(each, Mapping) else str(each) for each in told.get(key) or ()]


def _overlap(deps: list[str], outs: tuple[str, ...]) -> bool:
    return any(f"{one}/".startswith(f"{two}/") or f"{two}/".startswith(f"{one}/") for one in deps for two in outs)


def _training(params: type, keys: tuple[str, ...]) -> str | None:
    """The one training section that a stage reads; None if it reads none, or several."""
    found = [place for place in training_sections(params) if any(f"{place}.".startswith(f"{key}.") for key in keys)]
    return found[0] if len(found) == 1 else None


def leaves_of(params: type, data: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted leaf of parameters, typed or as a file gives them; real numbers as such, tuples as lists.

    Raises:
        KeyError: a key is missing.
    """
    told = data if isinstance(data, Mapping) else vars(data)
    for name, hint, section, entry in layout(params):
        value = told[name]
        if section is not None and value is not None:
            yield from leaves_of(section, value, f"{prefix}{name}.")
        elif entry is not None and isinstance(value, Mapping):
            for key, each in value.items():
                yield from leaves_of(entry, each, f"{prefix}{name}.{key}.")
        else:
            yield f"{prefix}{name}", _plain(value, _is_real(hint))


@cache
def _is_real(hint: Any) -> bool:
    """Whether a field holds real numbers, itself or in a list."""
    base, _ = marks(hint)
    if base is float:
        return True
    inner = [each for each in (*alternatives(base), *getattr(base, "__args__", ())) if each is not base]
    return not section_class(hint) and not entry_class(hint) and any(_is_real(each) for each in inner)


def _plain(value: Any, real: bool) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item, real) for item in value]
    return float(value) if real and type(value) is int else value


class Shapes:
    """Small numbers for shapes: equal where two are the same shape."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

    def _number(self, parameters: Parameters, names: Sequence[str]) -> int:
        key = tuple(names), tuple(parameters.shapes[name] for name in names)
        return self._numbers.setdefault(key, len(self._numbers))

    def target(
        self, parameters: Parameters, names: Sequence[str], training: Sequence[str], counts: Mapping[str, float]
    ) -> Target:
        """What is to be expected of that which reads the leaves named. training: its training sections."""
        spent = {f"{section}.{key}" for section in training for key in BUDGET}
        rest = [name for name in names if name not in spent]
        return Target(
            shape=self._number(parameters, names),
            form=self._number(parameters, rest),
            leaves={name: parameters.leaves[name] for name in rest},
            counts=counts,
        )


def _shape(value: Any) -> str:
    """Real numbers count as zero or not."""
    if isinstance(value, float):
        return "real" if value else "zero"
    if isinstance(value, list):
        return f"[{','.join(map(_shape, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_shape(value[key])}' for key in sorted(value))}}}"
    return repr(value)
