"""Tables and numbers as files; open it for how many digits they have."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from assay.files import write_bytes


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Write a table; numbers with six digits, NaN as an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    write_bytes(path, text.getvalue().encode())


def write_json(path: Path, numbers: Mapping[str, float]) -> None:
    """Write named numbers with six digits, NaN as null."""
    plain = {name: float(f"{value:.6g}") if math.isfinite(value) else None for name, value in numbers.items()}
    write_bytes(path, (json.dumps(plain, indent=2) + "\n").encode())


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if math.isnan(value) else f"{value:.6g}" if isinstance(value, float) else str(value)
