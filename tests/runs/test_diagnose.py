"""What the cause of a run's end is, and by which evidence. Each case is a record, a log, or words."""

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runs.ended_runs import (
    DIVERGED,
    ENDED,
    GIB,
    JOB,
    NOW,
    OOM_KILLED,
    STALL,
    STARTED,
    TRACEBACK,
    attempt,
    stage,
    stamped,
)

from assay.runs.diagnose import diagnose
from assay.runs.record import Attempt, Job, Progress, Resources, Run, Stall, Stop, Try
from assay.runs.store import RunRecord

STATES = {"queued", "running", "complete", "partial", "failed", "cancelled", "lost"}

CAUSES: dict[str, tuple[str, Attempt, str, dict[str, str], str]] = {
    # name: cause, attempt, log, scheduler, a part of the first evidence
    "GPU memory, by the stage": (
        "GPU OOM",
        attempt(stages=[stage(kind="OutOfMemoryError", error="CUDA out of memory. Tried to allocate 2 GiB")]),
        "",
        {},
        "attempts/0001.json:stages.0: train: OutOfMemoryError: CUDA out of memory",
    ),
    "GPU memory, by the log": (
        "GPU OOM",
        attempt(),
        stamped("Traceback (most recent call last):", "torch.OutOfMemoryError: CUDA out of memory."),
        {},
        "logs/0001.log:2: torch.OutOfMemoryError",
    ),
    "host memory, by the kernel's count": ("host OOM", attempt(code=255, resources=OOM_KILLED), "", {}, "oom_kill"),
    "host memory before the exception it caused": (
        "host OOM",
        attempt(resources=OOM_KILLED, stages=[stage(kind="RuntimeError", error="a worker was killed")]),
        "",
        {},
        "attempts/0001.json:resources: ",
    ),
    "host memory, by SIGKILL near the limit, which DVC hides": (
        "host OOM",
        attempt(
            code=255, resources=Resources(rss_peak=8 * GIB - 1, memory_limit=8 * GIB, memory_limit_source="cgroup")
        ),
        stamped("ERROR: failed to reproduce 'train': failed to run: python train.py, exited with -9"),
        {},
        "SIGKILL with memory at 8.0 GiB",
    ),
    "host memory, by MemoryError": ("host OOM", attempt(stages=[stage(kind="MemoryError")]), "", {}, "MemoryError"),
    "host memory, by the log": ("host OOM", attempt(), stamped("MemoryError"), {}, "logs/0001.log:1: MemoryError"),
    "host memory, by Slurm": ("host OOM", attempt(), "", {"State": "OUT_OF_MEMORY"}, "scheduler.State: OUT_OF_MEMORY"),
    "host memory, by LSF": ("host OOM", attempt(code=None), "", {"exit_reason": "TERM_MEMLIMIT"}, "TERM_MEMLIMIT"),
    "a stall": (
        "stall@load@n7",
        attempt(code=76, job=JOB, tries=[Try(started=STARTED, ended=ENDED, code=-9, stall=STALL)]),
        "",
        {},
        "attempts/0001.json:tries.0.stall: no progress for 620 s of 600 s allowed in load",
    ),
    "a stage's own word that it stalled": ("stall@unknown@n1", attempt(code=76), "", {}, "code: 76"),
    "no space, in what a stage wrote": (
        "disk full",
        attempt(
            code=2, stages=[stage(code=2, kind="DataError", error="x: cannot be written (No space left on device)")]
        ),
        "",
        {},
        "No space left on device",
    ),
    "no space, by the log": (
        "disk full",
        attempt(),
        stamped("Traceback (most recent call last):", "OSError: [Errno 28] No space left on device"),
        {},
        "logs/0001.log:2: OSError",
    ),
    "no space for the record itself": (
        "disk full",
        attempt(warnings=["x.json: cannot be written (No space left on device)"]),
        "",
        {},
        "attempts/0001.json:warnings: x.json",
    ),
    "divergence, by the stage": ("NaN", attempt(stages=[DIVERGED]), "", {}, "train: NonFiniteError: step 12"),
    "divergence, by the log": ("NaN", attempt(), stamped("step 3/10 loss: nan", "giving up"), {}, "logs/0001.log:1: "),
    "a refused configuration": (
        "config",
        attempt(code=255, stages=[stage(code=2, kind="ConfigError", error="params.yaml: sede: did you mean seed?")]),
        "",
        {},
        "did you mean seed?",
    ),
    "data that a stage refused": (
        "DataError",
        attempt(code=255, stages=[stage(code=2, kind="DataError", error="data/asl: no data set; run simulate")]),
        "",
        {},
        "data/asl: no data set",
    ),
    "bad usage of any command": (
        "config",
        attempt(code=2),
        stamped("usage: train.py [-h] --lr LR", "train.py: error: argument --lr: invalid float value: 'x'"),
        {},
        "invalid float value",
    ),
    "an exception, by the stage": (
        "KeyError",
        attempt(code=255, stages=[stage("simulate", 0), stage(kind="KeyError", error="'t1'")]),
        "",
        {},
        "attempts/0001.json:stages.1: train: KeyError: 't1'",
    ),
    "an exception, by the log": ("ValueError", attempt(), TRACEBACK, {}, "logs/0001.log:3: ValueError: no such mode"),
    "an exception group": (
        "ExceptionGroup",
        attempt(),
        stamped(
            "  + Exception Group Traceback (most recent call last):", "  | ExceptionGroup: both", "    | ValueError: 1"
        ),
        {},
        "logs/0001.log:2:   | ExceptionGroup: both",
    ),
    "a program that Python cannot read": (
        "SyntaxError",
        attempt(),
        stamped('  File "a.py", line 1', "SyntaxError: invalid syntax"),
        {},
        "logs/0001.log:2: SyntaxError: invalid syntax",
    ),
    "a signal, by a script's shell": (
        "signal SIGKILL",
        attempt(),
        stamped("step 3", "Killed"),
        {},
        "logs/0001.log:2: Killed",
    ),
    "a signal, by bash": (
        "signal SIGSEGV",
        attempt(),
        stamped("a.sh: line 3: 4711 Segmentation fault      (core dumped) python a.py"),
        {},
        "logs/0001.log:1: a.sh: line 3",
    ),
    "an exception of a package": (
        "BadZipFile",
        attempt(),
        stamped("Traceback (most recent call last):", "  ...", "zipfile.BadZipFile: File is not a zip file"),
        {},
        "zipfile.BadZipFile",
    ),
    "preempted": ("preempted", attempt(code=143), "", {"State": "PREEMPTED"}, "scheduler.State: PREEMPTED"),
    "preempted, by slurmstepd": (
        "preempted",
        attempt(ended=None, code=None),
        stamped("slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-01-01T00:00:00 DUE TO PREEMPTION ***"),
        {},
        "logs/0001.log:1: slurmstepd",
    ),
    "preempted with a checkpoint": (
        "preempted",
        attempt(code=75, stop=Stop(reason="SIGTERM", at=ENDED)),
        "",
        {"State": "PREEMPTED"},
        "PREEMPTED",
    ),
    "a node that failed": ("node failure", attempt(ended=None, code=None), "", {"State": "NODE_FAIL"}, "NODE_FAIL"),
    "stopped for the deadline": (
        "time limit",
        attempt(code=75, stop=Stop(reason="deadline", at=ENDED)),
        "",
        {},
        "attempts/0001.json:stop: reason deadline",
    ),
    "killed at the limit": ("time limit", attempt(code=None, ended=None), "", {"State": "TIMEOUT"}, "TIMEOUT"),
    "killed at the limit of LSF": (
        "time limit",
        attempt(code=140),
        "",
        {"stat": "EXIT", "exit_reason": "TERM_RUNLIMIT: job killed after reaching LSF run time limit"},
        "scheduler.exit_reason: TERM_RUNLIMIT",
    ),
    "the job's own words in the record": (
        "time limit",
        attempt(code=None, job=Job(scheduler="slurm", id="1", node="n1", raw={"JobState": "TIMEOUT", "JobName": "x"})),
        "",
        {},
        "attempts/0001.json:job.JobState: TIMEOUT",
    ),
    "silence of a run nobody watched": (
        "stall@load@n1",
        attempt(code=None, started=STARTED, ended=ENDED),
        stamped("starting", "loading the dataset", every=1),
        {"State": "TIMEOUT"},
        "logs/0001.log:2: loading the dataset (then nothing for 2999 s)",
    ),
    "a signal that asked it to stop": (
        "signal SIGTERM",
        attempt(code=75, stop=Stop(reason="SIGTERM", at=ENDED)),
        "",
        {},
        "stop: reason SIGTERM",
    ),
    "a signal that killed it": ("signal SIGSEGV", attempt(code=139), "", {}, "attempts/0001.json:code: -11"),
    "a signal that killed a stage below DVC": (
        "signal SIGSEGV",
        attempt(code=255),
        stamped("ERROR: failed to run: python train.py, exited with -11"),
        {},
        "exited with -11",
    ),
    "the death of its guardian": ("signal SIGKILL", attempt(code=158), "", {}, "guardian"),
    "nothing that is known": ("unknown", attempt(code=3), stamped("bye"), {}, "attempts/0001.json:code: 3"),
}


