"""What to do next about a run: a command, and what to change before it is given."""

import dataclasses
import shlex
from typing import Any

import pytest
from tests.runs.ended_runs import DIVERGED, ENDED, JOB, OOM_KILLED, STARTED, attempt, stage

from assay.runs.record import Attempt, Job, Progress, Stop
from assay.runs.store import this_process


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


def test_a_run_whose_supervisor_is_known_to_be_dead_is_begun_again_at_once(case):
    dead = dataclasses.replace(this_process(), start_ticks=0)
    found = case(attempt(ended=None, code=None, holder=dead))
    assert (found.state, found.action) == ("lost", f"assay exec --run {case.folder} -- dvc repro")


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
