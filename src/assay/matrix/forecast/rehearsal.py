"""Stages tried out in one process, for `assay plan --probe`: torch is imported once for all; open it when one fails.

    python -m assay.matrix.forecast.rehearsal      reads stage commands line by line, answers each with a line

A command `assay stage STUDY STAGE ...` is done in this process, any other by a shell. Answers are JSON: null, or the
reason why the stage did not end well.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

from assay import progress
from assay.errors import AssayError
from assay.matrix.forecast.bench import Bench
from assay.matrix.forecast.pipeline import Parameters
from assay.matrix.verdicts.parity import texts

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


class RehearsalError(AssayError):
    """A stage could not be rehearsed; the message says which and why."""


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """An arm as it is rehearsed: the content of params.yaml, and its leaves."""

    data: Mapping[str, Any]
    parameters: Parameters
    seed: int


class Rehearsal:
    """Runs stages on a bench, each only if what is there is of other parameters."""

    def __init__(self, place: Bench, worker: "subprocess.Popen[str]") -> None:
        self.place, self.worker = place, worker

    def read(self, arm: Rehearsed, stage: str, pattern: str) -> dict[str, str]:
        """What a stage has written with an arm's parameters; `{}` in the pattern stands for its name.

        Raises:
            RehearsalError: it, or a stage before it, did not end well.
        """
        needed = self.place.needed([stage], arm.parameters, arm.seed)
        self.place.write(arm.data)
        for each in needed:
            self.place.clear(each, arm.parameters)
            trouble = self._run(self.place.stages[each].command)
            if trouble is not None:
                raise RehearsalError(f"{each}: {trouble}")
            self.place.keep(each, arm.parameters, arm.seed)
        return texts(self.place.folder, pattern.format(stage))

    def _run(self, command: str) -> str | None:
        if self.worker.stdin is None or self.worker.stdout is None:
            raise RehearsalError("the process that rehearses has no pipes")
        print(json.dumps(command), file=self.worker.stdin, flush=True)
        answer = self.worker.stdout.readline()
        found: str | None = json.loads(answer) if answer else "the process that rehearses was killed"
        return found


@contextmanager
def rehearsing(place: Bench) -> Iterator[Rehearsal]:
    """The process, for as long as it is needed; what stages print is dropped."""
    environment = {**place.environment(), **NO_GPU}
    environment.pop(progress.SOCKET, None)
    with subprocess.Popen(
        [sys.executable, "-m", "assay.matrix.forecast.rehearsal"],
        cwd=place.folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as worker:
        try:
            yield Rehearsal(place, worker)
        finally:
            worker.kill()


def rehearse(command: str) -> str | None:
    """Run one stage in the current folder; returns why it failed."""
    words = shlex.split(command)
    if words[:2] != ["assay", "stage"]:
        done = subprocess.run(command, shell=True, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
        return f"exit code {done.returncode}" if done.returncode else None
    from assay.cli import run

    try:
        code = run(words[1:])
    except (Exception, SystemExit) as error:  # whatever it is, the next stage may do better
        return " ".join(str(error).split()) or type(error).__name__
    return f"exit code {code}" if code else None


def main() -> None:
    """Until the input ends."""
    for line in sys.stdin:
        with redirect_stdout(sys.stderr):
            answer = rehearse(json.loads(line))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