@pytest.mark.parametrize("name", CAUSES)
def test_each_cause_is_found_with_its_evidence(case, name):
    cause, ended, log, scheduler, excerpt = CAUSES[name]
    found = case(ended, log=log, scheduler=scheduler)
    assert found.cause == cause
    assert excerpt in found.evidence[0]


@pytest.mark.parametrize(
    ("name", "outside"),
    [
        ("no space, by the log", True),
        ("a signal, by bash", True),
        ("a stall", True),
        ("divergence, by the stage", False),
        ("a refused configuration", False),
        ("nothing that is known", False),
    ],
)
def test_what_its_surroundings_ended_is_told_from_what_a_run_did_itself(case, name, outside):
    _, ended, log, scheduler, _ = CAUSES[name]
    assert case(ended, log=log, scheduler=scheduler).outside is outside


def test_evidence_of_a_stall_names_the_line_that_hangs(case):
    stacks = 'Thread 1 (most recent call first):\n  File "/home/me/read.py", line 12 in fetch\n'
    evidence = {"process 5": "python read.py, S", "stacks 5": stacks}
    stall = Stall(phase="load", stage="train", silent_s=620, bound_s=600, evidence=evidence)
    found = case(attempt(code=76, tries=[Try(started=STARTED, ended=ENDED, code=-9, stall=stall)]))
    assert "attempts/0001.json:tries.0.stall.evidence: " in found.evidence[1] and "read.py" in found.evidence[1]


