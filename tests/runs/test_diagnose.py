"""What a run's state and cause are, by which evidence, and what to do next. Each case is a record, a log, or words."""

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.runs import tail
from assay.runs.diagnose import Diagnosis, diagnose
from assay.runs.record import Attempt, Holder, Job, Progress, Resources, Run, Stage, Stall, Stop, Try
from assay.runs.store import RunRecord

NOW = 1_800_000_000.0
STARTED, ENDED = NOW - 4000, NOW - 1000
GIB = 2**30
HOLDER = Holder(host="n1", pid=1, start_ticks=1, boot_id="another")
JOB = Job(scheduler="slurm", id="77", node="n7")
STATES = {"queued", "running", "complete", "partial", "failed", "cancelled", "lost"}


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


@pytest.fixture
def case(tmp_path) -> Case:
    return Case(tmp_path)


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


def test_evidence_of_a_stall_names_the_line_that_hangs(case):
    stacks = 'Thread 1 (most recent call first):\n  File "/home/me/read.py", line 12 in fetch\n'
    evidence = {"process 5": "python read.py, S", "stacks 5": stacks}
    stall = Stall(phase="load", stage="train", silent_s=620, bound_s=600, evidence=evidence)
    found = case(attempt(code=76, tries=[Try(started=STARTED, ended=ENDED, code=-9, stall=stall)]))
    assert "attempts/0001.json:tries.0.stall.evidence: " in found.evidence[1] and "read.py" in found.evidence[1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"State": "RUNNING"}, "lost"),
        ({"State": "TIMEOUT"}, "failed"),
        ({"State": "COMPLETED"}, "complete"),
        ({}, "lost"),
    ],
)
def test_an_old_heartbeat_is_lost_whatever_the_scheduler_says_unless_it_says_how_it_ended(case, words, expected):
    assert case(attempt(ended=None, code=None), scheduler=words).state == expected


def test_a_fresh_heartbeat_is_running_and_its_log_is_not_read(case):
    found = case(attempt(ended=None, code=None, heartbeat=NOW - 10), log=TRACEBACK)
    assert (found.state, found.cause, found.action, found.evidence) == ("running", None, "", [])


def test_a_heartbeat_from_the_future_is_of_a_wrong_clock_and_keeps_nobody_waiting(case):
    assert case(attempt(ended=None, code=None, heartbeat=NOW + 60)).state == "running"
    assert case(attempt(ended=None, code=None, heartbeat=NOW + 86400)).state == "lost"


def test_a_holder_whose_process_is_gone_is_lost_at_once(case):
    from assay.runs.store import this_process

    code = "from assay.runs.store import this_process; from assay.runs.record import to_json; import json; "
    said = subprocess.run(
        [sys.executable, "-c", code + "print(json.dumps(to_json(this_process())))"], stdout=-1, check=True
    )
    gone = Holder(**json.loads(said.stdout))
    for holder, state in ((this_process(), "running"), (gone, "lost")):
        assert case(attempt(holder=holder, ended=None, code=None, heartbeat=NOW - 1)).state == state


@pytest.mark.parametrize("word", ["TIMEOUT", "NODE_FAIL", "CANCELLED by 1000", "COMPLETED"])
def test_a_process_that_is_seen_here_runs_whatever_was_said_of_the_job_before_it(case, word):
    from assay.runs.store import this_process

    by_hand = attempt(holder=this_process(), ended=None, code=None, heartbeat=NOW - 1)
    assert case(by_hand, scheduler={"State": word}).state == "running"


def test_nothing_recorded_is_queued_and_can_be_begun(case):
    found = case()
    assert (found.state, found.attempts, found.node) == ("queued", 0, None)
    assert found.action.endswith("-- dvc repro")
    assert case(scheduler={"State": "PENDING"}).action == ""


def test_a_chain_whose_next_job_waits_is_queued(case):
    stopped = attempt(code=75, stop=Stop(reason="deadline", at=ENDED))
    assert case(stopped, scheduler={"State": "PENDING"}).state == "queued"


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        ({"stages": [stage("simulate", 0), stage("train", None)], "code": 143}, "partial"),
        ({"stages": [stage("train", None, seconds={"checkpoint": [1.0]})], "code": 143}, "partial"),
        ({"stages": [stage("train", None)], "code": 143}, "failed"),
        ({"stages": [stage("simulate", 0), DIVERGED]}, "failed"),
        ({"code": 75}, "partial"),
    ],
    ids=["a finished stage", "a checkpoint", "nothing", "its own fault", "stopped on request"],
)
def test_partial_has_something_to_keep_and_no_fault_that_would_come_again(case, facts, state):
    assert case(attempt(**facts)).state == state


