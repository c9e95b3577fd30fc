"""What a field may hold: bounds, markers and their wording; open it to add a kind of constraint.

A config is a frozen keyword-only dataclass. A field's type says what is allowed:

    steps: Annotated[int, Bounds(ge=1)] | None

The docstring below a field is its help text and carries the unit. A constraint between fields is a method
`conflicts(self) -> Iterator[Problem]` of the dataclass.
"""

import dataclasses
import math
import types
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from assay.errors import ConfigError

LARGEST = 2**63 - 1
"""The largest whole number that torch and NumPy compute with."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Closed (`ge`, `le`) and open (`gt`, `lt`) ends of a number's range; `items` is the least list length."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    items: int | None = None

    def describe(self) -> str:
        """The range in words, e.g. `>= 1, < 10`."""
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        parts = [f"{sign} {getattr(self, end):g}" for end, sign in signs.items() if getattr(self, end) is not None]
        return ", ".join(parts)

    def admits(self, number: float) -> bool:
        """Whether a number is finite, of 64 bits if it is whole, and inside the range."""
        return (
            (abs(number) <= LARGEST if isinstance(number, int) else math.isfinite(number))
            and (self.ge is None or number >= self.ge)
            and (self.gt is None or number > self.gt)
            and (self.le is None or number <= self.le)
            and (self.lt is None or number < self.lt)
        )


@dataclass(frozen=True)
class Incidental:
    """Marks a field that cannot change a result (a path, a device), so it stays out of a run's identity."""


@dataclass(frozen=True)
class Before:
    """Marks a later field: `value` is what runs did before there was this key; never edited once released."""

    value: Hashable


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a parameter file: where, what was given, what is allowed, what to do."""

    key: str
    given: str
    allowed: str
    remedy: str = ""

    def __str__(self) -> str:
        tail = f"; {self.remedy}" if self.remedy else ""
        return f"{self.key}: got {self.given}; allowed: {self.allowed}{tail}"


def fields_of(config_class: type) -> Mapping[str, Any]:
    """Field name to type (with its `Annotated` marks) of a config dataclass, in order."""
    return _fields_of(config_class)


@cache
def _fields_of(config_class: Any) -> Mapping[str, Any]:
    hints = get_type_hints(config_class, include_extras=True)
    return MappingProxyType({field.name: hints[field.name] for field in dataclasses.fields(config_class)})


def marks(hint: Any) -> tuple[Any, list[Any]]:
    """Split `Annotated[base, *marks]` into base and marks; any other type has no marks."""
    if get_origin(hint) is Annotated:
        base, *extra = get_args(hint)
        return base, extra
    return hint, []


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    if get_origin(hint) in (Union, types.UnionType):
        return get_args(hint)
    return (hint,)


@cache
def is_incidental(hint: Any) -> bool:
    """Whether a field's type carries the `Incidental` mark, itself or in a member of its union."""
    base, extra = marks(hint)
    below = (is_incidental(option) for option in alternatives(base) if option is not base)
    return Incidental() in extra or any(below)


@cache
def before(hint: Any) -> Before | None:
    """The `Before` mark of a field's type, its own or that of a member of its union."""
    base, extra = marks(hint)
    below = (before(option) for option in alternatives(base) if option is not base)
    return next((mark for mark in (*extra, *below) if isinstance(mark, Before)), None)


def section_class(hint: Any) -> type | None:
    """The dataclass of a nested section, or None for a leaf."""
    base, _ = marks(hint)
    return base if isinstance(base, type) and dataclasses.is_dataclass(base) else None


def entry_class(hint: Any) -> type | None:
    """The dataclass of the entries of a section `dict[str, Section]`, whose keys are names; None for anything else."""
    base, _ = marks(hint)
    return section_class(get_args(base)[1]) if get_origin(base) is dict else None


def describe(hint: Any) -> str:
    """What a type allows, in words a user reads, e.g. `a list of whole numbers >= 1, or null`."""
    base, extra = marks(hint)
    bounds = next((mark for mark in extra if isinstance(mark, Bounds)), None)
    options = alternatives(base)
    if len(options) > 1:
        return ", or ".join(describe(option) for option in options)
    return _describe_leaf(base, bounds)


def _describe_leaf(base: Any, bounds: Bounds | None) -> str:
    limit = f" {bounds.describe()}" if bounds and bounds.describe() else ""
    if base is type(None):
        return "null"
    if get_origin(base) is Literal:
        return "one of " + ", ".join(str(value) for value in get_args(base))
    if get_origin(base) is dict:
        return "a mapping"
    if get_origin(base) is tuple:
        return _describe_tuple(get_args(base), bounds, limit)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return names[base] + limit


def _describe_tuple(members: tuple[Any, ...], bounds: Bounds | None, limit: str) -> str:
    nouns = {int: "whole numbers", float: "numbers", str: "texts"}
    noun = nouns[members[0]] if members[0] in nouns else f"values, each {describe(members[0])}"
    if members[-1] is Ellipsis:
        least = f" of {bounds.items} or more" if bounds and bounds.items else " of"
        return f"a list{least} {noun}{limit}"
    return f"a list of {len(members)} {noun}{limit}"


def violation(hint: Any, value: Any) -> bool:
    """Whether a value of the right type breaks the bounds of its field."""
    if value is None or isinstance(value, (str, bool, dict)):
        return False
    bounds = _bounds(hint)
    if isinstance(value, tuple):
        too_short = bounds.items is not None and len(value) < bounds.items
        return too_short or any(not bounds.admits(item) for item in value if isinstance(item, (float, int)))
    return isinstance(value, (float, int)) and not bounds.admits(value)


@cache
def _bounds(hint: Any) -> Bounds:
    """Those of the type, or of what it may be beside null."""
    base, extra = marks(hint)
    options = [option for option in alternatives(base) if option is not type(None)]
    if len(options) == 1 and options[0] is not base:
        return _bounds(options[0])
    return next((mark for mark in extra if isinstance(mark, Bounds)), Bounds())


class Field(NamedTuple):
    """A field of a config dataclass: its type, and the dataclass of its section or of its entries, if it has any."""

    name: str
    hint: Any
    section: type | None
    entry: type | None


UNSEEN = ("size", "nfiles")
"""Keys that DVC's run cache leaves out of a stage's parameters, at any depth: it counts files by them (DVC 3.67)."""


def layout(config_class: type) -> tuple[Field, ...]:
    """The fields of a config dataclass in order, worked out once for each class.

    Raises:
        ConfigError: a field has a name that DVC does not see: two values of it would share one result.
    """
    return _layout(config_class)


@cache
def _layout(config_class: Any) -> tuple[Field, ...]:
    hints = fields_of(config_class).items()
    for name in UNSEEN:
        if name in dict(hints):
            where = f"{config_class.__name__}.{name}"
            raise ConfigError(f"{where}: DVC's run cache sees no key of this name; allowed: any other; rename it")
    return tuple(Field(name, hint, section_class(hint), entry_class(hint)) for name, hint in hints)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every (dotted key, type, value) of a config instance, sections opened."""
    for name, hint, section, entry in layout(type(config)):
        value = getattr(config, name)
        if section:
            yield from leaves(value, f"{prefix}{name}.")
        elif entry:
            for key, each in value.items():
                yield from leaves(each, f"{prefix}{name}.{key}.")
        else:
            yield f"{prefix}{name}", hint, value
