"""What makes two runs the same run: digests of config, code and data; open it when a checkpoint is not found."""

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import assay
from assay.config.fields import is_incidental, leaves

BYSTANDERS = (
    *("runs", "matrix", "reports", "schedulers", "containers", "images"),
    *("cli.py", "stages.py", "progress.py", "machine.py", "doctor.py", "rented.py", "figures.py"),
)
"""Code that runs, plans, draws and reports, and computes nothing: a run goes on when it has changed."""


def config_digest(config: Any, keys: Sequence[str], **facts: str) -> str:
    """SHA-256 (hex) over the leaves below the given sections or dotted keys, less `Incidental` ones, and named facts.

    Raises:
        KeyError: a key names no section and no leaf.
    """
    return digest(deciding(config, keys), **facts)


def deciding(config: Any, keys: Sequence[str]) -> dict[str, Any]:
    """Dotted leaf to value, for the leaves that `config_digest` is over.

    Raises:
        KeyError: a key names no section and no leaf.
    """
    every_leaf = list(leaves(config))
    names = sorted(f"{name}." for name, _, _ in every_leaf)
    prefixes = tuple(f"{key}." for key in keys)
    for prefix in prefixes:
        place = bisect_left(names, prefix)
        if place == len(names) or not names[place].startswith(prefix):
            raise KeyError(prefix.removesuffix("."))
    return {
        name: value for name, hint, value in every_leaf if f"{name}.".startswith(prefixes) and not is_incidental(hint)
    }


def digest(chosen: Mapping[str, Any], **facts: str) -> str:
    """SHA-256 (hex) over leaves by dotted key, and named facts."""
    text = json.dumps({"config": chosen, **facts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_digest(study: str) -> str:
    """SHA-256 (hex) over the names and contents of the source files that decide what a study computes.

    These are the package's without the other studies and without `BYSTANDERS`.
    """
    root = Path(assay.__file__).parent
    total = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        foreign = parts[0] == "studies" and len(parts) > 2 and parts[1] != study
        if parts[0] not in BYSTANDERS and not foreign:
            total.update("/".join(parts).encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
