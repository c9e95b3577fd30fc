"""The files that a run starts from, as its record has them; open it when a lock, data or parameters are not noticed."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LOCKS = ("requirements/*.txt", "requirements*.txt", "uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "conda-lock.yml")


def lock_digest(folder: Path) -> str | None:
    """SHA-256 (hex) of the files that fix the versions of packages; None: there are none."""
    return digest(sorted({path for pattern in LOCKS for path in folder.glob(pattern)}))


def digest(paths: Sequence[Path]) -> str | None:
    """SHA-256 (hex) over names and contents; None: none of the files can be read."""
    total, found = hashlib.sha256(), False
    for path in paths:
        with suppress(OSError):
            total.update(os.fsencode(path.name) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
            found = True
    return total.hexdigest() if found else None


def read_yaml(path: Path) -> dict[str, Any] | None:
    """A YAML mapping as JSON values; None: missing or damaged, which is for the command to complain about."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        data = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        data = json.loads(json.dumps(data, default=str))
    except (OSError, YAMLError, ValueError, TypeError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def stages(cwd: Path) -> list[str]:
    """The stages of dvc.yaml, in its order."""
    found = (read_yaml(cwd / "dvc.yaml") or {}).get("stages")
    return list(found) if isinstance(found, dict) else []
