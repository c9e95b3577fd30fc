"""Reads JSON sidecars with BIDS inheritance and phrases what is wrong in them; open it when a key is refused.

Sidecars give times in seconds; everything here returns milliseconds, the unit of the study.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from assay.errors import DataError
from assay.studies.asl.bids.layout import inherited

LONGEST_SECONDS = 20.0
SECONDS = "seconds: one number, or one per volume"


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """The metadata of one image, merged from every file that applies to it; the nearest file wins."""

    image: Path
    files: tuple[Path, ...]
    values: Mapping[str, object]

    def refusal(self, key: str, got: object, allowed: str, fix: str) -> DataError:
        """The one-line error for a key: where, what was given, what is allowed, what to do."""
        where = self.files[-1] if self.files else self.image
        return DataError(f"{where}: {key} is {short(got)}; allowed: {allowed}; {fix}")

    def required(self, key: str, allowed: str) -> object:
        """The value of a key that BIDS requires for ASL; DataError when it is missing."""
        if key not in self.values:
            raise self.refusal(key, "missing", allowed, f"add {key} to the sidecar")
        return self.values[key]

    def choice(self, key: str, allowed: tuple[str, ...]) -> str:
        """A required text out of a few; DataError for any other."""
        value = self.required(key, ", ".join(allowed))
        if not isinstance(value, str) or value not in allowed:
            raise self.refusal(key, value, ", ".join(allowed), "correct the sidecar")
        return value

    def number(self, key: str, *, above: float, at_most: float = math.inf) -> float | None:
        """An optional number in (above, at_most]; None when the key is absent."""
        if key not in self.values:
            return None
        value = self.values[key]
        if not _is_number(value) or not above < float(value) <= at_most:
            bound = f" and at most {at_most:g}" if math.isfinite(at_most) else ""
            raise self.refusal(key, value, f"a number above {above:g}{bound}", "correct the sidecar")
        return float(value)

    def milliseconds(self, key: str, allowed: str = SECONDS) -> list[float] | float:
        """A required time, or list of times, given in seconds, as ms.

        Values above 20 s are refused: no delay or label lasts that long, so the sidecar was written in ms.
        """
        value = self.required(key, allowed)
        items: list[object] = value if isinstance(value, list) else [value]
        times: list[float] = []
        for item in items:
            if not _is_number(item) or item < 0:
                raise self.refusal(key, item, f"{allowed}, not negative", "correct the sidecar")
            if item > LONGEST_SECONDS:
                raise self.refusal(key, item, f"{allowed}, at most {LONGEST_SECONDS:g}", "is it in ms?")
            times.append(round(1000.0 * float(item), 3))
        return times if isinstance(value, list) else times[0]


def read_sidecar(image: Path, root: Path, *, suffix: str) -> Sidecar:
    """Merge the JSON files that apply to an image. Raises DataError when one is not a JSON object."""
    files = inherited(image, root, suffix=suffix, extension=".json")
    values: dict[str, object] = {}
    for path in files:
        values.update(_read_json(path))
    return Sidecar(image=image, files=tuple(files), values=values)


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 table that are not blank. Raises DataError when it cannot be read."""
    text = _read_text(path)
    return [line for line in text.splitlines() if line.strip()]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); allowed: UTF-8 text; restore the file") from error


def _read_json(path: Path) -> dict[str, object]:
    text = _read_text(path)
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not JSON (line {error.lineno}, column {error.colno}: {error.msg}); correct the file"
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or lists within lists
        raise DataError(f"{path}: cannot be read ({str(error).splitlines()[0]}); correct the file") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds {short(values)}; allowed: one JSON object; correct the file")
    return values


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def short(value: object) -> str:
    """A value as an error message shows it: at most 60 characters."""
    text = value if value == "missing" else repr(value)
    return str(text) if len(str(text)) <= 60 else str(text)[:57] + "..."
