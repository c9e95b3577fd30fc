"""A repository with a study of one quick stage, and a scheduler that a test commands."""

import math
import shlex
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from assay.matrix.submission import read_submission
from assay.matrix.submit import Decision, open_study, submit
from assay.runs.record import Attempt, Run, Stage
from assay.runs.store import RunFolder, this_process
from assay.schedulers import ALIVE, Job, Meaning, Scheduler
from assay.schedulers.client import SilentError

ROOT = Path(__file__).parents[2]
PIPELINE = """\
stages:
  validate:
    cmd: python stage.py
    params: [seed, train.optimizer.lr]
    deps: [stage.py]
    outs: [results/validate/table.csv]
    metrics:
      - results/validate/metrics.json:
          cache: false
"""
STAGE = """\
import json, os
from ruamel.yaml import YAML
params = YAML(typ="safe").load(open("params.yaml"))
lr = params["train"]["optimizer"]["lr"]
os.makedirs("results/validate", exist_ok=True)
open("results/validate/table.csv", "w").write("a,b\\n1,2\\n")
metrics = {"error": lr + params["seed"], "by": {"snr": 2}, "name": "text", "bad": float("nan")}
json.dump(metrics, open("results/validate/metrics.json", "w"))
raise SystemExit(3 if lr > 1 else 0)
"""
STUDY = """\
name: toy
question: Does the rate matter?
study: asl
pipeline: dvc.yaml
baseline: slow
seeds: [0, 1]
arms:
  slow:
    reason: The reference.
  fast:
    reason: A higher rate.
    set: {train.optimizer.lr: 0.5}
  broken:
    reason: Fails.
    set: {train.optimizer.lr: 2.0}
metrics:
  validate/error: {direction: min}
hypotheses:
  H1: {claim: It does., metric: validate/error, arm: fast, versus: slow, test: superior, margin: 0.1}
"""
POOL = ".assay/pool"
ALL = [(arm, seed) for seed in (0, 1) for arm in ("slow", "fast", "broken")]
"""Its runs, in the order in which they are submitted."""


class Repository:
    """A git repository with the study, committed; `within` is the folder of study and pipeline."""

    def __init__(self, folder: Path, within: str = ".") -> None:
        self.folder, place = folder, folder / within
        self.study, self.pipeline = place / "study.yaml", place / "dvc.yaml"
        files = {self.pipeline: PIPELINE, place / "stage.py": STAGE, self.study: STUDY}
        files |= {folder / ".dvcignore": ".assay\nruns\n", folder / ".gitignore": "runs/\n.assay/\nresults/\n"}
        files |= {folder / ".dvc/config": "", folder / ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n"}  # `dvc init`
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        shutil.copy(ROOT / "params.yaml", place)
        self.git("init", "--quiet")
        self.commit()

    def git(self, *arguments: str) -> str:
        """What a git command says."""
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        """Commit everything; returns the commit."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")
        return self.git("rev-parse", "HEAD")

    def run(self, arm: str, seed: int) -> Path:
        """The folder of a run."""
        return self.study.parent / "runs/toy" / arm / str(seed)

    def change_study(self, old: str, new: str) -> None:
        """Edit the study file."""
        text = self.study.read_text()
        assert old in text
        self.study.write_text(text.replace(old, new))


class Commanded(Scheduler):
    """A scheduler that only writes down what it is given; `words` is what it then says."""

    name = "commanded"

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.words: dict[str, str] = {}
        self.cancelled: list[str] = []
        self.accepts: float = math.inf
        """How many jobs; then it falls silent."""

    def render(self, job: Job) -> str:
        return f"run {shlex.join(job.command)}\n"

    def submit_all(self, jobs: Sequence[Job]) -> Iterator[str]:
        for job in jobs:
            if len(self.jobs) >= self.accepts:
                raise SilentError("the commanded scheduler says nothing", self.words)
            job_id = str(len(self.jobs) + 1)
            self.jobs[job_id], self.words[job_id] = job, "queued"
            yield job_id

    def states(self, ids: Collection[str], insist: bool = False) -> dict[str, str]:
        if len(self.jobs) >= self.accepts:
            raise SilentError("the commanded scheduler says nothing", self.words)
        return {each: self.words[each] for each in ids if each in self.words}

    def alive(self) -> dict[str, str]:
        return {job.token: job_id for job_id, job in self.jobs.items() if self.meaning(self.words[job_id]) in ALIVE}

    def meaning(self, word: str) -> Meaning:
        meanings: Mapping[str, Meaning] = {"queued": "queued", "running": "running", "ended": "ended"}
        return meanings.get(word, "unknown")

    def cancel(self, *ids: str) -> None:
        self.cancelled += ids

    def end_all(self) -> None:
        """As if every job had ended."""
        self.words = dict.fromkeys(self.words, "ended")


class Inline(Commanded):
    """Runs a job at once, to its end."""

    def submit_all(self, jobs: Sequence[Job]) -> Iterator[str]:
        for job, job_id in zip(jobs, super().submit_all(jobs), strict=True):
            job.log.parent.mkdir(parents=True, exist_ok=True)
            with job.log.open("ab") as log:
                subprocess.run(job.command, cwd=job.folder, stdout=log, stderr=log, check=False)
            self.words[job_id] = "ended"
            yield job_id


def record(run: Path, code: int | None, commit: str = "", stage: Mapping[str, Any] | None = None) -> None:
    """As if the run had been executed with what it was submitted with. code: None while it runs."""
    submission = read_submission(run)
    assert submission is not None
    folder, now = RunFolder(run), time.time()
    study, arm, seed = run.parts[-3:]
    told = Run(study=study, arm=arm, seed=seed, stages=["validate"], params=submission.params)
    folder.write_run(replace(told, commit=commit or submission.commit))
    begun = Attempt(number=0, holder=this_process(), command=["dvc", "repro"], started=now, heartbeat=now)
    attempt = folder.begin(begun)
    stages = [Stage(study="asl", stage="validate", started=now, ended=now, code=code, **(stage or {}))]
    if code is not None:
        folder.update(replace(attempt, ended=now, code=code, stages=stages))


def give(repository: Repository, scheduler: Commanded, **options: bool) -> list[Decision]:
    return submit(open_study(repository.study, None), scheduler, **options)
