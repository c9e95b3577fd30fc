"""Metrics and summary tables of finished stages, read back from their files; open it to change what a person sees."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from assay.errors import DataError

WIDTH = 140  # columns of a table that goes to a file or a pipe


def collect(folder: Path) -> dict[str, Any]:
    """Stage name to {"metrics": metrics.json, "summary": rows of summary.csv}, for stages that have them.

    Raises:
        DataError: no stage has written a result below `folder`.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/metrics.json")):
        found.setdefault(path.parent.name, {})["metrics"] = _metrics(path)
    for path in sorted(folder.glob("*/summary.csv")):
        found.setdefault(path.parent.name, {})["summary"] = _rows(path)
    if not found:
        raise DataError(f"{folder}: got no results; allowed: a folder with STAGE/metrics.json; run the pipeline first")
    return found


def _metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); run the stage again") from None
    if not isinstance(metrics, dict):
        raise DataError(f"{path}: got {type(metrics).__name__}; allowed: metric names to numbers; run the stage again")
    return metrics


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: not a table ({error}); run the stage again") from None


def show(found: dict[str, Any]) -> None:
    """Print one table per stage."""
    console = wide_console()
    for stage, parts in found.items():
        if "metrics" in parts:
            console.print(_metrics_table(stage, parts["metrics"]))
        if "summary" in parts:
            console.print(_summary_table(stage, parts["summary"]))


def wide_console() -> Console:
    """What tables are printed to: as wide as the terminal, or wide enough where there is none."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def _metrics_table(stage: str, metrics: dict[str, Any]) -> Table:
    table = Table(title=stage, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(escape(name), f"{value:.4g}" if isinstance(value, float) else escape(str(value)))
    return table


def _summary_table(stage: str, rows: list[dict[str, str]]) -> Table:
    table = Table(title=f"{stage}: summary", title_justify="left")
    for index, name in enumerate(rows[0] if rows else []):
        table.add_column(name, justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    return table
