"""The next step for a run that has not ended well: a command, and what to change; open it to change the advice."""

import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from assay.progress import UNFINISHED
from assay.runs.case import Case, State
from assay.runs.record import Attempt, Progress
from assay.runs.store import RunRecord, is_alive
from assay.runs.tail import saved_model, unchanged_stages

MARGIN = 1.15
"""A recommended time limit is the measured need with this factor: paces differ between nodes."""
ROUND_S = 900
MEMORY_MARGIN = 1.25
GIB = 2**30
PREPARING = frozenset({"import", "load"})
"""Phases whose pace says nothing about the rest of their stage."""
CHECKPOINT = "checkpoint"
"""The phase that leaves something to go on from."""
CHECKPOINTS = "checkpoints"
"""Where in a run's folder they are."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What an unfinished run has already: stages that ended well, a checkpoint to go on from, a usable model."""

    stages: frozenset[str]
    checkpoint: bool
    model: str | None
    """The line of the log that says so."""

    def __bool__(self) -> bool:
        return bool(self.stages or self.checkpoint or self.model)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known about an unfinished run when the advice is given. typical: stage -> usual seconds of its study."""

    case: Case
    state: State
    cause: str
    stage: str | None
    missing: list[str]
    kept: Kept
    typical: Mapping[str, float]

    @property
    def following(self) -> list[str]:
        """The stages to come after the one it is in."""
        return [stage for stage in self.missing if stage != self.stage]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a scheduler is told."""

    time: str
    avoid: str
    memory: str


OPTIONS = {
    "slurm": Options(time="--time={hours:02d}:{minutes:02d}:00", avoid="--exclude={node}", memory="--mem={gib}G"),
    "lsf": Options(time="-W {hours}:{minutes:02d}", avoid="-R \"select[hname!='{node}']\"", memory="-M {gib}GB"),
}
WORDS = Options(time="a limit of {hours} h {minutes} min", avoid="not on {node}", memory="{gib} GiB of memory")


def kept(case: Case) -> Kept:
    """What is there, by the record and the log."""
    stages = [stage for attempt in case.record.attempts for stage in attempt.stages]
    checkpointed = any(stage.code == UNFINISHED or CHECKPOINT in stage.seconds for stage in stages)
    saved = saved_model(case.lines)
    return Kept(
        stages=finished_stages(case.record) | frozenset(unchanged_stages(case.lines)),
        checkpoint=checkpointed or any((case.record.folder / CHECKPOINTS).glob("*")),
        model=case.quote(saved) if saved else None,
    )


def finished_stages(record: RunRecord) -> frozenset[str]:
    """The stages that ended with 0 in any attempt."""
    return frozenset(stage.stage for attempt in record.attempts for stage in attempt.stages if stage.code == 0)


def pace_s(case: Case, here: Progress) -> float | None:
    """Seconds for one unit of what is being counted, over all attempts, those that were repeated too."""
    if not here.done:
        return None
    others = [attempt.progress for attempt in case.record.attempts if attempt is not case.attempt]
    spent = sum(each.changed - each.since for each in [here, *others] if each is not None and _same(each, here))
    return spent / here.done if spent > 0 else None


def _same(one: Progress, other: Progress) -> bool:
    return (one.stage, one.unit, one.of) == (other.stage, other.unit, other.of)


def need_s(standing: Standing) -> float | None:
    """Seconds from a new start to the end: its own pace where it got so far, else what is usual in the study."""
    here = standing.case.progress
    pace = pace_s(standing.case, here) if here is not None and here.phase not in PREPARING else None
    if here is not None and here.of is not None and pace is not None:
        left = here.of - (here.done if standing.kept.checkpoint else 0)
        own = _start_s(standing.case.attempt, here) + left * pace
    elif standing.stage is not None and standing.stage in standing.typical:
        own = standing.typical[standing.stage]
    else:
        return None
    return own + _usual_s(standing, standing.following)


def _start_s(attempt: Attempt, here: Progress) -> float:
    """What goes by before the counting begins, and will again."""
    begun = [stage.started for stage in attempt.stages if stage.stage == here.stage]
    return max(0.0, here.since - max([attempt.started, *begun]))


def _usual_s(standing: Standing, stages: list[str]) -> float:
    return sum(standing.typical[stage] for stage in stages if stage in standing.typical)


def command(record: RunRecord) -> str:
    """The command that begins a run or goes on with it."""
    given = record.attempts[-1].command if record.attempts else record.run.command
    return f"assay exec --run {shlex.quote(str(record.folder))} -- {shlex.join(given) or 'COMMAND'}"


