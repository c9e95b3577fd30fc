"""A config straight from values that already have their types: what the parser would make of them, without its cost.

Open it when a value is read differently here and by the parser; a test holds that the two agree.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, get_args, get_origin

from assay.config.fields import alternatives, layout, marks

C = TypeVar("C")
Convert = Callable[[Any], Any]
EXACT = 2**53  # whole numbers up to here are floats without rounding


class NotPlain(Exception):  # noqa: N818  # no error: the parser decides
    """A value that is not plainly of its field's type."""


def construct(config_class: type[C], data: Mapping[str, Any], parsed: C | None = None) -> C | None:
    """The config, bounds unchecked; None where the parser has to decide about a value or to word its refusal.

    With `parsed`, what the parser made of the same data, that fills in the values that only the parser can read. All
    others are still read here, for the parser takes a text where anything is allowed, "07", for the number.
    """
    try:
        config: C = _instance(config_class, data, parsed)
    except NotPlain:
        return None
    return config


def _instance(config_class: type, data: Any, parsed: Any) -> Any:
    converters = _converters(config_class)
    if type(data) is not dict or data.keys() != converters.keys():
        return _other(parsed)
    values = {}
    for name, _, section, entry in layout(config_class):
        value, other = data[name], None if parsed is None else getattr(parsed, name)
        if section:
            values[name] = _instance(section, value, other)
        elif entry:
            values[name] = _instances(entry, value, other)
        else:
            try:
                values[name] = converters[name](value)
            except NotPlain:
                if parsed is None:
                    raise
                values[name] = other
    return config_class(**values)


def _instances(entry: type, data: Any, parsed: Any) -> Any:
    if type(data) is not dict:
        return _other(parsed)
    return {name: _instance(entry, value, parsed[name] if parsed else None) for name, value in data.items()}


def _other(parsed: Any) -> Any:
    if parsed is None:
        raise NotPlain
    return parsed


@cache
def _converters(config_class: Any) -> dict[str, Convert]:
    """By field; sections and their entries have none of their own."""
    return {
        name: _anything if section or entry else _converter(hint) for name, hint, section, entry in layout(config_class)
    }


def _converter(hint: Any) -> Convert:
    base, _ = marks(hint)
    options = alternatives(base)
    if len(options) > 1:
        return _one_of([_converter(option) for option in options])
    if base is Any:
        return _anything
    if base is float:
        return _number
    if get_origin(base) is Literal:
        return _choice(get_args(base))
    if get_origin(base) is tuple:
        return _tuple(get_args(base))
    if get_origin(base) is dict:
        return _mapping(_converter(get_args(base)[1]))
    return _exactly(base)


def _anything(value: Any) -> Any:
    return value


def _exactly(kind: type) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not kind:
            raise NotPlain
        return value

    return convert


def _number(value: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int and abs(value) <= EXACT:
        return float(value)
    raise NotPlain


def _choice(options: tuple[Any, ...]) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not str or value not in options:
            raise NotPlain
        return value

    return convert


def _one_of(converters: list[Convert]) -> Convert:
    def convert(value: Any) -> Any:
        found = []
        for each in converters:
            try:
                found.append(each(value))
            except NotPlain:
                continue
        if len(found) != 1:
            raise NotPlain
        return found[0]

    return convert


def _tuple(members: tuple[Any, ...]) -> Convert:
    item, length = _converter(members[0]), None if members[-1] is Ellipsis else len(members)

    def convert(value: Any) -> Any:
        if type(value) not in (list, tuple) or (length is not None and len(value) != length):
            raise NotPlain
        return tuple(map(item, value))

    return convert


def _mapping(item: Convert) -> Convert:
    def convert(value: Any) -> Any:
        if type(value) is not dict or not all(type(key) is str for key in value):
            raise NotPlain
        return {key: item(each) for key, each in value.items()}

    return convert