def test_checkpoints_in_the_run_s_folder_count_though_nobody_recorded_them(case):
    (case.folder / "checkpoints").mkdir()
    assert case(attempt(code=137)).state == "failed"
    (case.folder / "checkpoints/step-10").mkdir()
    assert case(attempt(code=137)).state == "partial"


def test_a_person_who_cancels_is_not_a_failure(case):
    found = case(attempt(code=143), scheduler={"State": "CANCELLED by 1000"})
    assert (found.state, found.cause) == ("cancelled", "signal SIGTERM")
    assert "scheduler.State: CANCELLED by 1000" in found.evidence
    assert case(attempt(code=130, stop=Stop(reason="SIGINT", at=ENDED))).state == "cancelled"


def test_missing_stages_are_those_of_the_plan_that_never_ended_well(case):
    case.stages = ["simulate", "train", "validate"]
    first = attempt(1, code=75, stages=[stage("simulate", 0), stage("train", 75)])
    second = attempt(2, stages=[stage("train", 0), stage("validate", 1, kind="ValueError")])
    assert case(first, second).missing == ["validate"]
    assert case(first, attempt(2, code=0)).missing == []


def test_a_stage_that_dvc_found_unchanged_is_not_missing(case):
    case.stages = ["simulate", "train"]
    found = case(attempt(), log=stamped("Stage 'simulate' didn't change, skipping", "Running stage 'train':"))
    assert found.missing == ["train"]


def test_the_stage_is_the_one_that_failed_or_spoke_last(case):
    here = Progress(study="asl", stage="train", phase="train", done=5, of=10)
    assert case(attempt(progress=here, stages=[stage("train", 0), stage("validate")])).stage == "validate"
    assert case(attempt(progress=here, stages=[stage("simulate", 0)])).stage == "train"


def test_progress_is_that_of_the_newest_attempt_that_got_anywhere(case):
    here = Progress(stage="train", phase="train", done=500, of=1000)
    found = case(attempt(1, code=75, progress=here), attempt(2, progress=Progress(stage="train", phase="load")))
    assert (found.progress.done, found.progress.of, found.attempts) == (500, 1000, 2)


def test_eta_comes_from_the_pace_of_all_attempts(case):
    """600 steps in 300 s, then 400 in 400 s: 500 more take 350 s, of which 20 have passed."""
    first = Progress(stage="train", done=600, of=1500, since=NOW - 2000, changed=NOW - 1700)
    second = Progress(stage="train", done=1000, of=1500, since=NOW - 420, changed=NOW - 20)
    running = attempt(2, ended=None, code=None, heartbeat=NOW, progress=second)
    assert case(attempt(1, code=75, progress=first), running).eta_s == pytest.approx(330)


def deadline_run(**facts: Any) -> Attempt:
    """Began at 0 with 100 s of loading, then 400 of 1000 steps in 2000 s; stopped for its limit of 3000 s."""
    here = Progress(stage="train", phase="train", done=400, of=1000, since=STARTED + 100, changed=STARTED + 2100)
    stop = Stop(reason="deadline", at=ENDED)
    return attempt(**{"code": 75, "stop": stop, "progress": here, "deadline": STARTED + 3000, "job": JOB, **facts})


def test_after_a_time_limit_the_next_limit_covers_what_is_left_with_a_margin(case):
    """100 s to start, 600 steps of 5 s, 600 s of validation: 3700 s, times 1.15, up to the quarter of an hour."""
    case.stages, case.typical = ["train", "validate"], {"validate": 600.0}
    action = case(deadline_run(stages=[stage("train", 75)])).action
    assert action == f"assay exec --run {case.folder} -- dvc repro  # --time=01:15:00 (1 h 2 min needed)"


def test_without_a_checkpoint_everything_is_to_be_done_again(case):
    assert "--time=01:45:00 (1 h 25 min needed)" in case(deadline_run(code=143)).action


