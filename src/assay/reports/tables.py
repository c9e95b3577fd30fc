"""Metrics and summary tables of finished stages, read back from their files; open it to change what a person sees."""

import csv
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from assay.errors import DataError


def collect(folder: Path) -> dict[str, Any]:
    """Stage name to {"metrics": metrics.json, "summary": rows of summary.csv}, for stages that have them.

    Raises:
        DataError: no stage has written a result below `folder`.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/metrics.json")):
        found.setdefault(path.parent.name, {})["metrics"] = json.loads(path.read_text())
    for path in sorted(folder.glob("*/summary.csv")):
        with path.open(newline="") as file:
            found.setdefault(path.parent.name, {})["summary"] = list(csv.DictReader(file))
    if not found:
        raise DataError(f"{folder}: got no results; allowed: a folder with STAGE/metrics.json; run the pipeline first")
    return found


def show(found: dict[str, Any]) -> None:
    """Print one table per stage."""
    console = Console()
    for stage, parts in found.items():
        if "metrics" in parts:
            console.print(_metrics_table(stage, parts["metrics"]))
        if "summary" in parts:
            console.print(_summary_table(stage, parts["summary"]))


def _metrics_table(stage: str, metrics: dict[str, Any]) -> Table:
    table = Table(title=stage, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    return table


def _summary_table(stage: str, rows: list[dict[str, str]]) -> Table:
    table = Table(title=f"{stage}: summary", title_justify="left")
    for index, name in enumerate(rows[0] if rows else []):
        table.add_column(name, justify="left" if index == 0 else "right")
    for row in rows:
        table.add_row(*row.values())
    return table
