"""What a scheduler last said of each job, asked at most once in 30 s however many processes want to know.

Open it when a state is out of date, or a scheduler is asked too often.

    words = Words(Path(".assay/slurm"), ask)
    words.known(["123", "124_7"])       # job -> the scheduler's own word

One file for all processes of a repository: whoever finds it too old asks, the others wait for the answer. Where nothing
can be written, as on a full disk, every process asks for itself.
"""

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from assay.errors import SchedulerError
from assay.schedulers.client import SilentError

POLL_S = 30.0
"""The least time between two questions, in s."""
LONGEST_S = 480.0
"""Of questions that were not answered, each makes the next wait twice as long, up to this, in s."""
KEPT = 50_000
"""How many jobs are remembered; a scheduler forgets those that have ended, Slurm after five minutes."""

Ask = Callable[[Mapping[str, str], Collection[str]], dict[str, str]]
"""(earlier words, jobs asked for) -> the word for every job that the scheduler, or its accounting, knows."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """The file. asked: when, in s since 1970; failures: questions in a row that were not answered, and the last why."""

    asked: float = 0.0
    failures: int = 0
    why: str = ""
    words: dict[str, str] = field(default_factory=dict)


class Words:
    """The words kept in a folder. `ask` is given what is known, and keeps of it what is still true."""

    def __init__(self, folder: Path, ask: Ask, clock: Callable[[], float] = time.time) -> None:
        self.path = folder / "words.json"
        self._lock = folder / "words.lock"
        self._ask, self._clock = ask, clock

    def known(self, ids: Collection[str], insist: bool = False) -> dict[str, str]:
        """The word for each of these jobs; those that nobody knows are left out.

        insist: ask at once after a failure, and for jobs that are not known.

        Raises:
            SilentError: the scheduler was asked and did not answer; has what it said before.
        """
        said = self._read()
        if not self._is_fresh(said, ids, insist):
            with self._locked():
                said = self._read()  # somebody may have asked meanwhile
                if not self._is_fresh(said, ids, insist):
                    said = self._asked(said, ids)
                    self._write(said)
        found = {each: said.words[each] for each in ids if each in said.words}
        if said.failures:
            raise SilentError(said.why, found)
        return found

    def note(self, words: Mapping[str, str]) -> None:
        """What is known without having asked: that jobs were accepted."""
        with self._locked():
            said = self._read()
            self._write(dataclasses.replace(said, words={**said.words, **words}))

    def expire(self) -> None:
        """Something was done that changes the answer: the next who wants to know asks."""
        with self._locked():
            self._write(dataclasses.replace(self._read(), asked=0.0))

    def _is_fresh(self, said: Said, ids: Collection[str], insist: bool) -> bool:
        """Who insists is about to submit: a job that is not known may have been accepted by somebody who died."""
        if insist and (said.failures or not said.words.keys() >= set(ids)):
            return False
        wait = min(POLL_S * float(2**said.failures), LONGEST_S)
        return bool(0 <= self._clock() - said.asked < wait)  # a time in the future is a wrong clock's

    def _asked(self, said: Said, ids: Collection[str]) -> Said:
        try:
            words = self._ask(said.words, ids)
        except SchedulerError as error:
            return dataclasses.replace(said, failures=said.failures + 1, why=str(error), asked=self._clock())
        return Said(asked=self._clock(), words=dict(list(words.items())[-KEPT:]))

    def _read(self) -> Said:
        """A file that is not there or damaged tells nothing, and the scheduler everything again."""
        try:
            return Said(**json.loads(self.path.read_text()))
        except (OSError, ValueError, TypeError):
            return Said()

    def _write(self, said: Said) -> None:
        """In one step, but not to survive a power failure: it is only what can be asked again."""
        temporary = self.path.with_name(f".words.{os.getpid()}")
        with suppress(OSError):
            temporary.write_text(json.dumps(dataclasses.asdict(said)))
            temporary.replace(self.path)
            return
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with ExitStack() as open_files:
            with suppress(OSError):
                self._lock.parent.mkdir(parents=True, exist_ok=True)
                fcntl.flock(open_files.enter_context(self._lock.open("ab")), fcntl.LOCK_EX)
            yield
