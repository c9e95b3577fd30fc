"""From params.yaml to a frozen typed config, or to one clear line per mistake; open it when loading goes wrong."""

import dataclasses
import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from assay.config.direct import construct
from assay.config.fields import (
    LARGEST,
    Problem,
    alternatives,
    describe,
    entry_class,
    fields_of,
    layout,
    leaves,
    marks,
    section_class,
    violation,
)
from assay.errors import ConfigError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser  # 40 ms to import: only for values that need it

C = TypeVar("C")


def load(config_class: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read a parameter file, apply `dotted.key=value` overrides, validate everything.

    Raises:
        ConfigError: one line per problem, each with file, dotted key, what was given and what is allowed.
    """
    data = override(read(path, "give the path of a parameter file, to a stage with --params"), overrides)
    try:
        return build(config_class, data)
    except ConfigError as error:
        lines = str(error).splitlines()
        raise ConfigError("\n".join(f"{path}: {line}" for line in lines)) from None


def read(path: Path, remedy: str = "give the path of an existing file") -> dict[str, Any]:
    """Read one YAML 1.2 mapping (so `3e-3` is a number and a repeated key is an error).

    remedy: what to do if there is no such file.

    Raises:
        ConfigError: there is none, it cannot be read, is not valid YAML or no mapping, or a value contains itself.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.constructor import DuplicateKeyError
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; {remedy}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a YAML text file") from None
    except DuplicateKeyError as error:
        what = f"line {error.problem_mark.line + 1}: {error.problem.partition(' with value ')[0]}"
        raise ConfigError(f"{path}: not valid YAML ({what}); allowed: each key once; drop one") from None
    except (YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()[:40])
        raise ConfigError(f"{path}: not valid YAML ({reason}); correct the file") from None
    if data is None:
        raise ConfigError(f"{path}: is empty; allowed: a mapping of sections; fill it, or give another file")
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: got {type(data).__name__}; allowed: a mapping of sections; correct the file")
    for key, value in data.items():
        _refuse_loops(value, f"{path}: {key}")
    return data


def override(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested `data` with each `dotted.key=YAML value` put in place.

    Raises:
        ConfigError: there is no value, it is not valid YAML or contains itself, or its key is below another value.
    """
    changes: dict[str, Any] = {}
    for text in overrides:
        key, sign, value = text.partition("=")
        if not sign:
            raise ConfigError(f"{text}: got no value; allowed: dotted.key=value; write --{text}=VALUE")
        changes[key] = _value(key, value)
    return assign(data, changes)


def assign(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested `data` with the value of each dotted key put in place."""
    result = _copy(data)
    for key, value in changes.items():
        *sections, leaf = key.split(".")
        place = result
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{key}: got a key below a value; allowed: keys below sections; drop .{leaf}")
        place[leaf] = value
    return result


def build(config_class: type[C], data: Mapping[str, Any]) -> C:
    """Turn a nested mapping into a config; raises ConfigError with one line per problem."""
    _refuse(_size_problems(data))
    _refuse(_shape_problems(config_class, data))
    config = construct(config_class, data)
    if config is None:
        parsed = _parse(config_class, data)
        config = construct(config_class, data, parsed) or parsed
    _refuse(_bounds_problems(config))
    _refuse(_conflicts(config))
    return config


def _parse(config_class: type[C], data: Mapping[str, Any]) -> C:
    """The config by way of the parser, which converts and refuses by type."""
    from jsonargparse import ArgumentError

    parser = _parser(config_class)  # type: ignore[arg-type]  # a class is hashable; the stub says otherwise
    try:
        namespace = parser.parse_object(_copy(data))  # it writes into what it is given
    except ArgumentError as error:
        _refuse([_type_problem(config_class, data, str(error))])
        raise
    except OverflowError:
        raise ConfigError("got a number as text that is too large; write it as a number, with an exponent") from None
    return config_class(**vars(parser.instantiate(namespace)))


def resolved(config: Any) -> dict[str, Any]:
    """Every field as plain JSON types, nulls too, in declaration order."""
    result = {}
    for name, hint in fields_of(type(config)).items():
        value = getattr(config, name)
        if section_class(hint):
            value = resolved(value)
        elif entry_class(hint):
            value = {key: resolved(entry) for key, entry in value.items()}
        result[name] = list(value) if isinstance(value, tuple) else value
    return result


@cache
def _parser(config_class: Hashable) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class, None)
    return parser


def _refuse(problems: Iterator[Problem] | list[Problem]) -> None:
    lines = [str(problem) for problem in problems]
    if lines:
        raise ConfigError("\n".join(lines))


def _size_problems(value: Any, key: str = "") -> Iterator[Problem]:
    """Whole numbers that are too large, wherever they stand."""
    if isinstance(value, int) and abs(value) > LARGEST:
        yield Problem(key, f"a whole number of {value.bit_length()} bits", "63 bits at most", "write more as 1e20")
    for name, part in _parts(value):
        yield from _size_problems(part, f"{key}.{name}" if key else str(name))


def _parts(value: Any) -> Iterable[tuple[Any, Any]]:
    """The values in a mapping by their keys, those in a list by their places; none of anything else."""
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


def _shape_problems(config_class: type, data: Any, prefix: str = "") -> Iterator[Problem]:
    """Unknown keys (with the nearest valid one), missing keys, and sections that are no mapping."""
    known = fields_of(config_class)
    if not isinstance(data, Mapping):
        yield Problem(prefix.rstrip("."), _show(data), "a section with " + ", ".join(known), "indent its keys below it")
        return
    for key in data:
        if key not in known:
            yield Problem(f"{prefix}{key}", "an unknown key", *_nearest(str(key), prefix, list(known)))
    for name, hint, section, entry in layout(config_class):
        if name not in data:
            allowed = "a section" if section else describe(hint)
            yield Problem(f"{prefix}{name}", "no such key", allowed, f"add {prefix}{name}")
        elif data[name] is None and section is None and type(None) not in alternatives(marks(hint)[0]):
            yield Problem(f"{prefix}{name}", "null", describe(hint))
        elif section:
            yield from _shape_problems(section, data[name], f"{prefix}{name}.")
        elif entry:
            yield from _entry_problems(entry, data[name], f"{prefix}{name}")


def _entry_problems(config_class: type, data: Any, key: str) -> Iterator[Problem]:
    if not isinstance(data, Mapping):
        yield Problem(key, _show(data), "a mapping of names to sections", "indent them below it")
        return
    for name, entry in data.items():
        yield from _shape_problems(config_class, entry, f"{key}.{name}.")


def _nearest(key: str, prefix: str, known: list[str]) -> tuple[str, str]:
    match = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    remedy = f"did you mean {prefix}{match[0]}?" if match else f"remove {prefix}{key}"
    return ", ".join(known), remedy


def _type_problem(config_class: type, data: Mapping[str, Any], message: str) -> Problem:
    """Reword jsonargparse's refusal: it names the dotted key, we add the value and the allowed type in words."""
    found = re.search(r'key "([^"]+)"', message)
    if not found:
        raise ConfigError(" ".join(message.split()))
    key = found.group(1)
    hint: Any = config_class
    value: Any = data
    for part in key.split("."):
        hint, value = entry_class(hint) or fields_of(section_class(hint) or hint)[part], value[part]
    entry = entry_class(hint)
    if entry:
        _refuse_entries(entry, value, key)
    return Problem(key, _show(value), describe(hint))


def _refuse_entries(config_class: type, entries: Mapping[str, Any], key: str) -> None:
    """Raise the refusal of the first wrong entry, which the parser does not name."""
    for name, entry in entries.items():
        try:
            _parse(config_class, entry)
        except ConfigError as error:
            raise ConfigError(f"{key}.{name}.{error}") from None


def _bounds_problems(config: Any) -> Iterator[Problem]:
    for key, hint, value in leaves(config):
        if violation(hint, value):
            yield Problem(key, _show(value), describe(hint))


def _conflicts(config: Any, prefix: str = "") -> Iterator[Problem]:
    """Contradictions that the config classes report about themselves, keys made absolute."""
    for name, _, section, _ in layout(type(config)):
        if section:
            yield from _conflicts(getattr(config, name), f"{prefix}{name}.")
    find = getattr(config, "conflicts", None)
    if find:
        for problem in find():
            yield dataclasses.replace(problem, key=f"{prefix}{problem.key}")


def _show(value: Any) -> str:
    text = repr(list(value)) if isinstance(value, tuple) else repr(value)
    return {"None": "null", "True": "true", "False": "false"}.get(text, text)


def _value(key: str, text: str) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(text) if text.strip() else None
    except (YAMLError, ValueError, RecursionError):
        raise ConfigError(f"{key}: got {text!r}; allowed: a YAML value; quote it") from None
    _refuse_loops(value, key)
    return value


def _refuse_loops(value: Any, key: str, above: tuple[Any, ...] = ()) -> None:
    """Raise ConfigError if a value contains itself, as an anchor of YAML can make it."""
    if any(value is each for each in above):
        raise ConfigError(f"{key}: got an alias of what it stands in; allowed: one of another value; write it out")
    for name, part in _parts(value):
        _refuse_loops(part, f"{key}.{name}", (*above, value))


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in data.items()}
