"""Is training repeatable, and does it go on from a checkpoint as if nothing had happened? Compared bit for bit.

Open it when `assay verify` says that two runs differ. Four processes train the first steps: twice without a break, then
up to a random step, then on from that checkpoint. Each traces its whole state after every step; see trace.py.
"""

import os
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assay import progress
from assay.engine.checkpoint import CHECKPOINTS
from assay.engine.progress import Phase, phase
from assay.engine.stop import StopRequest
from assay.engine.trace import DIGEST, STEPS, TRACE, UNTIL, Trace, read_object, read_trace
from assay.errors import AssayError, ConfigError, UserError

RUNS = 3
ABSENT = "absent"
POLL_S = 0.1
SEEDS = 10**6
Runner = Callable[[Mapping[str, str]], None]
"""Trains with these environment variables added, until told by them to stop."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where a run first differs from the undisturbed one: a step, the first tensor or number, how many others."""

    run: str
    step: int
    name: str
    others: int
    first: str
    second: str
    dtype: str | None = None
    largest: float | None = None
    """Largest absolute difference; None for numbers that are no tensors and for tensors of unlike shapes."""

    def __str__(self) -> str:
        others = f" and {self.others} others" if self.others else ""
        values = f"{self.first} against {self.second}"
        if self.largest is not None:
            values = f"largest difference {self.largest:.3g} ({self.dtype})"
        return f"{self.run}: step {self.step}: {self.name}{others}: {values}"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was compared, and what differed. tensors: how many a step has."""

    steps: int
    interrupted_after: int
    seed: int
    tensors: int
    runs: int = RUNS
    differences: list[Difference] = field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Whether every bit was the same."""
        return not self.differences

    def __str__(self) -> str:
        what = f"{self.steps} steps, {self.runs} runs, {self.tensors} tensors"
        how = f"interrupted after step {self.interrupted_after}; --seed-of-interruption {self.seed}"
        heading = f"{'identical' if self.identical else 'different'}: {what} ({how})"
        return "\n".join([heading, *map(str, self.differences)])


def verify(run: Runner, steps: int, seed: int, folder: Path) -> Report:
    """Train `steps` steps in three ways and compare; `seed` draws the step of the interruption, `folder` holds traces.

    Disk space: about `steps` times the size of a checkpoint.

    Raises:
        ConfigError: there are fewer than two steps, so nothing can be interrupted.
    """
    if steps < 2:
        raise ConfigError(f"--steps: got {steps}; allowed: >= 2, for one to be interrupted after")

    def traced(name: str, checkpoints: str, until: int) -> Trace:
        path = folder / f"{name}.jsonl"
        run({TRACE: str(path), STEPS: str(steps), UNTIL: str(until), CHECKPOINTS: str(folder / checkpoints)})
        return read_trace(path)

    first = traced("first", "first", steps)
    done = max(first, default=0)
    if done < 2:
        raise ConfigError(f"verify: training ended after step {done}; allowed: >= 2 steps; give a larger train.steps")
    repeated = traced("repeated", "repeated", steps)
    cut = random.Random(seed).randint(1, done - 1)
    before = traced("interrupted", "interrupted", cut)
    after = traced("resumed", "interrupted", steps)
    found = [
        _difference("repeated", first, repeated, folder),
        _restart(cut, after) or _difference("interrupted", first, {**before, **after}, folder),
    ]
    return Report(
        steps=done,
        interrupted_after=cut,
        seed=seed,
        tensors=sum(text.startswith(DIGEST) for text in first[done].values()),
        differences=[difference for difference in found if difference is not None],
    )


def _restart(cut: int, after: Trace) -> Difference | None:
    """A run that starts from the beginning may end the same, and has yet lost what was done."""
    step = min(after, default=0)
    if step == cut + 1:
        return None
    name = "first step after the interruption"
    return Difference(run="interrupted", step=cut + 1, name=name, others=0, first=str(cut + 1), second=str(step))


def _difference(run: str, first: Trace, second: Trace, folder: Path) -> Difference | None:
    for step in sorted(first.keys() | second.keys()):
        one, two = first.get(step, {}), second.get(step, {})
        names = [name for name in {**one, **two} if one.get(name, ABSENT) != two.get(name, ABSENT)]
        if names:
            texts = one.get(names[0], ABSENT), two.get(names[0], ABSENT)
            return _described(run, step, names, texts, folder)
    return None


def _described(run: str, step: int, names: list[str], texts: tuple[str, str], folder: Path) -> Difference:
    dtype = largest = None
    if all(text.startswith(DIGEST) for text in texts):
        one, two = (read_object(folder, text) for text in texts)
        dtype = str(one.dtype)
        if one.shape == two.shape and one.numel():
            largest = float((one.double() - two.double()).abs().max())
    return Difference(
        run=run,
        step=step,
        name=names[0],
        others=len(names) - 1,
        first=texts[0],
        second=texts[1],
        dtype=dtype,
        largest=largest,
    )


def verify_command(command: Sequence[str], steps: int, seed: int | None = None) -> Report:
    """Verify the training that `command` does, each run in a process of its own; a `seed` is drawn unless given.

    Raises:
        UserError, AssayError: as of `verify` and `processes`.
        Unfinished: a stop was requested.
    """
    seed = random.SystemRandom().randrange(SEEDS) if seed is None else seed
    with (
        tempfile.TemporaryDirectory(prefix="assay-verify-") as folder,
        StopRequest() as stop,
        phase("verify", RUNS * steps, stop=stop) as shown,
    ):
        return verify(processes(command, shown), steps, seed, Path(folder))


def processes(command: Sequence[str], shown: Phase) -> Runner:
    """Runs `command` anew each time; every step it traces advances `shown`.

    Raises:
        UserError, AssayError: the command ended otherwise than by having been traced; what it said last is told.
        Unfinished: a stop was requested.
    """

    def run(variables: Mapping[str, str]) -> None:
        environment = {name: text for name, text in os.environ.items() if name != progress.SOCKET}
        trace = Path(variables[TRACE])
        with trace.with_suffix(".txt").open("w+") as said:
            child = subprocess.Popen(command, env={**environment, **variables}, stdout=said, stderr=said)
            try:
                _follow(child, trace, shown)
            finally:
                child.kill()
                child.wait()
            said.seek(0)
            lines = said.read().splitlines() or ["it said nothing"]
        if child.returncode != progress.UNFINISHED:
            kind = UserError if child.returncode == UserError.exit_code else AssayError
            last = lines[-1].removeprefix("assay: ")
            raise kind(f"verify: the {trace.stem} run ended with exit code {child.returncode}: {last}")

    return run


def _follow(child: "subprocess.Popen[bytes]", trace: Path, shown: Phase) -> None:
    seen = 0
    while child.poll() is None:
        time.sleep(POLL_S)
        shown.end_if_asked()
        steps = len(trace.read_bytes().splitlines()) if trace.exists() else 0
        shown.advance(steps - seen)
        seen = steps
