"""What is kept about a run, as typed data; open it to read or extend the record.

    runs/<study>/<arm>/<seed>/
        run.json             Run: what was run, from which code and data, on which machine
        source.diff          what the working tree had beyond the commit
        attempts/NNNN.json   Attempt: one job's try, its heartbeat, progress, resources and end
        logs/NNNN.log        what it printed, each line with its time (UTC)
        events.jsonl         what happened, one JSON object a line, appended only

Times are seconds since 1970 (UTC), sizes bytes. Unknown keys are kept out and missing ones take the default, so that
a reader of schema 1 reads what later versions of schema 1 write; another schema is refused.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from assay.errors import DataError

SCHEMA = 1
LOST_AFTER_S = 120.0
"""A heartbeat older than this is nobody's: the run is lost, whatever a scheduler says. Eight missed beats."""
HEARTBEAT_S = 15.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that runs an attempt. start_ticks and boot_id tell it from a later process of the same number.

    pid_namespace: where the number means anything; two containers of one node may share host name and boot id.
    """

    host: str
    pid: int
    start_ticks: int
    boot_id: str
    pid_namespace: str = ""


@dataclass(frozen=True, kw_only=True)
class Job:
    """The scheduler's job an attempt runs in, with the scheduler's own words."""

    scheduler: str
    id: str
    node: str
    raw: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where an attempt is: `done` of `of` units (None: unknown) of a phase of a stage."""

    study: str | None = None
    stage: str | None = None
    phase: str | None = None
    done: int = 0
    of: int | None = None
    unit: str = "steps"
    epoch: float | None = None
    loss: float | None = None
    bytes_read: int | None = None
    since: float = 0.0
    changed: float = 0.0
    """When the phase began and when it last moved."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a phase did in an attempt, all its passes together; `seconds` are without those of phases within it."""

    passes: int = 0
    seconds: float = 0.0
    units: int = 0
    of: int | None = None
    """Units of one pass, those of earlier attempts included; None: unknown."""
    unit: str = "steps"
    epoch: float | None = None
    """Epochs at its end, those of earlier attempts included."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage that ran in an attempt. By phase: `seconds` of its newest 20 passes, and `work`, the sums of all."""

    study: str
    stage: str
    started: float
    ended: float | None = None
    code: int | None = None
    error: str | None = None
    kind: str | None = None
    seconds: dict[str, list[float]] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stall:
    """No progress for `silent_s` where `bound_s` is allowed. evidence: name -> text (stacks, wait channels, files)."""

    phase: str
    stage: str | None
    silent_s: float
    bound_s: float
    evidence: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Try:
    """One start of the command within an attempt; a second one follows a stall. code: its exit code, or -signal."""

    started: float
    ended: float | None = None
    code: int | None = None
    stall: Stall | None = None


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Why the command was asked to stop: `deadline`, or the name of a signal."""

    reason: str
    at: float


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the process tree used. Peaks are of the samples, about one a second; limits None where there are none."""

    rss: int = 0
    rss_peak: int = 0
    cpu_s: float = 0.0
    read_bytes: int = 0
    write_bytes: int = 0
    processes: int = 0
    memory_limit: int | None = None
    memory_limit_source: str | None = None
    oom_kills: int = 0
    gpu_utilisation: float | None = None
    gpu_memory: int | None = None
    gpu_memory_peak: int | None = None
    gpu_memory_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One job's try at a run. ended and code are None while it runs, or if it died without a word."""

    number: int
    holder: Holder
    command: list[str]
    started: float
    heartbeat: float
    cwd: str = ""
    job: Job | None = None
    deadline: float | None = None
    ended: float | None = None
    code: int | None = None
    stop: Stop | None = None
    tries: list[Try] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)
    progress: Progress | None = None
    resources: Resources = field(default_factory=Resources)
    warnings: list[str] = field(default_factory=list)
    schema: int = SCHEMA


@dataclass(frozen=True, kw_only=True)
class Run:
    """What was run. study, arm and seed are the last three parts of the folder's path."""

    study: str
    arm: str
    seed: str
    command: list[str] = field(default_factory=list)
    created: float = 0.0
    stages: list[str] = field(default_factory=list)
    """The stages the pipeline has, in order; empty for a plain command."""
    identity: str | None = None
    params: dict[str, Any] | None = None
    commit: str | None = None
    dirty: bool = False
    lock: str | None = None
    data: str | None = None
    image: str | None = None
    disk: dict[str, int] = field(default_factory=dict)
    """Stage -> bytes of its outputs, once the pipeline is complete; a plain command has none."""
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    schema: int = SCHEMA


def to_json(record: Any) -> dict[str, Any]:
    """A record as JSON values."""
    return dataclasses.asdict(record)


def finite(value: Any) -> Any:
    """NaN and infinity as null: JSON has no word for them, and other readers refuse Python's."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def from_json(cls: type[T], data: Any) -> T:
    """A record from JSON values: unknown keys are dropped, missing ones take the default.

    Raises:
        DataError: another schema, a missing key without a default, or a value of another shape.
    """
    shape: Any = cls
    schema = data.get("schema", SCHEMA) if isinstance(data, dict) else SCHEMA
    if schema != SCHEMA:
        raise DataError(f"schema: got {schema!r}; allowed: {SCHEMA}; read it with the assay that wrote it")
    try:
        record: T = _decoder(shape)(data)
    except _WrongShapeError as wrong:
        place = ".".join(reversed(wrong.path)) or cls.__name__
        raise DataError(f"{place}: got {wrong.given}; allowed: {wrong.allowed}; correct it or move it away") from None
    return record


class _WrongShapeError(Exception):
    """path: the keys down to the value, innermost first."""

    def __init__(self, given: str, allowed: str) -> None:
        self.path: list[str] = []
        self.given, self.allowed = given, allowed


@cache
def _decoder(hint: Any) -> Callable[[Any], Any]:
    """What turns a JSON value into a value of this type, or raises _WrongShapeError; made once for each type."""
    if hint is Any:
        return lambda value: value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record_decoder(hint)
    arguments = get_args(hint)
    if NoneType in arguments:
        inner = _decoder(arguments[0])
        return lambda value: None if value is None else inner(value)
    if get_origin(hint) is list:
        return _list_decoder(_decoder(arguments[0]))
    if get_origin(hint) is dict:
        return _dict_decoder(_decoder(arguments[1]))
    return _exactly(*((float, int) if hint is float else (hint,)))


def _exactly(*types: type) -> Callable[[Any], Any]:
    def decode(value: Any) -> Any:
        if type(value) in types:  # isinstance would take True for a number
            return value
        raise _WrongShapeError(repr(value)[:80], types[0].__name__)

    return decode


def _list_decoder(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    check = _exactly(list)
    return lambda value: [inner(item) for item in check(value)]


def _dict_decoder(inner: Callable[[Any], Any]) -> Callable[[Any], Any]:
    check = _exactly(dict)
    return lambda value: {key: inner(item) for key, item in check(value).items()}


def _record_decoder(cls: type) -> Callable[[Any], Any]:
    hints = get_type_hints(cls)
    decoders = [(name, _decoder(hint)) for name, hint in hints.items()]
    fields = dataclasses.fields(cls)
    needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    check = _exactly(dict)

    def decode(data: Any) -> Any:
        given = check(data)
        if missing := needed - given.keys():
            raise _WrongShapeError("nothing", f"the key {min(missing)}")
        values = {}
        for name, decode_value in decoders:
            if name in given:
                try:
                    values[name] = decode_value(given[name])
                except _WrongShapeError as wrong:
                    wrong.path.append(name)
                    raise
        return cls(**values)

    return decode
