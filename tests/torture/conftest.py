"""A tiny training run behind DVC, to be killed, cut off and started again; and where the figures go.

Counts come from the environment: few in `make test`, all of them in `make torture`.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psutil
import pytest
from tests.runs.conftest import supervised as supervised

from assay.engine.checkpoint import read_tensors

MARK = "ASSAY_TEST_MARK"
TINY = {
    "data.phantoms": "24",
    "data.validation_phantoms": "8",
    "data.image_size": "16",
    "model.hidden_sizes": "[16,32]",
    "train.batch_size": "4",
    "train.validate_every": "50",
    "train.log_every": "1",
    "train.device": "cpu",
}
AT_ONCE = 2
TIMED = "tensorboard"
"""The part of the results that holds the time of day."""
FOREIGN = ("SLURM_JOB_ID", "LSB_JOBID", "ASSAY_PROGRESS", "ASSAY_CHECKPOINTS")


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What the run leaves, and how long it takes in s, when nothing happens to it."""

    files: dict[str, object]
    seconds: float


class Trial:
    """One run in a folder of its own: `assay exec --run run -- dvc repro train`, as often as it takes."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.mark = f"torture-{folder.name}-{time.monotonic_ns()}"
        self.environment = {**environment, MARK: self.mark}

    def start(self, *options: str) -> "subprocess.Popen[bytes]":
        """Give the command once more; what it says is in the run's log."""
        command = ["assay", "exec", "--run", "run", *options, "--", "dvc", "repro", "train"]
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=said, stderr=said)

    def processes(self) -> dict[int, str]:
        """Number and command line of what is alive of everything started here, whoever its parent is by now."""
        found = {}
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())
            except psutil.Error:
                continue
        return found

    def checkpoints(self) -> list[Path]:
        """Complete checkpoints, newest first."""
        return sorted(self.run.glob("checkpoints/*/step-*.safetensors"), reverse=True)

    def remove(self) -> None:
        """Take it away, for a hundred of them take room."""
        shutil.rmtree(self.folder)

    def temporaries(self) -> list[Path]:
        """Files that were being written when their writer died."""
        roots = [self.run, self.folder / "results"]
        return [path for root in roots for path in root.rglob(".*") if path.is_file()]

    def seen(self) -> int:
        """The last step whose loss was logged."""
        path = self.folder / "results/train/log/live/plots/metrics/train/loss.tsv"
        lines = path.read_text().split("\n")[1:-1] if path.exists() else []
        return int(lines[-1].split("\t")[0]) if lines else 0

    def saved(self) -> int:
        """The step of the newest checkpoint."""
        newest = self.checkpoints()[:1]
        return int(newest[0].stem.removeprefix("step-")) if newest else 0

    def attempts(self) -> int:
        """How many there have been."""
        return len(list(self.run.glob("attempts/[0-9]*.json")))

    def attempt(self) -> dict:
        """The record of the newest attempt."""
        return json.loads((self.run / f"attempts/{self.attempts():04d}.json").read_text())

    def log(self) -> str:
        """What the newest attempt said."""
        path = self.run / f"logs/{self.attempts():04d}.log"
        return path.read_text() if path.exists() else ""

    def files(self) -> dict[str, object]:
        """All that the stage leaves, to the bit, but for what holds the time of day."""
        below = [path for path in (self.folder / "results/train").rglob("*") if path.is_file()]
        return {str(path.relative_to(self.folder)): content(path) for path in below if TIMED not in path.parts}


def content(path: Path) -> object:
    """What a file says: bytes; JSON and tensors by name, for both are written in any order."""
    if path.suffix == ".json":
        return json.loads(path.read_bytes())
    if path.suffix == ".safetensors":
        tensors, document = read_tensors(path)
        return {name: (str(t.dtype), t.shape, t.numpy().tobytes()) for name, t in tensors.items()}, document
    return path.read_bytes()


class TrainedProject:
    """The project at a tiny size, its data simulated, and what an undisturbed run of it leaves."""

    def __init__(self, project, parameters: dict[str, str]) -> None:
        self.project = project
        text = (project.folder / "params.yaml").read_text()
        for key, value in {**TINY, **parameters}.items():
            section, name = key.split(".")
            text, found = re.subn(rf"(?ms)^({section}:.*?^  {name}:)[^\n]*", rf"\1 {value}", text, count=1)
            assert found, key
        project.write("params.yaml", text)
        site = {"DVC_SITE_CACHE_DIR": f"{project.folder}-site"}
        project.environment |= {"OMP_NUM_THREADS": "1", **site}
        for name in FOREIGN:
            project.environment.pop(name, None)
        project.give("git init -q && dvc repro simulate && git add -A && git commit -q -m start")
        self.numbers, self.trials = count(1), list[Trial]()
        self.undisturbed = self._undisturbed()

    def trial(self) -> Trial:
        """A fresh copy in which nothing has been trained."""
        folder = Path(f"{self.project.folder}-trial-{next(self.numbers)}")
        shutil.copytree(self.project.folder, folder, symlinks=True)
        trial = Trial(folder, {**self.project.environment, "PYTHONPATH": str(folder / "src")})
        self.trials.append(trial)
        return trial

    def _undisturbed(self) -> Undisturbed:
        trial, begun = self.trial(), time.monotonic()
        assert trial.start().wait() == 0, (trial.folder / "said.txt").read_text()
        return Undisturbed(files=trial.files(), seconds=time.monotonic() - begun)


@pytest.fixture
def side_by_side() -> Callable[[Callable[[int], list], int], list]:
    """Call a function with 0, 1, ... n - 1, two at a time; returns what they return as one list."""

    def call(function: Callable[[int], list], n: int) -> list:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            futures = [pool.submit(function, index) for index in range(n)]
            try:
                return [item for future in futures for item in future.result()]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    return call


@pytest.fixture(scope="module")
def trained_project(make_project) -> Iterator[Callable[[dict[str, str]], TrainedProject]]:
    """A factory of projects with some parameters changed; nothing survives the module."""
    made: list[TrainedProject] = []

    def make(parameters: dict[str, str]) -> TrainedProject:
        made.append(TrainedProject(make_project(), parameters))
        return made[-1]

    yield make
    for trial in (trial for project in made for trial in project.trials):
        for pid in trial.processes():
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def report(capsys) -> Iterator[Callable[[str, dict[str, object]], None]]:
    """Show the figures of a test as a table and, if TORTURE_FIGURES names a folder, keep them there."""

    def tell(name: str, figures: dict[str, object]) -> None:
        width = max(map(len, figures))
        with capsys.disabled():
            print(f"\n{name}")
            for key, value in figures.items():
                print(f"  {key.replace('_', ' '):<{width}}  {value}")
        folder = os.environ.get("TORTURE_FIGURES")
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / f"reliability_{name}.json").write_text(json.dumps(figures, indent=2) + "\n")

    yield tell
