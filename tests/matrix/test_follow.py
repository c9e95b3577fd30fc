"""What is seen and done of a study that was submitted: status, logs, cancel, and how a report counts its runs."""

import json
import os
from dataclasses import replace
from functools import partial

import pytest
from tests.matrix.toy import ALL, POOL, give, record

from assay.__main__ import main
from assay.errors import ConfigError
from assay.matrix.standing import study_status
from assay.matrix.submit import cancel, open_study, submit
from assay.reports.gather import gather
from assay.runs.processes import start_ticks
from assay.runs.store import RunFolder
from assay.schedulers.local import Local, State, claimed, write_state


def test_a_report_counts_a_run_as_queued_only_while_a_scheduler_has_its_job(repository):
    scheduler = Local(repository.folder / POOL)
    with claimed(repository.folder / POOL):
        submit(open_study(repository.study, "slow"), scheduler)
        assert {cell.state for cell in gather(repository.study, "slow").cells} == {"queued"}
        cancel(repository.study, None, scheduler)
        assert {cell.state for cell in gather(repository.study, "slow").cells} == {"missing"}


def test_cancel_ends_what_is_queued_or_running_of_the_arms_named(repository, scheduler):
    give(repository, scheduler)
    scheduler.words["5"] = "ended"
    found = cancel(repository.study, "fast", scheduler)
    assert found == [{"arm": "fast", "seed": 0, "state": "queued", "job": "2"}]
    assert scheduler.cancelled == ["2"]
    with pytest.raises(ConfigError, match="--only: got quick; allowed: a pattern that matches one of slow, fast"):
        cancel(repository.study, "quick", scheduler)


def test_cancel_ends_what_was_submitted_whatever_the_study_file_says_by_now(repository, scheduler):
    give(repository, scheduler)
    repository.change_study("  broken:\n    reason: Fails.\n    set: {train.optimizer.lr: 2.0}\n", "")
    repository.change_study("seeds: [0, 1]", "seeds: [0]")
    assert len(cancel(repository.study, None, scheduler)) == len(scheduler.cancelled) == len(ALL)
    assert [each["arm"] for each in cancel(repository.study, "broken", scheduler)] == ["broken", "broken"]


def test_the_advice_of_a_study_is_to_submit(repository, scheduler):
    give(repository, scheduler)
    record(repository.run("slow", 0), code=1, stage={"kind": "ValueError", "error": "no"})
    record(repository.run("broken", 0), code=1, stage={"kind": "NonFiniteError", "error": "loss is NaN at step 3"})
    actions = {(each.arm, each.seed): each.action for each in study_status(repository.study, None)}
    assert f"assay submit {repository.study} --only slow" in actions[("slow", "0")]
    assert f"assay submit {repository.study} --only broken --again" in actions[("broken", "0")]
    assert not any("assay exec" in action for action in actions.values())


def test_status_of_a_study_shows_missing_runs(repository, scheduler):
    submit(open_study(repository.study, "slow"), scheduler)
    record(repository.run("slow", 0), code=0)
    (repository.run("slow", 0) / "metrics.json").write_text("{}")
    record(repository.run("slow", 1), code=0)
    found = {(each.arm, each.seed): each.state for each in study_status(repository.study, None)}
    assert found[("slow", "0")] == "complete"
    assert found[("slow", "1")] == "partial"  # its result was not handed back
    assert {found[("fast", "0")], found[("broken", "1")]} == {"missing"}
    assert {each.arm for each in study_status(repository.study, "s*")} == {"slow"}


def test_status_follows_the_queue_until_the_result_is_handed_back(repository):
    with claimed(repository.folder / POOL):  # no pool begins to work: the test says what one would
        pool = Local(repository.folder / POOL)
        submit(open_study(repository.study, "slow"), pool)
        assert {each.state for each in study_status(repository.study, "slow")} == {"queued"}
        write_state(pool.folder, "000001", State(word="RUNNING", pid=os.getpid(), start_ticks=start_ticks(os.getpid())))
        record(repository.run("slow", 0), code=0)
        assert [each.state for each in study_status(repository.study, "slow")] == ["running", "queued"]
        (repository.run("slow", 0) / "metrics.json").write_text("{}")
        assert [each.state for each in study_status(repository.study, "slow")] == ["complete", "queued"]


