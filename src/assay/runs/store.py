"""A run's folder: claim an attempt, write what happens, read it back; open it when a run is called busy or damaged.

    folder = RunFolder(Path("runs/asl/baseline/0"))
    attempt = folder.begin(attempt)     # the next number, or RunBusyError
    folder.update(attempt)              # the heartbeat, or SupersededError
    record = folder.read()

The attempts folder is the lock: a number is claimed by creating its file exclusively, which one process only can do,
on NFS too. It needs no release. A holder that died without a word is known by its process, or by its old heartbeat.
"""

import dataclasses
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from assay.errors import DataError, RunBusyError, SupersededError
from assay.files import is_blank, write_bytes
from assay.runs.atomic import READ, append, create, named
from assay.runs.processes import start_ticks
from assay.runs.record import LOST_AFTER_S, Attempt, Holder, Run, finite, from_json, to_json

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = "/proc/self/ns/pid"
ATTEMPTS = "attempts"
PARTS = "nodes"
"""Where in a run, each in a folder of its own, the supervisors of its other nodes keep theirs."""
DEPTH = 3
"""How far above and below a new run others are looked for: study, arm and seed."""

R = TypeVar("R", Attempt, Run)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """All that was recorded of a run, attempts oldest first."""

    folder: Path
    run: Run
    attempts: list[Attempt]


class RunFolder:
    """The folder of one run. Nothing is kept in memory: any process may make one, for writing or for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._attempts = path / ATTEMPTS

    def begin(self, attempt: Attempt) -> Attempt:
        """Claim the next attempt; returns it with its number.

        Raises:
            RunBusyError: the newest attempt has not ended and its holder may be alive.
            DataError: the folder cannot be read or written, or is new and would hide other runs, or be hidden.
        """
        while True:
            newest = max(self._numbers(), default=0)
            if newest:
                self._refuse_if_held(newest)
            else:
                self._refuse_among_others()
            claimed = dataclasses.replace(attempt, number=newest + 1)
            if create(self._attempt(claimed.number), _encode(claimed)):
                return claimed

    def update(self, attempt: Attempt) -> None:
        """Replace what is recorded of an attempt, in one step.

        Raises:
            SupersededError: a newer attempt has begun, or one in this one's place after the folder was removed.
            DataError: the folder cannot be written; the older record stands.
        """
        newest = max(self._numbers(), default=0)
        if newest > attempt.number:
            raise SupersededError(
                f"{self.path}: attempt {attempt.number} was taken for dead and attempt {newest} has begun; end this one"
            )
        if newest and self._is_anothers(newest, attempt):
            raise SupersededError(
                f"{self.path}: the record of attempt {attempt.number} was removed and another has begun; end this one"
            )
        write_bytes(self._attempt(attempt.number), _encode(attempt))

    @property
    def has_run(self) -> bool:
        """Whether run.json says anything.

        Raises:
            DataError: it cannot be read.
        """
        return not is_blank(self._run_content())

    def write_run(self, run: Run, durable: bool = True) -> None:
        """Replace run.json in one step. durable: so that it survives a power failure."""
        write_bytes(self._run_file, _encode(run), durable)

    def event(self, kind: str, **facts: Any) -> None:
        """Append one line to events.jsonl; `time` (s since 1970) is now unless it is among the facts."""
        line = json.dumps(finite({"time": time.time(), "kind": kind, **facts}), allow_nan=False)
        append(self.path / "events.jsonl", line.encode() + b"\n")

    def events(self) -> Iterator[dict[str, Any]]:
        """The events, oldest first; a line that a crash tore is left out."""
        try:
            lines = (self.path / "events.jsonl").read_bytes().splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            with suppress(ValueError):
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event

    def log(self, number: int) -> Path:
        """Where an attempt's output is."""
        return self.path / "logs" / f"{number:04d}.log"

    def append_log(self, number: int, text: str) -> None:
        """Append to an attempt's log, all of it or nothing."""
        append(self.log(number), text.encode(errors="backslashreplace"))

    def read(self) -> RunRecord:
        """What is recorded; the run's names are those of its folder, which may have been moved.

        Raises:
            DataError: a file is damaged, cannot be read, or is of another schema; it is named.
        """
        place: dict[str, Any] = dict(zip(("study", "arm", "seed"), names(self.path), strict=True))
        content = self._run_content()
        known = Run(**place) if is_blank(content) else _decoded(Run, self._run_file, content)
        run = dataclasses.replace(known, **place)
        attempts = [_read(Attempt, self._attempt(number)) for number in sorted(self._numbers())]
        return RunRecord(folder=self.path, run=run, attempts=attempts)

    @property
    def _run_file(self) -> Path:
        return self.path / "run.json"

    def _run_content(self) -> bytes:
        with named(self._run_file, READ):
            return self._run_file.read_bytes() if os.path.lexists(self._run_file) else b""

    def _attempt(self, number: int) -> Path:
        return self._attempts / f"{number:04d}.json"

    def _numbers(self) -> list[int]:
        entries: list[str] = []
        with named(self._attempts, READ), suppress(FileNotFoundError):
            if self.path.is_file():
                raise DataError(f"{self.path}: got a file; allowed: a run's folder; give one, e.g. runs/asl/baseline/0")
            entries = os.listdir(self._attempts)
        stems = [entry.removesuffix(".json") for entry in entries if entry.endswith(".json")]
        return [int(stem) for stem in stems if stem.isdecimal()]

    def _is_anothers(self, number: int, attempt: Attempt) -> bool:
        """Whether a record is that of a process which has begun anew; one that cannot be read is written over."""
        with suppress(DataError):
            found = _read(Attempt, self._attempt(number))
            here = number == attempt.number
            return found.holder != attempt.holder and (here or is_held(found, time.time()))
        return False

    def _refuse_among_others(self) -> None:
        """Runs are looked for from above, and not within one (`find`), where its own nodes keep theirs."""
        here = self.path.absolute()
        own = here.parent.parent if here.parent.name == PARTS else None
        with named(self.path, READ):
            above = (each for each in here.parents[:DEPTH] if each != own and (each / ATTEMPTS).is_dir())
            below = (each.parent for depth in range(1, DEPTH + 1) for each in here.glob("*/" * depth + ATTEMPTS))
            other = next(above, None) or next(below, None)
        if other is not None:
            place = "within" if other in here.parents else "around"
            raise DataError(
                f"{self.path}: got a folder {place} another run, {other}; allowed: one where no run is above or below; "
                "choose another, e.g. runs/asl/baseline/0"
            )

    def _refuse_if_held(self, number: int) -> None:
        path = self._attempt(number)
        advice = "allowed: one attempt at a time; wait for its end or stop it, then give the command again"
        try:
            attempt = _read(Attempt, path)
        except DataError as error:  # being created without links, or damaged: its age is all there is
            silent = time.time() - path.lstat().st_mtime
            if abs(silent) <= LOST_AFTER_S:
                raise RunBusyError(f"{error}; it was written {silent:.0f} s ago; {advice}") from None
            return
        if is_held(attempt, time.time()):
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(attempt.started))
            holder = f"process {attempt.holder.pid} on {attempt.holder.host}"
            raise RunBusyError(f"{self.path}: attempt {number} runs since {since} as {holder}; {advice}")


