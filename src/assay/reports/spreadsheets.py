"""arms.csv, runs.csv, summary.csv and leaderboard.csv; open it to add a column.

Numbers are as precise as they are known; `runs` and `run` say, relative to the file, which folder a row comes from.
"""

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.files import write_bytes
from assay.matrix.cells import CellResult
from assay.matrix.verdicts.replicates import replicates
from assay.reports.details import shown
from assay.reports.gather import Report
from assay.reports.summary import ArmSummary, ranked

LEADERBOARD = [
    "study", "metric", "direction", "rank", "arm", "mean", "low", "high", "n", "seeds", "state", "failed", "runs",
]  # fmt: skip
BEST = 10
"""Arms of each study and metric in the leaderboard."""


def write_arms(path: Path, report: Report) -> None:
    """One row per arm: state, every metric with its interval and paired difference, cost."""
    names = _metric_names(report)
    head = ["arm", "state", "complete", "ended_short", "seeds", "reason", "differences", "wall_s", "gpu_s", "rss_peak"]
    for name in names:
        head += [name, f"{name}:low", f"{name}:high", f"{name}:n", f"{name}:failed", f"{name}:difference"]
        head += [f"{name}:difference_low", f"{name}:difference_high"]
    rows = [_arm_row(path, report, arm, names) for arm in report.summaries.values()]
    _write(path, [*head, "runs"], rows)


def _arm_row(path: Path, report: Report, arm: ArmSummary, names: Sequence[str]) -> list[Any]:
    planned = report.arms[arm.arm]
    differences = "; ".join(f"{key}={shown(value)}" for key, value in planned.differences.items())
    row: list[Any] = [arm.arm, arm.state, arm.complete, arm.ended_short, len(arm.cells), planned.reason, differences]
    row += [arm.wall_s, arm.gpu_s, arm.rss_peak]
    for name in names:
        found, gap = arm.metrics.get(name), arm.differences.get(name)
        row += [found.mean, found.low, found.high, found.n] if found else [None] * 4
        row.append(_failed(arm, name))
        row += [gap.mean, gap.low, gap.high] if gap else [None] * 3
    return [*row, relative(report.runs / arm.arm, path)]


def _failed(arm: ArmSummary, metric: str) -> int:
    """Seeds that count as the worst in this metric, as verdicts have it."""
    return len(replicates(arm.cells, arm.arm, metric).failed)


def write_runs(path: Path, report: Report) -> None:
    """One row per arm x seed: state, cause, every metric, stage seconds, cost, where it ran and from which commit."""
    names = _metric_names(report)
    stages = list(dict.fromkeys(stage for cell in report.cells for stage in cell.seconds))
    head = ["arm", "seed", "state", "cause", "action", "attempts", "wall_s", "gpu_s", "rss_peak", "node"]
    head += ["identity", "commit", *(f"seconds:{stage}" for stage in stages), *names, "run"]
    rows = [_run_row(path, cell, stages, names) for cell in report.cells]
    _write(path, head, rows)


def _run_row(path: Path, cell: CellResult, stages: Sequence[str], names: Sequence[str]) -> list[Any]:
    row: list[Any] = [cell.arm, cell.seed, cell.state, cell.cause, cell.action, cell.attempts, cell.wall_s, cell.gpu_s]
    row += [cell.rss_peak, cell.node, cell.identity, cell.commit, *map(cell.seconds.get, stages)]
    return [*row, *map(cell.metrics.get, names), relative(cell.folder, path)]


def write_summary(path: Path, report: Report) -> None:
    """One row per run that has a record: what is swept, as that run recorded it, then every metric; best first.

    Sorted by the first metric of the study file. Runs without it come last, and their state says why.
    """
    names = _metric_names(report)
    swept = list(dict.fromkeys(key for arm in report.arms.values() for key in arm.differences))
    cells = sorted((cell for cell in report.cells if cell.params is not None), key=_by_metric(report))
    rows = [
        [
            *(_plain(_parameter(cell.params, key)) for key in swept),
            cell.seed,
            *map(cell.metrics.get, names),
            *(cell.state, cell.cause, cell.arm, relative(cell.folder, path)),
        ]
        for cell in cells
    ]
    _write(path, [*swept, "seed", *names, "state", "cause", "arm", "run"], rows)


def _by_metric(report: Report) -> Callable[[CellResult], tuple[bool, float]]:
    """Sorts the best run first, and those without a finite first metric last."""
    first = report.metrics[0] if report.metrics else None
    sign = -1.0 if first is not None and first.direction == "max" else 1.0

    def key(cell: CellResult) -> tuple[bool, float]:
        value = cell.metrics.get(first.name, math.nan) if first is not None else math.nan
        return (not math.isfinite(value), sign * value if math.isfinite(value) else 0.0)

    return key


def _parameter(params: Any, key: str) -> Any:
    """The value at a dotted key; None where the run had no such section."""
    for part in key.split("."):
        params = params.get(part) if isinstance(params, dict) else None
    return params


def _plain(value: Any) -> Any:
    """A cell of a table: numbers and words as they are, lists as JSON."""
    return value if value is None or isinstance(value, str | int | float) else shown(value)


def write_leaderboard(path: Path, report: Report) -> None:
    """Replace the rows of this study, keep those of others; ranks are within a study and a metric.

    Raises:
        DataError: the file that is there is no leaderboard.
    """
    others = [row for row in _read_leaderboard(path) if row["study"] != report.config.name]
    rows = [*([row[column] for column in LEADERBOARD] for row in others), *_leaders(path, report)]
    _write(path, LEADERBOARD, sorted(rows, key=lambda row: (row[0], row[1], int(row[3]))))


def _leaders(path: Path, report: Report) -> Iterable[list[Any]]:
    for metric in report.metrics:
        best = ranked(report.summaries.values(), metric.name, metric.direction)[:BEST]
        for rank, arm in enumerate(best, start=1):
            found = arm.metrics[metric.name]
            numbers = [found.mean, found.low, found.high, found.n, found.planned]
            place = relative(report.runs / arm.arm, path)
            yield [
                report.config.name, metric.name, metric.direction, rank, arm.arm, *numbers, arm.state,
                _failed(arm, metric.name), place,
            ]  # fmt: skip


def _read_leaderboard(path: Path) -> Sequence[Mapping[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); move it away and report again") from None
    if reader.fieldnames != LEADERBOARD or not all(str(row["rank"]).isdecimal() for row in rows):
        raise DataError(f"{path}: not a leaderboard; allowed: one that assay wrote; move it away and report again")
    return rows


def _metric_names(report: Report) -> list[str]:
    """Those of the study file first, then the others that a run has."""
    found = dict.fromkeys(name for cell in report.cells for name in cell.metrics)
    declared = [each.name for each in report.metrics]
    return [*declared, *sorted(name for name in found if name not in declared)]


def relative(folder: Path, file: Path) -> str:
    """A folder as a link from a file, with slashes."""
    return Path(os.path.relpath(folder, file.parent)).as_posix()


def _write(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())