def advise(standing: Standing) -> str:
    """A command a shell takes as it is; what to change about the job or before it follows as a comment."""
    attempt, step = standing.case.attempt, command(standing.case.record)
    failed = standing.case.failed_stage
    if standing.cause == "config" and failed is not None and failed.study:
        return f"assay check {failed.study} {shlex.quote(str(Path(attempt.cwd) / 'params.yaml'))}  # then {step}"
    remark = REMARKS[kind](standing) if (kind := standing.cause.partition("@")[0]) in REMARKS else _other(standing)
    remarks = "; ".join(text for text in (_whether_it_runs(standing), remark) if text)
    return f"{step}  # {remarks}" if remarks else step


def _whether_it_runs(standing: Standing) -> str:
    """What to look at before a lost run is begun again, unless its end can be seen from here."""
    attempt = standing.case.attempt
    if standing.state != "lost" or is_alive(attempt.holder) is False:
        return ""
    where = f" (job {attempt.job.id})" if attempt.job else ""
    return f"first make sure that it no longer runs on {standing.case.node}{where}"


def _time(standing: Standing) -> str:
    """The limit to ask for, and what fits without the rest if there is a model already."""
    need, following = need_s(standing), standing.following
    if need is None:
        return "with a longer time limit; how much longer was never measured"
    text = f"{_limit(standing, need)} ({_duration(need)} needed)"
    unknown = [stage for stage in following if stage not in standing.typical]
    if unknown:
        text += f", and the time of {', '.join(unknown)}, never measured"
    if standing.kept.checkpoint or not standing.kept.model or not following or unknown:
        return text
    rest = _limit(standing, _usual_s(standing, following))
    return f"{text}; or with the model that is saved only {', '.join(following)}: {rest}"


def _enough(standing: Standing) -> str:
    """Whether the limit it had will do."""
    attempt, need = standing.case.attempt, need_s(standing)
    if need is None or attempt.deadline is None:
        return ""
    limit = attempt.deadline - attempt.started
    if _recommended(need) > limit:
        return f"{_limit(standing, need)} ({_duration(need)} needed)"
    return f"its limit of {_duration(limit)} is enough ({_duration(need)} needed)"


def _elsewhere(standing: Standing) -> str:
    avoid = _options(standing).avoid.format(node=standing.case.node)
    return "; ".join(text for text in (avoid, _enough(standing)) if text)


def _memory(standing: Standing) -> str:
    resources = standing.case.attempt.resources
    used = max(resources.rss_peak, resources.memory_limit or 0 if resources.oom_kills else 0)
    if not used:
        return "with more memory, or less of it used"
    asked = _options(standing).memory.format(gib=math.ceil(used * MEMORY_MARGIN / GIB))
    return f"{asked} (peak {used / GIB:.1f} GiB)"


def _gpu_memory(standing: Standing) -> str:
    peak = standing.case.attempt.resources.gpu_memory_peak
    used = f" (peak {peak / GIB:.1f} GiB)" if peak else ""
    return f"after making batch or model smaller, or on a GPU with more memory{used}"


def _room(standing: Standing) -> str:
    return f"after making room where {standing.case.record.folder} and the outputs are"


def _diverged(standing: Standing) -> str:
    return "after changing what made it diverge: learning rate, clipping, precision; the same again would too"


def _corrected(standing: Standing) -> str:
    return "after correcting what the evidence shows"


def _other(standing: Standing) -> str:
    return "" if standing.cause.startswith("signal ") else _corrected(standing)


REMARKS: dict[str, Callable[[Standing], str]] = {
    "time limit": _time,
    "stall": _elsewhere,
    "node failure": _elsewhere,
    "preempted": _enough,
    "host OOM": _memory,
    "GPU OOM": _gpu_memory,
    "disk full": _room,
    "NaN": _diverged,
    "config": _corrected,
    "unknown": lambda standing: "" if standing.state in ("lost", "cancelled") else _corrected(standing),
}
"""Cause to remark; any other cause is an exception or a signal."""


def _options(standing: Standing) -> Options:
    job = standing.case.attempt.job
    return OPTIONS[job.scheduler] if job is not None and job.scheduler in OPTIONS else WORDS


def _recommended(need: float) -> int:
    return math.ceil(need * MARGIN / ROUND_S) * ROUND_S


def _limit(standing: Standing, need: float) -> str:
    minutes = _recommended(need) // 60
    return _options(standing).time.format(hours=minutes // 60, minutes=minutes % 60)


def _duration(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