def test_a_stage_never_measured_is_named(case):
    case.stages = ["train", "validate"]
    assert "and the time of validate, never measured" in case(deadline_run(stages=[stage("train", 75)])).action


def test_a_limit_is_written_as_the_scheduler_of_the_job_takes_it(case):
    lsf = Job(scheduler="lsf", id="5", node="h1")
    assert "# -W 1:45 (" in case(deadline_run(code=143, job=lsf)).action
    assert "# a limit of 1 h 45 min (" in case(deadline_run(code=143, job=None)).action


@pytest.mark.parametrize(
    ("facts", "advice"),
    [
        ({"code": 76, "job": JOB}, "# --exclude=n7"),
        ({"code": 76, "job": Job(scheduler="lsf", id="5", node="h1")}, "# -R \"select[hname!='h1']\""),
        ({"resources": OOM_KILLED, "job": JOB}, "# --mem=10G (peak 8.0 GiB)"),
        ({"resources": OOM_KILLED}, "# 10 GiB of memory (peak 8.0 GiB)"),
        ({"stages": [stage(kind="OutOfMemoryError")]}, "# after making batch or model smaller"),
        ({"stages": [DIVERGED]}, "# after changing what made it diverge"),
        ({"stages": [stage(kind="OSError", error="No space left on device")]}, "# after making room where "),
        ({"stages": [stage(kind="KeyError")]}, "# after correcting what the evidence shows"),
        ({"ended": None, "code": None, "job": JOB}, "# first make sure that it no longer runs on n7 (job 77)"),
    ],
)
def test_the_next_step_is_a_command_and_what_to_change(case, facts, advice):
    found = case(attempt(**facts))
    assert found.action.startswith(f"assay exec --run {case.folder} -- dvc repro  {advice}")


def test_a_refused_configuration_is_checked_before_it_is_run_again(case):
    found = case(attempt(cwd="/work/clone", stages=[stage(code=2, kind="ConfigError")]))
    assert found.action.startswith("assay check asl /work/clone/params.yaml  # then assay exec --run ")


def test_after_a_signal_the_same_command_goes_on(case):
    assert case(attempt(code=75, stop=Stop(reason="SIGTERM", at=ENDED))).action == (
        f"assay exec --run {case.folder} -- dvc repro"
    )


def test_a_shell_takes_the_action_as_the_command_that_was_given(case):
    given_command = ["sh", "-c", "echo 'a b' # $HOME"]
    action = case(attempt(command=given_command, code=76, job=JOB)).action
    assert shlex.split(action, comments=True) == ["assay", "exec", "--run", str(case.folder), "--", *given_command]


def test_a_log_that_cannot_be_read_is_no_obstacle(case):
    (case.folder / "logs/0001.log").mkdir(parents=True)
    assert case(attempt(code=3)).cause == "unknown"


def test_of_a_long_log_both_ends_are_read_and_its_last_lines_count_from_the_end(case):
    lines = [f"epoch {number}/10000" for number in range(1, 9000)]
    log = stamped("Stage 'simulate' is cached - skipping run", *lines, "ValueError: x", every=1)
    path = case.folder / "long.log"
    path.write_text(log)
    ends = tail.read_ends(path)
    assert sum(len(line.raw) + 1 for line in ends) <= tail.HEAD_BYTES + tail.TAIL_BYTES < len(log)
    assert (ends[0].number, ends[1].text) == (1, "epoch 1/10000")
    assert (ends[-1].number, ends[-2].number, ends[-1].text) == (-1, -2, "ValueError: x")
    assert tail.unchanged_stages(ends) == ["simulate"]
    come = tail.progress(ends)
    assert come is not None and (come.done, come.of, come.unit) == (8999, 10000, "epochs")
    assert (come.changed - come.since) / come.done == pytest.approx(1.0)


@pytest.mark.parametrize("line", ["Epoch 7/20: 100%|###|", "epoch: 7 of 20", "[epoch 7 / 20] loss 0.1"])
def test_ways_to_count_in_a_log(line):
    come = tail.progress([tail.Line(1, f"2026-01-01T00:00:00Z {line}")])
    assert come is not None and (come.done, come.of, come.unit) == (7, 20, "epochs")


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
