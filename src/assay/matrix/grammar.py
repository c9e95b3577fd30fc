"""Overrides as `dvc exp run -S` and `dvc.utils.hydra.apply_overrides` take them; open it when a value arrives changed.

The grammar is Hydra's: https://hydra.cc/docs/advanced/override_grammar/basic/
"""

import re
from collections.abc import Mapping
from typing import Any


def as_dvc(overrides: Mapping[str, Any]) -> list[str]:
    """One or more arguments of -S for each dotted key. DVC merges a mapping into what is there, so that goes first."""
    found: list[str] = []
    for key, value in overrides.items():
        if isinstance(value, Mapping):
            found += [f"~{key}", f"+{key}={_text(value)}"]
        else:
            found.append(f"{key}={_text(value)}")
    return found


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    return _quoted(value) if isinstance(value, str) else repr(value)


def _quoted(text: str) -> str:
    """In single quotes; only backslashes before a quote or an interpolation, ${, have a meaning and are doubled."""
    return "'" + re.sub(r"(\\*)('|\${|$)", lambda found: found[1] * 2 + (found[2] and f"\\{found[2]}"), text) + "'"
