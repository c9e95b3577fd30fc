"""The studies that come with assay, one folder each, found by name; the engine knows none of them."""

import importlib
from pathlib import Path
from types import ModuleType


def study_names() -> list[str]:
    """Names of the study packages: folders with a config.py."""
    return sorted(path.parent.name for folder in __path__ for path in Path(folder).glob("*/config.py"))


def study_config(name: str) -> ModuleType:
    """The module with a study's `Params`, `STAGES` and `describe`; it imports no torch."""
    return importlib.import_module(f"{__name__}.{name}.config")
