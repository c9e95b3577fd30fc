"""Hypotheses frozen at the first submit, and every later change with its date; open it to see what counts as a change.

`registered.json` beside a study's runs is a chain: the hash of each entry covers its content and the hash before it, so
that an edited entry, or one missing from within, is found. It guards against forgetting, not against somebody who
rewrites the whole file.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.files import write_bytes
from assay.matrix.arms import Resolved
from assay.matrix.cells import METRICS, recordable
from assay.matrix.submission import REGISTERED, taken_over

UNREGISTERED = "not registered"
"""In the place of a time."""
ARMS = "arms"
"""The rule that says what each compared arm is."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The hypotheses as they were at one moment."""

    time: str
    """UTC, ISO 8601."""
    hypotheses: Mapping[str, Mapping[str, Any]]
    rules: Mapping[str, Any]
    """What else a verdict depends on: metrics, correction, seeds, and under ARMS what each arm is."""
    results: int
    """Runs that had left results by then, those that DVC had queued aside: they are no arm's."""
    changes: tuple[str, ...]
    """What differs from the entry before, in words; empty for the first."""
    previous: str
    """Hash of the entry before; empty for the first."""
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Registration:
    """The registration and its amendments, oldest first."""

    entries: tuple[Entry, ...]

    def describe(self) -> str:
        """In words, for the top of a report: one line for the registration and one for each amendment."""
        first, *later = self.entries
        line = f"registered {first.time}{_when(first, 'after')}, sha256 {first.sha256[:12]}"
        lines = [line if later else f"{line}, not changed since"]
        for entry in later:
            when = "amended after data" if entry.results else "amended before data"
            lines.append(f"{when}, {entry.time}{_when(entry, 'with')}: {'; '.join(entry.changes)}")
        return "\n".join(lines)

    def edited(self, study: Resolved, folder: Path) -> "Registration | None":
        """With what the study file now says instead as a last entry, which is not registered; None if it says the same.

        folder: runs/<study name>.
        """
        entry = _next(folder, self.entries, _plain(study.config.hypotheses), _plain(rules_of(study)))
        return Registration(entries=(*self.entries, replace(entry, time=UNREGISTERED))) if entry.changes else None

    def amended(self, hypothesis: str) -> str | None:
        """What was changed after data of what this hypothesis's verdict depends on; None if nothing."""
        found = [
            f"{change} ({entry.time})"
            for before, entry in pairwise(self.entries)
            if entry.results
            for change in entry.changes
            if _concerns(change, hypothesis, (before, entry))
        ]
        late = self.entries[0].results and hypothesis in self.entries[0].hypotheses
        return "; ".join(found) or (f"registered after data ({self.entries[0].time})" if late else None)


def _concerns(change: str, hypothesis: str, around: Sequence[Entry]) -> bool:
    """Whether a verdict may turn on a change: Holm's correction depends on the other hypotheses, too."""
    given = [entry.hypotheses.get(hypothesis, {}) for entry in around]
    if _begins(change, [f"rules.{ARMS}"]):
        named = {each.get(side) for each in given for side in ("arm", "versus")}
        return _begins(change, [f"rules.{ARMS}.{arm}" for arm in named])
    if _begins(change, [hypothesis, "rules"]):
        return True
    claims = [f"{name}.claim" for entry in around for name in entry.hypotheses]
    return any(entry.rules.get("correction") == "holm" for entry in around) and not _begins(change, claims)


def _begins(change: str, names: Sequence[str]) -> bool:
    """Whether what has changed is one of these, or part of one."""
    return change.startswith(tuple(f"{name}{end}" for name in names for end in (".", " ")))


def _when(entry: Entry, word: str) -> str:
    return f" {word} results of {entry.results} run{'' if entry.results == 1 else 's'}" if entry.results else ""


def rules_of(resolved: Resolved) -> dict[str, Any]:
    """What the verdicts of a study depend on beside its hypotheses; the first metric is held against the controls."""
    study = resolved.config
    return {
        "metrics": study.metrics,
        "correction": study.correction,
        "seeds": list(study.seeds),
        "controls": study.controls,
        "first_metric": next(iter(study.metrics), None),
        "baseline": study.baseline,
        ARMS: recordable(resolved.compared),
    }


def register(folder: Path, hypotheses: Mapping[str, Any], rules: Mapping[str, Any] | None = None) -> Registration:
    """Freeze the hypotheses of a study, or note what has changed since; the same ones again change nothing.

    folder: runs/<study name>. hypotheses, rules: dataclasses, or what JSON can say.

    Raises:
        DataError: the registration there is damaged or was edited.
    """
    found = read_registration(folder)
    given, others = _plain(hypotheses), _plain(rules or {})
    entry = _next(folder, found.entries if found else (), given, others)
    if found and not entry.changes:
        return found
    entries = (*(found.entries if found else ()), entry)
    text = json.dumps({"entries": [dataclasses.asdict(entry) for entry in entries]}, indent=1)
    write_bytes(folder / REGISTERED, text.encode())
    return Registration(entries=entries)


def _next(folder: Path, before: Sequence[Entry], hypotheses: Mapping[str, Any], rules: Mapping[str, Any]) -> Entry:
    """The entry that would follow now."""
    last = before[-1] if before else None
    changes = _changes("", last.hypotheses, hypotheses) + _changes("rules.", last.rules, rules) if last else []
    content: dict[str, Any] = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "hypotheses": hypotheses,
        "rules": rules,
        "results": len({path.parent for path in folder.glob(f"*/*/{METRICS}")} - {*taken_over(folder)}),
        "changes": tuple(changes),
        "previous": last.sha256 if last else "",
    }
    return Entry(**content, sha256=_hash(content))


def read_registration(folder: Path) -> Registration | None:
    """The registration below runs/<study name>; None before the first submit.

    Raises:
        DataError: it is damaged or was edited.
    """
    path = folder / REGISTERED
    try:
        raw = json.loads(path.read_text())["entries"]
        entries = tuple(Entry(**{**each, "changes": tuple(each["changes"])}) for each in raw)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a registration ({error}); restore the file from a copy") from None
    previous = ""
    for number, entry in enumerate(entries):
        content = {key: value for key, value in dataclasses.asdict(entry).items() if key != "sha256"}
        if entry.sha256 != _hash(content) or entry.previous != previous:
            raise DataError(f"{path}: entry {number} does not match its hash, so it was edited; restore it from a copy")
        previous = entry.sha256
    if not entries:
        raise DataError(f"{path}: not a registration (no entries); restore the file from a copy")
    return Registration(entries=entries)


def _hash(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that what is compared is what was written."""
    return json.loads(json.dumps(value, default=dataclasses.asdict))


def _changes(place: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Every leaf that differs, as `H1.margin 0.05 -> 0.1`."""
    found: list[str] = []
    for key in {**old, **new}:
        name = f"{place}{key}"
        if key not in old:
            found.append(f"{name} added")
        elif key not in new:
            found.append(f"{name} removed")
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            found += _changes(f"{name}.", old[key], new[key])
        elif old[key] != new[key]:
            found.append(f"{name} {json.dumps(old[key])} -> {json.dumps(new[key])}")
    return found
