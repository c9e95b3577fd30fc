"""Which parameters code reads: a study must declare them, stage by stage, and read all that it declares."""

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

import pytest

from assay.config.fields import fields_of, is_incidental, leaves, section_class

VALIDATION_ONLY = {"conflicts", "describe"}
"""Methods of parameters that run when they are loaded."""
SGD = ("optimizer.name=sgd", "optimizer.betas=null", "optimizer.momentum=0.9")
PLATEAU = (
    "schedule.name=plateau",
    "schedule.plateau_factor=0.5",
    "schedule.plateau_patience=1",
    *(f"schedule.{key}=null" for key in ("warmup_fraction", "initial_division", "final_division", "lowest_momentum")),
)
"""Overrides of a section that trains, which read what the default optimiser and schedule do not."""


class Reads:
    """The dotted leaves that code reads from one parameter object, outside of loading, recording and validation.

    Parameters that come out of a model file are other objects: they are not counted.
    """

    def __init__(self, config_class: type, patch: pytest.MonkeyPatch) -> None:
        self.seen: set[str] = set()
        self.watched: dict[int, tuple[object, str]] = {}
        for section in set(section_classes(config_class)):
            patch.setattr(section, "__getattribute__", self._getter())
        replaced = dataclasses.replace

        def replace(section: Any, **changes: Any) -> Any:
            made = replaced(section, **changes)
            if id(section) in self.watched:
                self.watched[id(made)] = (made, self.watched[id(section)][1])
            return made

        patch.setattr(dataclasses, "replace", replace)

    def of(self, stage: str, study: str, params: Any) -> set[str]:
        """The leaves of `params` that a stage reads."""
        self.seen.clear(), self.watched.clear()
        self._watch(params, "")
        importlib.import_module(f"assay.studies.{study}.{stage}").run(params)
        return self.seen & {key for key, _, _ in leaves(params)}

    def _getter(self) -> Any:
        def get(section: Any, name: str) -> Any:
            if id(section) in self.watched and _is_use(sys._getframe(1)):
                self.seen.add(f"{self.watched[id(section)][1]}{name}")
            return object.__getattribute__(section, name)

        return get

    def _watch(self, section: Any, prefix: str) -> None:
        self.watched[id(section)] = (section, prefix)
        for name, hint in fields_of(type(section)).items():
            if section_class(hint):
                self._watch(object.__getattribute__(section, name), f"{prefix}{name}.")


def _is_use(caller: FrameType) -> bool:
    """Whether code of a study or of the engine asks, by itself or by `asdict` of a section."""
    frame: FrameType | None = caller
    while frame is not None and frame.f_globals["__name__"] in ("dataclasses", "copy"):
        if "replace" in frame.f_code.co_name:
            return False
        frame = frame.f_back
    if frame is None or frame.f_globals["__name__"].startswith("assay.config"):
        return False
    return not any(frame.f_code.co_name.endswith(name) for name in VALIDATION_ONLY)


def section_classes(config_class: type) -> Iterator[type]:
    yield config_class
    for hint in fields_of(config_class).values():
        below = section_class(hint)
        if below:
            yield from section_classes(below)


def incidental(params: Any) -> set[str]:
    """Leaves that cannot change a result: places, devices, how often to log."""
    return {key for key, hint, _ in leaves(params) if is_incidental(hint)}


def not_below(found: Iterable[str], keys: tuple[str, ...]) -> set[str]:
    """Those leaves that no section or key of `keys` holds."""
    return {leaf for leaf in found if not any(f"{leaf}.".startswith(f"{key}.") for key in keys)}
