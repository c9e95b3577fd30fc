"""What tests of runs begin with: commands under supervision, as a scheduler would start them, records, code."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.runs.ended_runs import Case
from tests.runs.repository import Repository

from assay.runs.store import RunFolder

SOURCE = Path(__file__).parents[2] / "src"


class Supervised:
    """`assay exec` in a folder of its own; `processes` are all that it started, whoever their parent is by now.

    prefix: what stands before the command, for one that enters a place first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        self.prefix: list[str] = []
        self.mark = f"assay-test-{folder.name}-{time.monotonic_ns()}"
        self.environment = {**os.environ, "PYTHONPATH": str(SOURCE), "ASSAY_TEST_MARK": self.mark}
        for name in ("SLURM_JOB_ID", "LSB_JOBID", "ASSAY_PROGRESS", "ASSAY_CHECKPOINTS"):
            self.environment.pop(name, None)

    def script(self, name: str, text: str) -> str:
        """Write a Python script; returns its path."""
        path = self.folder / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    def start(self, *options: str, command: list[str], run: str = "run") -> "subprocess.Popen[str]":
        """Start it; its output goes to one pipe."""
        process = subprocess.Popen(
            [*self.prefix, sys.executable, "-m", "assay", "exec", "--run", run, *options, "--", *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def run(self, *options: str, command: list[str], within_s: float = 60) -> tuple[int, str]:
        """Run it to its end; exit code and what it said."""
        process = self.start(*options, command=command)
        said, _ = process.communicate(timeout=within_s)
        return process.returncode, said

    def attempt(self, number: int = 1) -> dict:
        """The record of an attempt."""
        return json.loads((self.folder / f"run/attempts/{number:04d}.json").read_text())

    def log(self, number: int = 1) -> str:
        """What an attempt printed."""
        return (self.folder / f"run/logs/{number:04d}.log").read_text()

    def processes(self) -> list[psutil.Process]:
        """What is still alive of everything started here."""
        found = []
        for process in psutil.process_iter():
            try:
                marked = process.environ().get("ASSAY_TEST_MARK") == self.mark
                if marked and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, text: str, within_s: float = 30) -> None:
        """Until the log of the first attempt has this text."""
        path = self.folder / "run/logs/0001.log"
        self.wait_until(lambda: path.exists() and text in path.read_text(), within_s, text)

    def wait_until(self, holds: Callable[[], object], within_s: float, what: str) -> None:
        """Poll until something holds."""
        end = time.monotonic() + within_s
        while not holds():
            assert time.monotonic() < end, f"waited {within_s} s for {what}"
            time.sleep(0.02)

    def ended(self, within_s: float = 5) -> bool:
        """Whether nothing of it is left, at the latest after a moment."""
        self.wait_until(lambda: not self.processes(), within_s, f"the end of {self.processes()}")
        return True


@pytest.fixture
def supervised(tmp_path) -> Iterator[Supervised]:
    """A folder for one test; nothing survives it."""
    made = Supervised(tmp_path)
    yield made
    for left in made.processes():
        left.kill()
    for process in made.started:
        process.communicate()


@pytest.fixture
def case(tmp_path) -> Case:
    return Case(tmp_path)


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    """A run that nobody has begun."""
    return RunFolder(tmp_path / "runs" / "asl" / "deep" / "3")


@pytest.fixture
def repository(tmp_path) -> Repository:
    """A repository that the test may change."""
    root = tmp_path / "project"
    root.mkdir()
    return Repository(root)
