"""One attempt and all that is known about how it ended; open it to let a diagnosis look at something new."""

import re
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from assay.progress import PEER_LOST, STALLED, UNFINISHED
from assay.runs import tail
from assay.runs.guardian import ORPHANED
from assay.runs.record import Attempt, Progress, Stage
from assay.runs.store import RunRecord
from assay.runs.tail import Line

State = Literal["queued", "running", "complete", "lost", "cancelled", "partial", "failed", "changed", "missing"]
"""How a run stands (`diagnose` says what each means); what has `changed` or is `missing` only its study knows."""
EXCERPT = 240
"""Characters of a line shown as evidence."""
FATAL = (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
LAST_WORDS = 40
"""In so many last lines of a log a message is taken for the reason of the end."""
STATE_KEYS = re.compile(r"state|stat$|reason", re.IGNORECASE)
WORDS = {
    "host OOM": r"\bOUT_OF_ME|\boom[-_]kill|\bTERM_(?:MEMLIMIT|SWAP)|exceeded (?:job|step) memory limit",
    "preempted": r"\bPREEMPTED\b|DUE TO PREEMPTION|\bTERM_PREEMPT\b",
    "node failure": r"\b(?:NODE|BOOT)_FAIL\b|DUE TO NODE FAILURE|\bTERM_(?:ZOMBIE|SLURM)\b",
    "time limit": r"\b(?:TIMEOUT|DEADLINE)\b|DUE TO TIME LIMIT|\bTERM_(?:RUNLIMIT|CPULIMIT|DEADLINE|WINDOW)\b",
    "cancelled": r"\bCANCELLED\b|\bTERM_(?:FORCE_)?(?:OWNER|ADMIN)\b",
    "failed": r"\bFAILED\b|^EXIT\b",
    "complete": r"\bCOMPLETED\b|^DONE\b",
    "queued": r"\bPENDING\b|\bCONFIGURING\b|\bREQUEUED\b|^PEND\b|^PSUSP\b",
}
"""What words of Slurm (states, slurmstepd) and LSF (states, termination reasons) mean; the first that fits counts."""
MEANINGS = {name: re.compile(words, re.IGNORECASE if name == "host OOM" else 0) for name, words in WORDS.items()}
EXITED = re.compile(r"\bexited with -(\d+)\b")
"""What DVC says of a stage that a signal ended."""
SHELL_WORDS = {signal.strsignal(number): number for number in FATAL}
SHELL = re.compile(rf"(?:^|: line \d+: +\d+ )({'|'.join(filter(None, SHELL_WORDS))})\b")
"""What a shell says of a command that a signal ended."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """Something a scheduler said, and where it stands."""

    where: str
    text: str

    @property
    def meaning(self) -> str | None:
        """The name in `MEANINGS`."""
        return next((name for name, pattern in MEANINGS.items() if pattern.search(self.text)), None)


@dataclass(frozen=True, kw_only=True)
class Case:
    """The newest attempt of a run with all that is known about it. Its log is read when a rule first asks for it."""

    record: RunRecord
    attempt: Attempt
    now: float
    scheduler: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def code(self) -> int | None:
        """How it ended: exit code, or -signal; also if only the command's end was recorded."""
        ended = [each.code for each in self.attempt.tries]
        code = self.attempt.code if self.attempt.code is not None or not ended else ended[-1]
        return 128 - code if code is not None and 128 < code <= 128 + signal.SIGRTMAX else code

    @cached_property
    def killed_by(self) -> tuple[int, str] | None:
        """The signal that ended it, and the evidence: its own code, else what DVC or a shell said of a part."""
        if self.code is not None and self.code < 0:
            if -self.code == ORPHANED:
                return signal.SIGKILL, f"{self.file}:code: {128 + ORPHANED}, for the guardian of the attempt was killed"
            return -self.code, f"{self.file}:code: {self.code}"
        last = self.lines[-LAST_WORDS:]
        said = [(int(found[1]), line) for line in last if (found := EXITED.search(line.text))]
        said = said or [(SHELL_WORDS[found[1]], line) for line in last if (found := SHELL.search(line.text))]
        return (said[-1][0], self.quote(said[-1][1])) if said else None

    @cached_property
    def file(self) -> str:
        """The attempt's file, relative to the run."""
        return f"attempts/{self.attempt.number:04d}.json"

    @property
    def node(self) -> str:
        """Where it ran."""
        return self.attempt.job.node if self.attempt.job else self.attempt.holder.host

    @cached_property
    def lines(self) -> list[Line]:
        """The ends of its log."""
        return tail.read_ends(self.record.folder / self.log)

    @property
    def log(self) -> str:
        """The log's file, relative to the run."""
        return f"logs/{self.attempt.number:04d}.log"

    @cached_property
    def recorded_words(self) -> list[Word]:
        """What the scheduler said about the state of the job, now and in the record."""
        raw = self.attempt.job.raw if self.attempt.job else {}
        sources = (("scheduler", self.scheduler), (f"{self.file}:job", raw))
        found = [(f"{place}.{key}", key, text) for place, words in sources for key, text in words.items()]
        return [Word(where=where, text=text) for where, key, text in found if STATE_KEYS.search(key)]

    @cached_property
    def words(self) -> list[Word]:
        """The same, and what it wrote into the log."""
        return self.recorded_words + [
            Word(where=f"{self.log}:{line.number}", text=line.text) for line in self.lines if line.from_scheduler
        ]

    @property
    def failed_stage(self) -> Stage | None:
        """The stage that ended the attempt with a failure of its own."""
        stage = self.attempt.stages[-1] if self.attempt.stages else None
        return stage if stage is not None and stage.code not in (None, 0, UNFINISHED, STALLED, PEER_LOST) else None

    @cached_property
    def progress(self) -> Progress | None:
        """How far it came: recorded, else what the log says."""
        return self.attempt.progress or tail.progress(self.lines)

    def quote(self, line: Line) -> str:
        """A line of the log as evidence."""
        return f"{self.log}:{line.number}: {line.text[:EXCERPT]}"

    def last_words(self, pattern: re.Pattern[str]) -> list[str]:
        """The line near the end of the log that has the pattern, as evidence; none if there is none."""
        found = [line for line in self.lines[-LAST_WORDS:] if pattern.search(line.text)]
        return [self.quote(line) for line in found[-1:]]

    def said(self, *meanings: str) -> list[str]:
        """What the scheduler said of this meaning, as evidence."""
        return [f"{word.where}: {word.text[:EXCERPT]}" for word in self.words if word.meaning in meanings]