def test_nothing_more_is_advised_when_only_nan_is_left(repository, scheduler, capsys):
    submit(open_study(repository.study, "broken"), scheduler)
    for seed in (0, 1):
        record(repository.run("broken", seed), code=1, stage={"kind": "NonFiniteError", "error": "loss is NaN"})
    assert main(["status", str(repository.study), "--only", "broken"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 failed"


def test_the_verbs_speak_json(repository, capsys):
    assert main(["submit", str(repository.study), "--dry-run", "--only", "fast", "--json"]) == 0
    assert [each["arm"] for each in json.loads(capsys.readouterr().out)] == ["fast", "fast"]
    assert main(["status", str(repository.study), "--json"]) == 0
    assert {each["state"] for each in json.loads(capsys.readouterr().out)} == {"missing"}
    assert main(["cancel", str(repository.study), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_status_without_json_ends_with_the_command_that_does_the_rest(repository, capsys):
    assert main(["status", str(repository.study)]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["6 missing", f"-> assay submit {repository.study}"]


def test_logs_are_those_of_the_newest_attempt(repository, scheduler, capsys):
    give(repository, scheduler)
    run = repository.run("slow", 0)
    record(run, code=0)
    (run / "logs").mkdir()
    (run / "logs/0001.log").write_text("one\ntwo\n")
    assert main(["logs", str(run), "-f"]) == 0
    assert capsys.readouterr().out == "one\ntwo\n"
    assert main(["logs", str(repository.run("fast", 0))]) == 2
    assert "got no log; allowed: the folder of a run that has begun" in capsys.readouterr().err


def test_logs_are_followed_from_the_job_on_through_all_attempts_to_the_end_of_the_run(repository, capsys, monkeypatch):
    run, pool = repository.run("slow", 0), Local(repository.folder / POOL)

    def printed(text: str, code: int) -> None:
        newest = RunFolder(run).read().attempts[-1]
        RunFolder(run).append_log(newest.number, text)
        RunFolder(run).update(replace(newest, ended=newest.started, code=code))

    happens = iter(
        [
            partial(record, run, code=None),  # which has printed nothing yet
            partial(printed, "first\n", code=75),
            partial(record, run, code=None),
            partial(printed, "second\n", code=0),
        ]
    )
    with claimed(repository.folder / POOL):
        submit(open_study(repository.study, "slow"), pool)
        (run / "job.log").write_text("clone ready\n")
        monkeypatch.setattr("assay.matrix.standing.time.sleep", lambda seconds: next(happens)())
        assert main(["logs", str(run), "-f"]) == 0
    assert capsys.readouterr().out == "clone ready\nfirst\nsecond\n"
    assert next(happens, None) is None


def test_logs_of_a_job_that_ended_before_its_run_began_end_too(repository, scheduler, capsys):
    give(repository, scheduler)
    scheduler.end_all()
    (repository.run("slow", 0) / "job.log").write_text("no room for a clone\n")
    assert main(["logs", str(repository.run("slow", 0)), "-f"]) == 0
    assert capsys.readouterr().out == "no room for a clone\n"


def test_only_needs_a_study_file(tmp_path, capsys):
    assert main(["status", str(tmp_path), "--only", "x"]) == 2
    assert "--only: got" in capsys.readouterr().err


def test_status_ends_with_what_is_paid_for_where_machines_were_rented(repository, capsys, monkeypatch):
    monkeypatch.setattr("assay.matrix.standing.paid_for", lambda root: [f"2 machines are paid for from {root}"])
    assert main(["status", str(repository.study)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"2 machines are paid for from {repository.folder}"


def test_a_report_counts_no_run_as_complete_whose_result_was_not_handed_back(repository, scheduler):
    submit(open_study(repository.study, "slow"), scheduler)
    scheduler.end_all()
    record(repository.run("slow", 0), code=0)
    record(repository.run("slow", 1), code=0)
    (repository.run("slow", 0) / "metrics.json").write_text('{"validate/error": 1.0}')
    assert [cell.state for cell in gather(repository.study, "slow").cells] == ["complete", "partial"]
    assert "runs are missing or not at their end" in gather(repository.study).verdicts["H1"].reason