def find(folder: Path) -> Iterator[RunFolder]:
    """Every run at or below a folder, sorted, seeds by number; hidden folders, and links that lead up, are not entered.

    One below that cannot be listed counts as a run: reading it says why. Raises DataError if this one cannot.
    """
    try:
        with os.scandir(folder) as entries:
            found = {entry.name: _is_below(entry) for entry in entries}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); give a folder of runs") from None
    if found.get(ATTEMPTS) or found.get("run.json") is False:
        yield RunFolder(folder)
        return
    below = (name for name, is_folder in found.items() if is_folder and not name.startswith("."))
    for name in sorted(below, key=lambda name: name.zfill(20) if name.isdecimal() else name):
        try:
            yield from find(folder / name)
        except DataError:
            yield RunFolder(folder / name)


def _is_below(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder; a link is none if it leads to a folder that it lies in, by its own path or another."""
    if not entry.is_symlink():
        return entry.is_dir()
    path = Path(os.path.abspath(entry.path))
    above = {*path.parents, *path.parent.resolve().parents}
    return os.path.isdir(path) and not any(os.path.samefile(path, one) for one in above)


def names(folder: Path) -> tuple[str, str, str]:
    """Study, arm and seed: the last three parts of a run's path, empty where there are fewer."""
    parts = ["", "", "", *Path(os.path.abspath(folder)).parts[1:]]
    return parts[-3], parts[-2], parts[-1]


def this_process() -> Holder:
    """The calling process, as the holder of an attempt."""
    return Holder(
        host=socket.gethostname(),
        pid=os.getpid(),
        start_ticks=start_ticks(os.getpid()) or 0,
        boot_id=BOOT_ID.read_text().strip(),
        pid_namespace=os.readlink(PID_NAMESPACE),
    )


def is_alive(holder: Holder) -> bool | None:
    """Whether a holder still runs; None: it cannot be seen from here (another host, boot or pid namespace)."""
    if holder.host != socket.gethostname() or holder.boot_id != BOOT_ID.read_text().strip():
        return None
    if holder.pid_namespace not in ("", os.readlink(PID_NAMESPACE)):
        return None
    return start_ticks(holder.pid) == holder.start_ticks


def is_held(attempt: Attempt, now: float) -> bool:
    """Whether an attempt keeps others from beginning: it has not ended, and its holder may be alive."""
    if attempt.ended is not None:
        return False
    alive = is_alive(attempt.holder)
    recent = abs(now - attempt.heartbeat) <= LOST_AFTER_S  # far in the future is as stale: a clock was wrong
    return recent if alive is None else alive


def _encode(record: Attempt | Run) -> bytes:
    return (json.dumps(finite(to_json(record)), indent=1, allow_nan=False) + "\n").encode()


def _read(cls: type[R], path: Path) -> R:
    with named(path, READ):
        content = path.read_bytes()
    return _decoded(cls, path, content)


def _decoded(cls: type[R], path: Path, content: bytes) -> R:
    try:
        return from_json(cls, json.loads(content))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}); restore it or move it away") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