def test_a_log_that_cannot_be_read_is_no_obstacle(case):
    (case.folder / "logs/0001.log").mkdir(parents=True)
    assert case(attempt(code=3)).cause == "unknown"


codes = st.none() | st.sampled_from([0, 1, 2, 3, 75, 76, 137, 139, 143, 255])
stages_seen = st.lists(st.builds(stage, st.sampled_from(["simulate", "train"]), codes), max_size=3)
attempts_seen = st.builds(
    attempt,
    code=codes,
    ended=st.none() | st.just(ENDED),
    heartbeat=st.sampled_from([ENDED, NOW]),
    stages=stages_seen,
    stop=st.none() | st.builds(Stop, reason=st.sampled_from(["deadline", "SIGTERM", "SIGINT"]), at=st.just(ENDED)),
    tries=st.lists(st.builds(Try, started=st.just(STARTED), code=codes, stall=st.none() | st.just(STALL)), max_size=2),
    progress=st.none() | st.builds(Progress, done=st.integers(0, 9), of=st.none() | st.just(9)),
    job=st.none() | st.just(JOB),
    deadline=st.none() | st.just(ENDED),
)
words_said = st.dictionaries(
    st.just("State"),
    st.sampled_from(["RUNNING", "PENDING", "TIMEOUT", "CANCELLED by 0", "NODE_FAIL", "COMPLETED", "?"]),
)


@given(attempts_seen, words_said)
def test_whatever_was_recorded_has_a_state_and_an_unfinished_end_has_cause_evidence_and_action(ended, words):
    run = Run(study="asl", arm="a", seed="0", stages=["simulate", "train"])
    found = diagnose(RunRecord(folder=Path("/nowhere/asl/a/0"), run=run, attempts=[ended]), NOW, words)
    assert found.state in STATES
    well = found.state in ("running", "complete", "queued")
    assert well == (found.action == "") == (not found.evidence)
    assert (found.cause is None) == (well or (found.state == "cancelled" and found.cause is None))
    assert (ended.code == 0) <= (found.state == "complete") and (found.state == "complete") <= (found.missing == [])
    assert not found.action or shlex.split(found.action, comments=True)[0] == "assay"
    assert found.eta_s is None or found.eta_s >= 0
