"""What state a run is in and how far it came, by its record, its log and the scheduler's words."""

import json
import subprocess
import sys

import pytest
from tests.runs.ended_runs import DIVERGED, ENDED, NOW, TRACEBACK, attempt, stage, stamped

from assay.runs import tail
from assay.runs.record import Holder, Progress, Stop


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
