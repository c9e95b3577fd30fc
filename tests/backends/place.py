"""A repository whose one stage does what a test says, and the commands that a person gives in it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.matrix.toy import ROOT, STUDY, Repository

from assay.runs.record import Attempt
from assay.runs.store import RunFolder

PIPELINE = """\
stages:
  train:
    cmd: python stage.py
    params: [seed, train.steps]
    deps: [stage.py]
    outs: [results/train/out]
    metrics:
      - results/train/metrics.json:
          cache: false
"""
QUICK = """\
import json, os
from pathlib import Path
from ruamel.yaml import YAML
from assay import progress
params = YAML(typ="safe").load(open("params.yaml"))
root, node = Path(os.environ["TOY"]), os.environ["SLURMD_NODENAME"]
with (root / "begun").open("a") as file:
    file.write(f"{params['seed']} {params['train']['steps']} {node}\\n")
with progress.phase("load"):
    if (root / f"hang-on-{node}").exists():
        open(root / "fifo").read()  # nobody writes
with progress.phase("train", total=params["train"]["steps"]) as phase:
    import time
    while (root / "hold").exists():
        phase.advance()
        time.sleep(0.1)
os.makedirs("results/train/out", exist_ok=True)
Path("results/train/out/text").write_text(str(params["train"]["steps"]))
Path("results/train/metrics.json").write_text(json.dumps({"error": params["seed"] + params["train"]["steps"] / 1000}))
"""
TRAINING = """\
import json, os, sys
from pathlib import Path
from ruamel.yaml import YAML
from tests.torture.stage import main
params = YAML(typ="safe").load(open("params.yaml"))
steps = str(params["train"]["steps"])
sys.argv = ["stage", "--steps", steps, "--pause", os.environ["TOY_PAUSE"], "--out", "results/train/out"]
code = main()
if code == 0:
    Path("results/train/metrics.json").write_text(json.dumps({"error": 0.0}))
sys.exit(code)
"""
RANKS = """\
import json, os, sys
from pathlib import Path
from ruamel.yaml import YAML
from tests.runs.rank_stage import main
params = YAML(typ="safe").load(open("params.yaml"))
steps = str(params["train"]["steps"])
sys.argv = ["stage", "--steps", steps, "--pause", os.environ["TOY_PAUSE"], "--out", "results/train/out"]
code = main()
if code == 0:
    Path("results/train/metrics.json").write_text(json.dumps({"error": 0.0}))
sys.exit(code)
"""
TWO_ARMS = """\
name: toy
question: Does it come to its end?
study: asl
pipeline: dvc.yaml
baseline: slow
seeds: [0]
base: {train.steps: 10}
arms:
  slow: {reason: The reference.}
  fast:
    reason: Another.
    set: {train.steps: 20}
metrics:
  train/error: {direction: min}
hypotheses:
  H1: {claim: It does., metric: train/error, arm: fast, versus: slow, test: superior, margin: 0.1}
"""
MACHINE = {
    "name": "test",
    "scheduler": "slurm",
    "resources": {"cpus": 2},
    "slurm": {"partition": "main"},
    "grace": 10.0,
}
PATIENT_S = 600.0


class Place(Repository):
    """The repository, and beside it the folder that its stages are told what to do in."""

    def __init__(self, folder: Path, stage: str = QUICK, study: str = STUDY) -> None:
        (folder / "toy").mkdir(parents=True)
        self.toy = folder / "toy"
        (folder / "repository").mkdir()
        super().__init__(folder / "repository")
        (self.folder / "dvc.yaml").write_text(PIPELINE)
        (self.folder / "stage.py").write_text(stage)
        self.study.write_text(study.replace("validate/error", "train/error").replace("optimizer.lr", "steps"))
        self.git("config", "user.email", "nobody@localhost")
        self.git("config", "user.name", "nobody")
        self.machine = folder / "machine.yaml"
        self.say()
        self.commit()
        os.mkfifo(self.toy / "fifo")

    def say(self, **more: object) -> None:
        """Write the machine file; more: keys beside those of MACHINE, or instead."""
        self.machine.write_text(json.dumps({**MACHINE, **more}))

    def give(self, *command: str, code: int = 0, pause: float = 0.0) -> str:
        """What a command of the environment says; it must end with the code."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "TOY": str(self.toy), "TOY_PAUSE": str(pause)}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == code, f"{command} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def submit(self, *options: str, code: int = 0, pause: float = 0.0) -> str:
        """`assay submit` on the test's machine."""
        machine = ("--machine", str(self.machine))
        return self.give("assay", "submit", "study.yaml", *machine, *options, code=code, pause=pause)

    def begun(self) -> list[str]:
        """`SEED STEPS NODE` of every stage that has begun, in that order."""
        path = self.toy / "begun"
        return path.read_text().splitlines() if path.exists() else []

    def attempts(self, arm: str, seed: int) -> list[Attempt]:
        """The records of a run's attempts."""
        return RunFolder(self.run(arm, seed)).read().attempts

    def is_complete(self, arm: str, seed: int) -> bool:
        """Whether a run's result was handed back."""
        return (self.run(arm, seed) / "metrics.json").is_file()

    def states(self) -> dict[str, str]:
        """`arm/seed` to state, by `assay status`."""
        found = json.loads(self.give("assay", "status", "study.yaml", "--json"))
        return {f"{each['arm']}/{each['seed']}": each["state"] for each in found}


def wait_until(holds: Callable[[], object], within_s: float = PATIENT_S) -> None:
    """Look again and again."""
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end, f"waited {within_s:g} s"
        time.sleep(0.5)
