"""The supervisor's memory of its attempt, and the way it reaches the run's folder; open it to change what is recorded.

The folder's file system may hang or be full, so a scribe does the writing. What it cannot write now it writes later.
"""

import contextlib
import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

from assay.errors import AssayError, DataError, RunBusyError, SupersededError
from assay.runs.checkpoints import drop_complete
from assay.runs.disk import output_bytes
from assay.runs.dvc_lock import drop_dead_lock
from assay.runs.history import known_seconds
from assay.runs.masking import masked_facts
from assay.runs.output import shown, stamped
from assay.runs.record import HEARTBEAT_S, Attempt, Stage, from_json, to_json
from assay.runs.scribe import Scribe
from assay.runs.store import RunFolder

CHECKPOINTS = "checkpoints"
"""Where in a run's folder the stages keep theirs."""
BEGIN_WITHIN_S = 60.0
"""How long the run's folder may take to answer before the command has even started."""
END_WITHIN_S = 10.0
"""How long the last words may take to reach the run's folder."""
LAST_CHANCE_S = 0.1
"""The same where the deadline has come."""
UPDATE_EVERY_S = 1.0
RETRY_S = 0.5
ECHO_WITHIN_S = 2.0
DROPPED = "log: {} lines dropped, the folder is too slow"
HELD_LOG = 2**20
"""Characters of the log kept for a file system that is full."""


class FolderHangsError(AssayError):
    """The run's folder does not answer: its file system hangs. The same run may do well on another node."""

    exit_code = 76


class Journal:
    """One attempt: `attempt` is what is known; `write` sends it to the folder, `line` what the command printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scribe = Scribe(_Recorder(folder))
        self.echo = Scribe(_echo, 1, 2)
        self.processes = {self.scribe.pid, self.echo.pid}
        self.known: dict[str, float] = {}
        self.superseded = False
        self.failing = False
        self.troubles: set[str] = set()
        self._written = 0.0
        self._unanswered = False
        self._told_dropped = 0
        self.attempt: Attempt

    def begin(self, attempt: Attempt) -> None:
        """Claim the next attempt of the run.

        Raises:
            RunBusyError: another attempt is running.
            DataError: the folder cannot be read or written.
            FolderHangsError: the folder's file system does not answer.
            AssayError: the process that writes was killed.
        """
        self.scribe.send({"op": "begin", "attempt": to_json(attempt)})
        answer = next(iter(self.scribe.drain(BEGIN_WITHIN_S)), None)
        if answer is not None and "number" in answer:
            self.attempt = dataclasses.replace(attempt, number=answer["number"])
            self.known = answer["known"]
            return
        self.close()
        if answer is not None:
            raise RunBusyError(answer["refused"]) if "refused" in answer else DataError(answer["trouble"])
        if self.scribe.dead:
            raise AssayError(f"{self.folder}: the process that writes there was killed; run it again")
        raise FolderHangsError(f"{self.folder}: no answer in {BEGIN_WITHIN_S:.0f} s; run on another node")

    def change(self, **changes: Any) -> None:
        """Note something about the attempt; it reaches the folder with the next `write`."""
        self.attempt = dataclasses.replace(self.attempt, **changes)

    def write(self, now: float, at_once: bool = False) -> None:
        """Send the attempt to the folder: as a heartbeat, or at once, but never faster than it takes it."""
        age = now - self._written
        if not self._unanswered and age > (UPDATE_EVERY_S if at_once else HEARTBEAT_S):
            self._written = now
            self._send_attempt()

    def event(self, kind: str, **facts: Any) -> None:
        """Append to events.jsonl."""
        self.scribe.send({"op": "event", "kind": kind, "facts": facts})

    def line(self, text: str, stream: int) -> None:
        """Pass on a line, 1 to standard output or 2 to standard error, and keep it in the log."""
        at = time.time()
        self.echo.add({"stream": stream}, shown(text, at))
        self.scribe.add({"op": "log", "number": self.attempt.number}, stamped(text, at))

    def tell(self, text: str) -> None:
        """A line of the supervisor's own that the log does not keep, for a log's last words are evidence."""
        self.echo.add({"stream": 2}, shown(f"assay: {text}", time.time()))

    def say(self, text: str) -> None:
        """A line of the supervisor's own."""
        self.line(f"assay: {text}", 2)

    def pump(self) -> None:
        """Move what is queued and hear what became of it."""
        for scribe in (self.scribe, self.echo):
            scribe.pump()
        self.echo.answers()
        self._take(self.scribe.answers())

    def end(self, code: int, until: float = math.inf) -> None:
        """Record the end, as long as the folder takes to have room and answer; `until` is a monotonic time."""
        self.change(ended=time.time(), code=code)
        self.event("end", code=code)
        if code == 0:
            self.scribe.send({"op": "complete"})
        limit = min(time.monotonic() + END_WITHIN_S, max(until, time.monotonic() + LAST_CHANCE_S))
        self.failing = True
        while self.failing and time.monotonic() < limit:
            self.failing = False
            self._send_attempt()
            self._take(self.scribe.drain(limit - time.monotonic()))
            self.failing |= self.scribe.busy()
            time.sleep(max(0.0, min(RETRY_S, limit - time.monotonic())) if self.failing else 0)
        if self.failing and not self.scribe.dead:
            self.say(f"{self.folder}: no answer, or no room; the end of the record is missing")
        self.close(max(LAST_CHANCE_S, min(ECHO_WITHIN_S, until - time.monotonic())))

    def close(self, within_s: float = ECHO_WITHIN_S) -> None:
        """Let the scribes end."""
        self.echo.drain(within_s)
        self.scribe.close()
        self.echo.close()

    def _send_attempt(self) -> None:
        self._unanswered = True
        self.change(heartbeat=time.time(), stages=[_fit(stage) for stage in self.attempt.stages])
        self.scribe.send({"op": "attempt", "attempt": to_json(self.attempt)})

    def _take(self, answers: list[dict[str, Any]]) -> None:
        for answer in answers:
            self._unanswered &= answer["op"] != "attempt"
            self.superseded |= "superseded" in answer
            if "trouble" in answer:
                self.failing = True
                self._warn(answer["trouble"])
        if self.scribe.dead:
            self._warn(f"{self.folder}: the process that writes the record was killed; NOTHING IS RECORDED ANY MORE")
        elif self.scribe.dropped:
            self._tell_dropped()

    def _warn(self, trouble: str) -> None:
        """Once, to whoever reads the output; the log may be what is in trouble."""
        if trouble not in self.troubles:
            self.troubles.add(trouble)
            self.echo.add({"stream": 2}, shown(f"assay: {trouble}", time.time()))
            self.change(warnings=[*self.attempt.warnings, trouble])

    def _tell_dropped(self) -> None:
        """In the log at the gap; in the attempt the sum of all gaps."""
        new = self.scribe.dropped - self._told_dropped
        if new and not self.scribe.full:
            self._told_dropped = self.scribe.dropped
            self.say(DROPPED.format(new))
        others = [line for line in self.attempt.warnings if not line.startswith(DROPPED.partition("{")[0])]
        self.change(warnings=[*others, DROPPED.format(self.scribe.dropped)])


