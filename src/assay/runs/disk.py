"""How much disk the outputs of a pipeline take, by stage; open it when a run's record says too much or too little."""

from pathlib import Path
from typing import Any

LOCK = "dvc.lock"


def output_bytes(folder: Path) -> dict[str, int]:
    """Stage -> bytes of its outputs, as the pipeline's lock file in a folder has them; empty where it has none.

    What several runs have in common is kept once in DVC's cache; the working copy is as large again where the file
    system knows no reflinks.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        lock = YAML(typ="safe", pure=True).load((folder / LOCK).read_text(encoding="utf-8"))
    except (OSError, YAMLError, ValueError):
        return {}
    stages = lock.get("stages") if isinstance(lock, dict) else None
    return {name: _bytes(entry) for name, entry in stages.items()} if isinstance(stages, dict) else {}


def _bytes(entry: Any) -> int:
    outs = entry.get("outs", []) if isinstance(entry, dict) else []
    return sum(out["size"] for out in outs if isinstance(out, dict) and isinstance(out.get("size"), int))
