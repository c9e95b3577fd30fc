"""The studies that come with assay, one folder each, found by name; the engine knows none of them."""

import importlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from assay.errors import ConfigError


def study_names() -> list[str]:
    """Names of the study packages: folders with a config.py."""
    return sorted(path.parent.name for folder in __path__ for path in Path(folder).glob("*/config.py"))


def study_config(name: str) -> ModuleType:
    """The module with a study's `Params`, `STAGES` and `describe`; it imports no torch."""
    return importlib.import_module(f"{__name__}.{name}.config")


def study_params(study: str, path: Path, overrides: Sequence[str] = ()) -> Any:
    """A study's `Params` from a file.

    Raises:
        ConfigError: a line for each problem; one line for a file that is another study's.
    """
    from assay.config import load

    try:
        return load(study_config(study).Params, path, overrides)
    except ConfigError:
        others = [name for name in study_names() if name != study and _is_of(path, name)]
        if not others or _is_of(path, study):
            raise
        given = f"{path}: got the parameters of {others[0]}; allowed: those of {study}"
        raise ConfigError(f"{given}; give its file, or the command in its folder") from None


def _is_of(path: Path, study: str) -> bool:
    """Whether a file has the sections of a study's parameters, no more and no fewer."""
    from assay.config.fields import fields_of
    from assay.config.load import read

    with suppress(ConfigError):
        return set(read(path)) == set(fields_of(study_config(study).Params))
    return False
