"""How all runs below a folder stand: a table and what to do next; open it to change what `assay status` shows."""

import dataclasses
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from assay.errors import DataError
from assay.runs.diagnose import Count, Diagnosis, diagnose
from assay.runs.finished import Finished, Memory
from assay.runs.history import stage_tries, until_done
from assay.runs.store import RunFolder, RunRecord, find, names

COLUMNS = ("run", "state", "cause", "stage", "progress", "attempts", "node", "eta")
RICH_ROWS = 500
"""A longer table is printed plainly on a terminal too: laying it out would take seconds."""
EVIDENCE_LINES = 3


def collect(
    folder: Path, now: float | None = None, words: Mapping[Path, Mapping[str, str]] | None = None
) -> list[Diagnosis]:
    """A diagnosis of every run at or below a folder, sorted by path. words: run -> what its scheduler says of it now.

    Raises:
        DataError: there is no such folder.
    """
    memory = Memory(folder)
    read = [_read(run, memory) for run in find(folder)]
    memory.keep()
    usual = typical_seconds(found for found in read if not isinstance(found, Diagnosis))
    at, said = time.time() if now is None else now, words or {}

    def diagnosis(found: RunRecord | Finished | Diagnosis) -> Diagnosis:
        if isinstance(found, RunRecord):
            return diagnose(found, at, said.get(found.folder), usual[found.run.study])
        return found.diagnosis if isinstance(found, Finished) else found

    return [diagnosis(found) for found in read]


def _read(run: RunFolder, memory: Memory) -> RunRecord | Finished | Diagnosis:
    """The record; a damaged one must not hide the others."""
    try:
        return memory.read(run.path) or run.read()
    except DataError as error:
        study, arm, seed = names(run.path)
        evidence = [str(error).removeprefix(f"{run.path}/")]
        return Diagnosis(study=study, arm=arm, seed=seed, state="failed", cause="unknown", evidence=evidence)


def typical_seconds(records: Iterable[RunRecord | Finished]) -> Mapping[str, Mapping[str, float]]:
    """Study -> stage -> median seconds until it ended with 0, those of earlier tries, too."""
    durations: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if isinstance(record, Finished):
            for name, seconds in record.seconds.items():
                durations[record.diagnosis.study][name] += seconds
            continue
        for name, seconds in until_done(stage_tries(record.attempts)).items():
            durations[record.run.study][name] += seconds
    medians = {study: {name: median(values) for name, values in stages.items()} for study, stages in durations.items()}
    return defaultdict(dict, medians)


def as_json(diagnoses: list[Diagnosis]) -> list[dict[str, Any]]:
    """The diagnoses as JSON values."""
    return [dataclasses.asdict(diagnosis) for diagnosis in diagnoses]


def show(diagnoses: list[Diagnosis]) -> None:
    """Print the table, then each run that needs something done, with its evidence."""
    rows = [_row(diagnosis) for diagnosis in diagnoses]
    if sys.stdout.isatty() and len(rows) <= RICH_ROWS:
        _show_on_terminal(rows)
    else:
        _show_plainly([COLUMNS, *rows])
    for diagnosis in diagnoses:
        if diagnosis.action or diagnosis.evidence:
            lines = [*diagnosis.evidence[:EVIDENCE_LINES], *([f"-> {diagnosis.action}"] if diagnosis.action else [])]
            print(f"\n{_name(diagnosis)}: {_why(diagnosis)}", *(f"    {line}" for line in lines), sep="\n")


def _row(diagnosis: Diagnosis) -> tuple[str, ...]:
    return (
        _name(diagnosis),
        diagnosis.state,
        diagnosis.cause or "",
        diagnosis.stage or "",
        _progress(diagnosis.progress),
        str(diagnosis.attempts),
        diagnosis.node or "",
        "" if diagnosis.eta_s is None else _clock(diagnosis.eta_s),
    )


def _name(diagnosis: Diagnosis) -> str:
    return f"{diagnosis.study}/{diagnosis.arm}/{diagnosis.seed}"


def _why(diagnosis: Diagnosis) -> str:
    missing = f"missing {', '.join(diagnosis.missing)}" if diagnosis.missing else ""
    return "; ".join(text for text in (diagnosis.state, diagnosis.cause, missing) if text)


def _progress(count: Count) -> str:
    if count.done is None:
        return ""
    return f"{count.done} {count.unit}" if count.of is None else f"{count.done}/{count.of} {count.unit}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _show_plainly(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _show_on_terminal(rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
