"""Attempts that ended, and what they logged, made up to be diagnosed."""

import time
from pathlib import Path
from typing import Any

from assay.runs.diagnose import Diagnosis, diagnose
from assay.runs.record import Attempt, Holder, Job, Resources, Run, Stage, Stall
from assay.runs.store import RunRecord

NOW = 1_800_000_000.0
STARTED, ENDED = NOW - 4000, NOW - 1000
GIB = 2**30
HOLDER = Holder(host="n1", pid=1, start_ticks=1, boot_id="another")
JOB = Job(scheduler="slurm", id="77", node="n7")


def attempt(number: int = 1, **facts: Any) -> Attempt:
    """An attempt that ended, if nothing else is said, with code 1."""
    known = {"command": ["dvc", "repro"], "started": STARTED, "heartbeat": ENDED, "ended": ENDED, "code": 1}
    return Attempt(**{"number": number, "holder": HOLDER, **known, **facts})


def stage(name: str = "train", code: int | None = 1, **facts: Any) -> Stage:
    return Stage(**{"study": "asl", "stage": name, "started": STARTED, "ended": ENDED, "code": code, **facts})


class Case:
    """Makes records in a folder and has them diagnosed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages: list[str] = []
        self.typical: dict[str, float] = {}

    def __call__(self, *attempts: Attempt, log: str = "", scheduler: dict[str, str] | None = None) -> Diagnosis:
        if log:
            (self.folder / "logs").mkdir(exist_ok=True)
            (self.folder / f"logs/{len(attempts):04d}.log").write_text(log)
        run = Run(study="asl", arm="baseline", seed="0", command=["dvc", "repro"], stages=self.stages)
        record = RunRecord(folder=self.folder, run=run, attempts=list(attempts))
        return diagnose(record, NOW, scheduler, self.typical)


def stamped(*lines: str, since: float = STARTED, every: float = 10.0) -> str:
    """Lines of a log, each with its time."""
    times = [time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(since + every * index)) for index in range(len(lines))]
    return "".join(f"{at} {line}\n" for at, line in zip(times, lines, strict=True))


OOM_KILLED = Resources(rss_peak=8 * GIB, memory_limit=8 * GIB, memory_limit_source="cgroup v2 /job", oom_kills=1)
STALL = Stall(phase="load", stage="train", silent_s=620, bound_s=600)
TRACEBACK = stamped(
    "Traceback (most recent call last):", '  File "a.py", line 1, in <module>', "ValueError: no such mode"
)
DIVERGED = stage(kind="NonFiniteError", error="step 12: train/loss is nan")
