"""The studies that come with assay, one folder each, found by name; the engine knows none of them."""

import importlib
import pkgutil
from types import ModuleType


def study_names() -> list[str]:
    """Names of the study packages."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def study_config(name: str) -> ModuleType:
    """The module with a study's `Params`, `STAGES` and `describe`; it imports no torch."""
    return importlib.import_module(f"{__name__}.{name}.config")
