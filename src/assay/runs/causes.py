"""Why an attempt ended as it did: small rules, the most specific first; open `RULES` to see or change the precedence.

A rule looks into the record first, then the log, then the scheduler's words, and returns a cause with the evidence it
saw, or None. The first that finds something wins. Nothing is guessed: what no rule explains is `unknown`.
"""

import re
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

from assay.errors import ConfigError
from assay.progress import STALLED, UNFINISHED
from assay.runs import tail
from assay.runs.case import EXCERPT, LAST_WORDS, Case
from assay.runs.record import HEARTBEAT_S, Resources, Stage
from assay.runs.resources import GPU_OOM, HOST_OOM, looks_like_oom

SILENT_S = 1800.0
LONGEST_GAPS = 3.0
"""Output of a run that nobody watched stopped for good: for longer than this time, and than so many of its earlier
longest pauses."""
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")
NO_MEMORY = re.compile(f"{HOST_OOM.pattern}|ArrayMemoryError", re.IGNORECASE)
NON_FINITE = re.compile(r"NonFiniteError|\b(?:loss|grad\w*)\b\W*(?:is |became |= ?)?(?:nan|[+-]?inf)\b", re.IGNORECASE)
MISUSE = re.compile(r"^usage: |^\S+: error: |^assay: .*(?:: got |; allowed)")
TRACEBACK = "Traceback (most recent call last)"
RAISED = re.compile(r"^(?:  \| )?(?:\w+\.)*(_?[A-Z]\w*)(?::|$)")
"""The line of the exception, also of a group."""
UNREADABLE = re.compile(r"^(SyntaxError|IndentationError|TabError): ")
"""What Python says without a traceback of a program that it cannot even start."""


KILLED_RANK = re.compile(r"^assay: rank \d+ of \d+ on \S+ was killed by (\w+)")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause and what shows it. own: the program's own fault, so that the same again would fail the same way."""

    cause: str
    evidence: list[str]
    own: bool = False


Rule = Callable[[Case], Finding | None]


def gpu_oom(case: Case) -> Finding | None:
    """The GPU's memory was full."""
    return _found("GPU OOM", _stage_says(case, GPU_OOM, "OutOfMemoryError") or case.last_words(GPU_OOM))


def host_oom(case: Case) -> Finding | None:
    """The machine's or the job's memory was full."""
    code = case.code if case.killed_by is None else -case.killed_by[0]
    recorded = looks_like_oom(code, case.attempt.resources, "")
    return _found(
        "host OOM",
        [f"{case.file}:resources: {recorded}"] if recorded else [],
        _stage_says(case, NO_MEMORY, "MemoryError"),
        case.last_words(NO_MEMORY),
        case.said("host OOM"),
    )


def stalled(case: Case) -> Finding | None:
    """The watchdog ended it."""
    stall = case.attempt.tries[-1].stall if case.attempt.tries else None
    if stall is None and case.code != STALLED:
        return None
    if stall is None:
        return Finding(cause=f"stall@unknown@{case.node}", evidence=[_code(case)])
    from assay.runs.evidence import culprit

    silence = f"no progress for {stall.silent_s:.0f} s of {stall.bound_s:.0f} s allowed in {stall.phase}"
    silence += f" on {stall.evidence['rank']}" if "rank" in stall.evidence else ""
    at = culprit(stall.evidence)
    where = f"{case.file}:tries.{len(case.attempt.tries) - 1}.stall"
    blamed = [f"{where}.evidence: {at}"] if at else []
    return Finding(cause=f"stall@{stall.phase}@{case.node}", evidence=[f"{where}: {silence}", *blamed])


def disk_full(case: Case) -> Finding | None:
    """Something could not be written for want of space."""
    return _found("disk full", _stage_says(case, DISK_FULL) or case.last_words(DISK_FULL))


def non_finite(case: Case) -> Finding | None:
    """Training diverged."""
    seen = _stage_says(case, NON_FINITE, "NonFiniteError") or case.last_words(NON_FINITE)
    return _found("NaN", seen, own=True)


def configuration(case: Case) -> Finding | None:
    """A stage, or a command that reports usage errors as is usual, refused what it was given."""
    stage = case.failed_stage
    if stage is not None and stage.code == 2 and stage.kind in (None, ConfigError.__name__):
        return Finding(cause="config", evidence=[_stage_text(case, stage)], own=True)
    return _found("config", case.last_words(MISUSE) if case.code == 2 else [], own=True)


def raised(case: Case) -> Finding | None:
    """A stage ended with an exception that it reported."""
    stage = case.failed_stage
    return Finding(cause=stage.kind, evidence=[_stage_text(case, stage)], own=True) if stage and stage.kind else None


def preempted(case: Case) -> Finding | None:
    """Another job was given the place."""
    return _found("preempted", case.said("preempted"))


def node_failure(case: Case) -> Finding | None:
    """The scheduler lost the node."""
    return _found("node failure", case.said("node failure"))