class _Recorder:
    """What the scribe does with each message; runs in the scribe's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = RunFolder(folder)
        self.held = ""

    def __call__(self, message: dict[str, Any]) -> dict[str, Any]:
        return {"op": message["op"], **self._answer(message)}

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            return self._do(message)
        except RunBusyError as error:
            return {"refused": str(error)}
        except SupersededError as error:
            return {"superseded": str(error)}
        except DataError as error:
            return {"trouble": str(error)}
        except OSError as error:
            return {"trouble": f"{error.filename}: {error.strerror}; the record is incomplete until there is room"}

    def _do(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["op"]:
            case "begin":
                attempt = self.folder.begin(from_json(Attempt, message["attempt"]))
                return {"number": attempt.number, "known": self._known(attempt.number)}
            case "attempt":
                attempt = from_json(Attempt, message["attempt"])
                self.folder.update(attempt)
                self._identify(attempt)
            case "event":
                self.folder.event(message["kind"], **message["facts"])
            case "complete":  # what is complete needs no checkpoints
                drop_complete(self.folder.path / CHECKPOINTS)
                self._measure()
            case "log":
                self.held = (self.held + message["text"])[-HELD_LOG:]
                self.folder.append_log(message["number"], self.held)
                self.held = ""
        return {}

    def _identify(self, attempt: Attempt) -> None:
        """A stage knows the run's identity only once it has read its parameters and data: into run.json, then."""
        told = [stage.facts["identity"] for stage in attempt.stages if "identity" in stage.facts]
        if told and (self.folder.path / "run.json").exists():
            run = self.folder.read().run
            if run.identity != str(told[-1]):
                self.folder.write_run(dataclasses.replace(run, identity=str(told[-1])))

    def _measure(self) -> None:
        """What the pipeline has left, which runs in this process's folder, into run.json."""
        if (self.folder.path / "run.json").exists():
            run = self.folder.read().run
            if run.stages and (disk := output_bytes(Path.cwd())):
                self.folder.write_run(dataclasses.replace(run, disk=disk))

    def _known(self, number: int) -> dict[str, float]:
        """How long things took; other runs' damage must not keep this one from starting.

        What a killed DVC has left locked is dropped if it can be an earlier attempt's: DVC notes no host.
        """
        with contextlib.suppress(OSError, AssayError):
            if number > 1:
                drop_dead_lock(Path.cwd())
            return known_seconds(self.folder.path)
        return {}


def _fit(stage: Stage) -> Stage:
    """As it may be recorded: without secrets, and with durations that can be read back."""
    seconds = {phase: [value for value in values if math.isfinite(value)] for phase, values in stage.seconds.items()}
    told = masked_facts({"facts": stage.facts, "error": stage.error})
    return dataclasses.replace(stage, **told, seconds=seconds)


def _echo(message: dict[str, Any]) -> dict[str, Any]:
    with contextlib.suppress(OSError):  # whoever read our output may have gone; the log has it
        text = message["text"].encode(errors="backslashreplace")  # a path may be of bytes that are no text
        while text:
            text = text[os.write(message["stream"], text) :]
    return {}
