"""JSON Schema of a study's parameter file, for editors; open it when completion or hover help is wrong."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from docstring_parser import parse_from_object

from assay.config.fields import Bounds, alternatives, describe, entry_class, fields_of, marks, section_class


def json_schema(config_class: type, title: str) -> dict[str, Any]:
    """The draft 2020-12 schema of a config class: types, bounds, descriptions; unknown keys refused."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title, **_section(config_class)}


def field_help(config_class: type) -> dict[str, str]:
    """Field name to its docstring on one line."""
    parsed = parse_from_object(config_class)
    return {item.arg_name: " ".join((item.description or "").split()) for item in parsed.params}


def key_help(config_class: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """(dotted key, what is allowed, meaning) of every leaf."""
    texts = field_help(config_class)
    for name, hint in fields_of(config_class).items():
        section = section_class(hint)
        if section:
            yield from key_help(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", describe(hint), texts[name]


def _section(config_class: type) -> dict[str, Any]:
    texts = field_help(config_class)
    known = fields_of(config_class)
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(known),
        "properties": {name: {"description": texts.get(name, ""), **_field(hint)} for name, hint in known.items()},
    }


def _field(hint: Any) -> dict[str, Any]:
    section = section_class(hint)
    if section:
        return _section(section)
    entry = entry_class(hint)
    if entry:
        return {"type": "object", "additionalProperties": _section(entry)}
    base, extra = marks(hint)
    options = alternatives(base)
    if len(options) > 1:
        return {"anyOf": [_field(option) for option in options]}
    bounds = next((mark for mark in extra if isinstance(mark, Bounds)), Bounds())
    return _leaf(base, bounds)


def _leaf(base: Any, bounds: Bounds) -> dict[str, Any]:
    ends = {"minimum": bounds.ge, "exclusiveMinimum": bounds.gt, "maximum": bounds.le, "exclusiveMaximum": bounds.lt}
    limits = {key: value for key, value in ends.items() if value is not None}
    if get_origin(base) is Literal:
        return {"enum": list(get_args(base))}
    if get_origin(base) is dict:
        return {"type": "object"}
    if get_origin(base) is tuple:
        return _array(get_args(base), bounds, limits)
    names = {int: "integer", float: "number", bool: "boolean", str: "string", type(None): "null"}
    if base not in names:
        raise TypeError(f"no JSON Schema for {describe(base)}")
    return {"type": names[base], **limits}


def _array(members: tuple[Any, ...], bounds: Bounds, limits: dict[str, float]) -> dict[str, Any]:
    items = {**_leaf(members[0], Bounds()), **limits}
    if members[-1] is Ellipsis:
        return {"type": "array", "items": items, "minItems": bounds.items or 0}
    return {"type": "array", "items": items, "minItems": len(members), "maxItems": len(members)}
