"""What makes two runs the same run: digests of config, code and data; open it when a checkpoint is not found."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import assay
from assay.config.fields import is_incidental, leaves

BYSTANDERS = ("runs", "matrix", "reports", "cli.py", "stages.py", "progress.py")
"""Code that runs, plans and reports, and computes nothing: a run goes on when it has changed."""


def config_digest(config: Any, keys: Sequence[str], **facts: str) -> str:
    """SHA-256 (hex) over the leaves below the given sections or dotted keys, less `Incidental` ones, and named facts.

    Raises:
        KeyError: a key names no section and no leaf.
    """
    chosen: dict[str, Any] = {}
    every_leaf = list(leaves(config))
    for key in keys:
        below = {name: (hint, value) for name, hint, value in every_leaf if f"{name}.".startswith(f"{key}.")}
        if not below:
            raise KeyError(key)
        chosen |= {name: value for name, (hint, value) in below.items() if not is_incidental(hint)}
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