def silent(case: Case) -> Finding | None:
    """A run that nobody watched printed nothing more, long before the scheduler cut it."""
    cut = case.said("time limit", "cancelled")
    spoken = [line for line in case.lines if line.time is not None and not line.from_scheduler]
    if not (cut and spoken) or case.attempt.resources != Resources():
        return None
    times = [line.time or 0.0 for line in spoken]
    silence = (case.attempt.ended or case.attempt.heartbeat) - times[-1]
    gap = max((after - before for before, after in pairwise(times)), default=0.0)
    if silence <= max(SILENT_S, LONGEST_GAPS * gap):
        return None
    phase = tail.phase(spoken) or "unknown"
    quiet = f"{case.quote(spoken[-1])} (then nothing for {silence:.0f} s)"
    return Finding(cause=f"stall@{phase}@{case.node}", evidence=[quiet, *cut])


def time_limit(case: Case) -> Finding | None:
    """It was stopped for its deadline, or killed at it."""
    attempt, evidence = case.attempt, case.said("time limit")
    if attempt.stop is not None and attempt.stop.reason == "deadline":
        evidence = [f"{case.file}:stop: reason deadline", *evidence]
    if attempt.ended is None and attempt.deadline is not None and attempt.heartbeat >= attempt.deadline - HEARTBEAT_S:
        evidence = [f"{case.file}:heartbeat: the last one came at the deadline", *evidence]
    return _found("time limit", evidence)


def killed_rank(case: Case) -> Finding | None:
    """A signal ended one of several ranks, as whoever started them says."""
    said = [(found[1], line) for line in case.lines[-LAST_WORDS:] if (found := KILLED_RANK.search(line.text))]
    return _found(f"signal {said[-1][0]}", [case.quote(said[-1][1])]) if said else None


def signalled(case: Case) -> Finding | None:
    """A signal asked it to stop, or killed it."""
    stop = case.attempt.stop
    if stop is not None and stop.reason != "deadline":
        return Finding(cause=f"signal {stop.reason}", evidence=[f"{case.file}:stop: reason {stop.reason}"])
    if case.killed_by is None:
        return None
    number, evidence = case.killed_by
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    return Finding(cause=f"signal {name}", evidence=[evidence])


def traceback(case: Case) -> Finding | None:
    """The log ends with the traceback of an exception."""
    begun = max((index for index, line in enumerate(case.lines) if TRACEBACK in line.raw), default=len(case.lines))
    raised = [(found[1], line) for line in case.lines[begun + 1 :] if (found := RAISED.match(line.text))]
    unread = [(found[1], line) for line in case.lines[-LAST_WORDS:] if (found := UNREADABLE.match(line.text))]
    name, line = next(iter([*raised, *unread]), (None, None))
    return Finding(cause=name, evidence=[case.quote(line)], own=True) if name and line else None


def unwritten(case: Case) -> Finding | None:
    """The record itself had no room, and so no log tells more."""
    full = [text for text in case.attempt.warnings if DISK_FULL.search(text)]
    return _found("disk full", [f"{case.file}:warnings: {text}" for text in full[-1:]])


RULES: tuple[Rule, ...] = (
    gpu_oom,
    host_oom,
    stalled,
    disk_full,
    non_finite,
    configuration,
    raised,
    preempted,
    node_failure,
    silent,
    time_limit,
    killed_rank,
    signalled,
    traceback,
    unwritten,
)
"""In order of precedence: what explains another, such as the full memory behind an exception, comes before it."""
STOPPED: tuple[Rule, ...] = (preempted, node_failure, time_limit, signalled)
"""For an attempt that ended as it was asked to: only who asked is of interest."""


def find_cause(case: Case) -> Finding:
    """The first finding of the rules, or `unknown` with what there is."""
    rules = STOPPED if case.attempt.code == UNFINISHED else RULES
    found = next((finding for rule in rules if (finding := rule(case)) is not None), None)
    if found is not None:
        return found
    said = [line for line in case.lines if line.text.strip()]
    shown = [_code(case), *case.said("failed", "cancelled"), *(case.quote(line) for line in said[-1:])]
    return Finding(cause="unknown", evidence=shown, own=case.code is not None and case.code > 0)


def _found(cause: str, *evidence: Iterable[str], own: bool = False) -> Finding | None:
    seen = [line for lines in evidence for line in lines]
    return Finding(cause=cause, evidence=seen, own=own) if seen else None


def _stage_says(case: Case, pattern: re.Pattern[str], kind: str | None = None) -> list[str]:
    stage = case.failed_stage
    if stage is None or not (stage.kind == kind is not None or pattern.search(stage.error or "")):
        return []
    return [_stage_text(case, stage)]


def _stage_text(case: Case, stage: Stage) -> str:
    said = ": ".join(part for part in (stage.kind, stage.error) if part) or f"code {stage.code}"
    return f"{case.file}:stages.{len(case.attempt.stages) - 1}: {stage.stage}: {said}"[: 2 * EXCERPT]


def _code(case: Case) -> str:
    if case.code is not None:
        return f"{case.file}:code: {case.code}"
    return f"{case.file}:heartbeat: the last one came {case.now - case.attempt.heartbeat:.0f} s ago"
