"""What state a run is in, why, and what to do next; open it to change what a state means.

from assay.runs.diagnose import diagnose
from assay.runs.store import RunFolder

print(diagnose(RunFolder(Path("runs/asl/baseline/0")).read(), time.time()).action)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from assay.progress import UNFINISHED
from assay.runs.advice import Kept, Standing, advise, command, finished_stages, kept, pace_s
from assay.runs.case import Case, State
from assay.runs.causes import Finding, find_cause
from assay.runs.record import LOST_AFTER_S, Progress
from assay.runs.store import RunRecord, is_alive

FINAL = frozenset({"host OOM", "preempted", "node failure", "time limit", "cancelled", "failed", "complete"})
"""What a scheduler says of a job that will not come back."""
CUT = FINAL - {"cancelled", "failed", "complete"}
"""Why a scheduler itself ends a job: Slurm then calls it cancelled too."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """How far: `done` of `of` units; None where it is not known."""

    done: int | None = None
    of: int | None = None
    unit: str | None = None


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """State and cause of a run, with evidence.

    state: queued      nothing has run, or the scheduler has its next job in the queue
           running     the newest attempt has not ended and its heartbeat is fresh
           complete    the newest attempt ended with 0
           lost        the newest attempt has not ended, but its heartbeat or process has, and no scheduler says how
           cancelled   a person ended it
           partial     ended, but something is there: a stage that is complete, a checkpoint, a model
           failed      ended with nothing to keep, or by a fault of its own that comes again
    cause: None, time limit, stall@PHASE@NODE, host OOM, GPU OOM, NaN, config, an exception's type, node failure,
           preempted, disk full, signal NAME, unknown
    evidence: FILE:PLACE: EXCERPT, the file relative to the run; PLACE is a line or a key, a line below 0 counts from
              the end of a long log. missing: stages that have not ended with 0. action: a command, "" for none.
    outside: whether its surroundings ended it (disk, node, signal, ...), which says nothing about the run.
    eta_s: seconds until what is being counted is done, at its pace so far; None unless running.
    """

    study: str
    arm: str
    seed: str
    state: State
    cause: str | None = None
    stage: str | None = None
    progress: Count = field(default_factory=Count)
    attempts: int = 0
    node: str | None = None
    evidence: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    action: str = ""
    outside: bool = False
    eta_s: float | None = None


def diagnose(
    record: RunRecord,
    now: float,
    scheduler: Mapping[str, str] | None = None,
    typical: Mapping[str, float] | None = None,
) -> Diagnosis:
    """Say how a run stands at `now` (seconds since 1970), from its record, the ends of its log, the scheduler's words.

    scheduler: what it says of the run's newest job, e.g. {"State": "TIMEOUT"}; keys with state, stat or reason count.
    typical: stage to its usual seconds in this study, for recommended time limits (`status.typical_seconds`).
    """
    if not record.attempts:
        return _unbegun(record, scheduler or {})
    case = Case(record=record, attempt=record.attempts[-1], now=now, scheduler=scheduler or {})
    state = _plain_state(case)
    return _explained(case, typical or {}) if state is None else _described(case, state)


def _unbegun(record: RunRecord, scheduler: Mapping[str, str]) -> Diagnosis:
    run = record.run
    return Diagnosis(
        study=run.study,
        arm=run.arm,
        seed=run.seed,
        state="queued",
        missing=list(run.stages),
        action="" if scheduler else command(record),
    )


def _plain_state(case: Case) -> State | None:
    """A state that needs no cause; None if something went wrong."""
    attempt = case.attempt
    if attempt.code == 0:
        return "complete"
    meaning = next((word.meaning for word in case.recorded_words if word.meaning), None)
    fresh = attempt.ended is None and abs(case.now - attempt.heartbeat) <= LOST_AFTER_S  # as `is_held` has it
    alive = is_alive(attempt.holder) if fresh else False
    if alive or (alive is None and meaning not in FINAL):  # a process that is seen here outranks words of an older job
        return "running"
    if attempt.code is None and meaning == "complete":
        return "complete"
    return "queued" if meaning == "queued" else None


def _described(case: Case, state: State) -> Diagnosis:
    """A run that is well: it has no cause, and its log is not read."""
    here = case.attempt.progress
    pace = pace_s(case, here) if here is not None and state == "running" else None
    eta = None
    if here is not None and here.of is not None and pace is not None:
        eta = max(0.0, (here.of - here.done) * pace - (case.now - here.changed))
    finished = finished_stages(case.record)
    missing = [] if state == "complete" else [name for name in _stages(case) if name not in finished]
    counted = None if state == "complete" else here  # of what came last, which is not the run
    return _diagnosis(case, state, _stage(case, here, missing), counted, missing=missing, eta_s=eta)


def _explained(case: Case, typical: Mapping[str, float]) -> Diagnosis:
    """A run that has ended short of complete, or is lost."""
    finding, have = find_cause(case), kept(case)
    state = _ended_state(case, finding, have)
    missing = [name for name in _stages(case) if name not in have.stages]
    here = _furthest(case)
    stage = _stage(case, here, missing)
    standing = Standing(
        case=case, state=state, cause=finding.cause, stage=stage, missing=missing, kept=have, typical=typical
    )
    cause = None if (state, finding.cause) == ("cancelled", "unknown") else finding.cause
    evidence = [*finding.evidence, *case.said("cancelled" if state == "cancelled" else "time limit")]
    if state == "partial" and have.model:
        evidence.append(have.model)
    return _diagnosis(
        case,
        state,
        stage,
        here,
        missing=missing,
        cause=cause,
        evidence=list(dict.fromkeys(evidence)),
        action=advise(standing),
        outside=not finding.own,
    )


def _ended_state(case: Case, finding: Finding, have: Kept) -> State:
    """Of a run that is neither well nor running."""
    attempt = case.attempt
    meanings = {word.meaning for word in case.words} & FINAL
    if attempt.ended is None and not meanings:
        return "lost"
    interrupted = attempt.stop is not None and attempt.stop.reason == "SIGINT" and attempt.code != UNFINISHED
    if interrupted or ("cancelled" in meanings and not meanings & CUT):
        return "cancelled"
    return "partial" if attempt.code == UNFINISHED or (have and not finding.own) else "failed"


def _stages(case: Case) -> list[str]:
    """The stages the run has, in order: as planned, else as seen."""
    seen = [stage.stage for attempt in case.record.attempts for stage in attempt.stages]
    return case.record.run.stages or list(dict.fromkeys(seen))


def _furthest(case: Case) -> Progress | None:
    """How far the newest attempt that got anywhere came, by its record; else by the newest log."""
    recorded = [attempt.progress for attempt in case.record.attempts if attempt.progress and attempt.progress.done]
    return recorded[-1] if recorded else case.progress


def _stage(case: Case, here: Progress | None, missing: list[str]) -> str | None:
    """Where it is or ended: the stage that failed, that spoke last, that ran last; else the first that is missing."""
    if case.failed_stage is not None:
        return case.failed_stage.stage
    if here is not None and here.stage is not None:
        return here.stage
    ran = [stage.stage for stage in case.attempt.stages]
    return next(iter([*missing[:1], *reversed(ran)]), None)


def _diagnosis(case: Case, state: State, stage: str | None, here: Progress | None, **known: Any) -> Diagnosis:
    run = case.record.run
    return Diagnosis(
        study=run.study,
        arm=run.arm,
        seed=run.seed,
        state=state,
        stage=stage,
        progress=Count() if here is None else Count(done=here.done, of=here.of, unit=here.unit),
        attempts=len(case.record.attempts),
        node=case.node,
        **known,
    )
