"""What `assay submit` submits and what it leaves alone, with a scheduler that only takes notes."""

import json
import math
import os
import shutil
import sys
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tests.matrix.toy import Commanded, Repository, record

from assay.__main__ import main
from assay.errors import ConfigError, UserError
from assay.matrix.jobs import alone, attempts_of, machine_config, scheduler_of
from assay.matrix.standing import study_status
from assay.matrix.submission import read_submission, write_submission
from assay.matrix.submit import Decision, cancel, decide, open_study, submit
from assay.matrix.verdicts.registration import read_registration
from assay.reports.gather import gather
from assay.runs.store import RunFolder
from assay.schedulers.client import SilentError
from assay.schedulers.local import Local, State, claimed, start_ticks, write_state

POOL = ".assay/pool"
ALL = [(arm, seed) for seed in (0, 1) for arm in ("slow", "fast", "broken")]


def give(repository: Repository, scheduler: Commanded, **options: bool) -> list[Decision]:
    return submit(open_study(repository.study, None), scheduler, **options)


def copied(repository: Repository) -> Path:
    """The folder of a second study, committed, which is the same and has the same name."""
    other = repository.folder / "copy"
    other.mkdir()
    for name in ("study.yaml", "dvc.yaml", "params.yaml", "stage.py"):
        shutil.copy(repository.folder / name, other)
    repository.commit()
    return other


def look(repository: Repository, scheduler: Commanded, again: bool = False) -> list[Decision]:
    return decide(open_study(repository.study, None), scheduler, again)


def what(decisions: list[Decision], arm: str, seed: int) -> Decision:
    (found,) = [each for each in decisions if (each.arm, each.seed) == (arm, seed)]
    return found


def test_everything_that_is_missing_is_submitted_seed_by_seed(repository, scheduler):
    decisions = give(repository, scheduler)
    assert [(each.arm, each.seed) for each in decisions] == ALL
    assert [job.name for job in scheduler.jobs.values()] == [f"toy-{arm}-s{seed}" for arm, seed in ALL]
    kept = read_submission(repository.run("fast", 1))
    assert kept.overrides == ["train.optimizer.lr=0.5", "seed=1"]
    assert (kept.params["train"]["optimizer"]["lr"], kept.params["seed"]) == (0.5, 1)
    assert kept.commit == repository.git("rev-parse", "HEAD")


def test_what_is_queued_or_running_is_not_submitted_again(repository, scheduler):
    give(repository, scheduler)
    scheduler.words["1"] = "running"
    record(repository.run("slow", 0), code=None)
    again = give(repository, scheduler)
    assert what(again, "slow", 0).what == "running"
    assert {each.what for each in again[1:]} == {"queued"}
    assert len(scheduler.jobs) == len(ALL)


def test_a_job_that_the_scheduler_has_lost_is_submitted_again(repository, scheduler):
    give(repository, scheduler)
    scheduler.end_all()
    del scheduler.words["2"]
    assert {each.what for each in give(repository, scheduler)} == {"submit"}


def test_a_job_of_another_scheduler_is_left_alone(repository, scheduler):
    """The study was submitted to this computer's pool, which holds its jobs back, and now to another scheduler."""
    with claimed(repository.folder / POOL):
        submit(open_study(repository.study, "slow"), Local(repository.folder / POOL))
        decisions = give(repository, scheduler)
    assert what(decisions, "slow", 0).what == what(decisions, "slow", 1).what == "queued"
    assert len(scheduler.jobs) == 4


def test_a_job_whose_submitter_died_before_it_knew_is_not_submitted_again(repository, scheduler):
    give(repository, scheduler)
    run = repository.run("fast", 0)
    write_submission(run, replace(read_submission(run), job=""))
    assert {each.what for each in give(repository, scheduler)} == {"queued"}
    assert read_submission(run).job == "2"
    assert len(scheduler.jobs) == len(ALL)


def test_a_second_study_of_the_same_name_is_refused_for_its_runs_would_take_the_clones_of_the_first(
    repository, scheduler
):
    other = copied(repository)
    give(repository, scheduler)
    with pytest.raises(ConfigError, match=r"name: got toy, and .*/runs/toy has runs of a study of that name; allowed"):
        submit(open_study(other / "study.yaml", None), scheduler)
    assert len(scheduler.jobs) == len(ALL)
    (repository.folder / "runs/toy").rename(repository.folder / "runs/older")
    assert len(submit(open_study(other / "study.yaml", None), scheduler)) == len(ALL)


def test_a_dry_run_refuses_a_name_that_is_taken_as_the_submission_would(repository, scheduler, capsys):
    other = copied(repository)
    give(repository, scheduler)
    assert main(["submit", str(other / "study.yaml"), "--dry-run"]) == 2
    assert "name: got toy, and " in capsys.readouterr().err


def test_a_registration_that_was_committed_and_then_amended_keeps_no_run_from_being_submitted(repository, scheduler):
    give(repository, scheduler)
    repository.git("add", "--force", "runs/toy/registered.json")
    repository.commit()
    repository.change_study("margin: 0.1", "margin: 0.2")
    give(repository, scheduler)
    assert "registered.json" in repository.git("status", "--porcelain")
    give(repository, scheduler)


def test_the_folder_of_all_runs_may_be_a_link_to_another_disk(repository, scheduler, tmp_path_factory):
    (repository.folder / "runs").symlink_to(tmp_path_factory.mktemp("disk"))
    assert {each.what for each in give(repository, scheduler)} == {"submit"}
    assert {each.what for each in give(repository, scheduler)} == {"queued"}


def test_while_the_scheduler_is_silent_nothing_is_submitted(repository, scheduler):
    give(repository, scheduler)
    scheduler.accepts = 0
    with pytest.raises(SilentError, match="says nothing"):
        give(repository, scheduler)
    assert len(scheduler.jobs) == len(ALL)


def test_what_was_accepted_before_the_scheduler_fell_silent_is_on_record(repository, scheduler):
    scheduler.accepts = 4
    with pytest.raises(SilentError):
        give(repository, scheduler)
    scheduler.accepts = math.inf
    assert [each.what for each in give(repository, scheduler)] == ["queued"] * 4 + ["submit"] * 2
    assert len(scheduler.jobs) == len(ALL)


def test_the_job_as_it_was_rendered_is_kept_in_the_folder_of_its_run(repository, scheduler):
    give(repository, scheduler)
    for job in scheduler.jobs.values():
        assert job.script.read_text() == scheduler.render(job)
    assert scheduler.jobs["2"].script == repository.run("fast", 0) / "job.sh"


def test_a_job_asks_for_what_the_machine_file_says(repository, scheduler, tmp_path):
    place = tmp_path / "machine.yaml"
    place.write_text("scheduler: slurm\nwall_limit: 3600\nchain: 4\nresources: {cpus: 3}")
    submit(open_study(repository.study, "slow", place), scheduler)
    (job, _) = scheduler.jobs.values()
    assert (job.attempts, job.wall_limit, job.resources.cpus) == (4, 3600.0, 3)


@pytest.mark.parametrize(
    ("text", "expected", "attempts"),
    [
        ("name: here", 5, 1),
        ("scheduler: slurm", 5, 1),
        ("scheduler: slurm\nwall_limit: 3600", 3, 4),
        ("scheduler: slurm\nwall_limit: 3600", None, 2),
        ("scheduler: slurm\nwall_limit: 3600\nchain: 1", 3, 1),
    ],
)
def test_a_chain_is_as_long_as_forecast_and_one_to_spare(tmp_path, text, expected, attempts):
    (tmp_path / "machine.yaml").write_text(text)
    assert attempts_of(machine_config(tmp_path / "machine.yaml"), expected) == attempts


@pytest.mark.parametrize(("nodes", "avoided"), [("n1\n", ("n1",)), ("n1\nn1\n", ("n1",)), ("n1\nn2\n", ())])
def test_the_node_where_a_run_stalled_is_avoided_unless_it_stalls_everywhere(repository, scheduler, nodes, avoided):
    give(repository, scheduler)
    scheduler.end_all()
    (repository.run("slow", 0) / "suspect-nodes").write_text(nodes)
    give(repository, scheduler)
    assert scheduler.jobs["7"].avoid == avoided
    assert scheduler.jobs["8"].avoid == ()


def test_an_old_result_is_removed_when_its_run_is_submitted_again(repository, scheduler):
    """Where metrics.json is, nothing is missing; a job ends at once there."""
    give(repository, scheduler)
    scheduler.end_all()
    record(repository.run("slow", 0), code=1, stage={"kind": "ValueError", "error": "no"})
    (repository.run("slow", 0) / "metrics.json").write_text("{}")
    give(repository, scheduler)
    assert not (repository.run("slow", 0) / "metrics.json").exists()


def test_submits_of_one_repository_wait_for_each_other(repository, scheduler, capsys):
    holder = threading.Thread(target=lambda: give(repository, Commanded()))
    with alone(repository.folder):
        holder.start()
        holder.join(timeout=1.0)
        assert holder.is_alive() and not (repository.folder / "runs").exists()
    holder.join()
    assert "waiting for another assay submit" in capsys.readouterr().err
    assert {each.what for each in give(repository, scheduler)} == {"submit"}  # by a scheduler that nobody else knows


def test_a_run_that_works_without_a_job_is_left_alone(repository, scheduler):
    give(repository, scheduler)
    scheduler.end_all()
    record(repository.run("fast", 0), code=None)
    assert what(give(repository, scheduler), "fast", 0).what == "running"


def test_a_complete_run_is_left_alone_once_its_result_was_handed_back(repository, scheduler):
    give(repository, scheduler)
    scheduler.end_all()
    for seed in (0, 1):
        record(repository.run("slow", seed), code=0)
    (repository.run("slow", 0) / "metrics.json").write_text("{}")
    again = give(repository, scheduler)
    assert what(again, "slow", 0).what == "complete"
    assert what(again, "slow", 1).what == "submit"


def test_a_run_that_met_nan_is_a_result_until_the_code_changes_or_it_is_asked_for(repository, scheduler):
    give(repository, scheduler)
    scheduler.end_all()
    nan = {"kind": "NonFiniteError", "error": "loss is NaN at step 3"}
    record(repository.run("broken", 0), code=1, stage=nan)
    decision = what(look(repository, scheduler), "broken", 0)
    assert decision.what == "failed" and "denominator" in decision.note
    assert what(look(repository, scheduler, again=True), "broken", 0).what == "submit"
    repository.commit()
    assert what(give(repository, scheduler), "broken", 0).what == "submit"


def test_any_other_failure_is_submitted_again(repository, scheduler):
    give(repository, scheduler)
    scheduler.end_all()
    record(repository.run("broken", 0), code=1, stage={"kind": "ValueError", "error": "no"})
    decision = what(give(repository, scheduler), "broken", 0)
    assert (decision.what, decision.note) == ("submit", "failed: ValueError")


def test_a_run_of_other_parameters_is_reported_and_kept(repository, scheduler):
    give(repository, scheduler)
    scheduler.end_all()
    record(repository.run("fast", 0), code=0)
    (repository.run("fast", 0) / "metrics.json").write_text("{}")
    repository.change_study("lr: 0.5", "lr: 0.25")
    decision = what(give(repository, scheduler), "fast", 0)
    assert decision.what == "changed"
    assert "train.optimizer.lr=0.5 (now 0.25)" in decision.note and "move" in decision.note


def test_a_dry_run_shows_what_would_be_submitted_and_does_nothing(repository, capsys):
    assert main(["submit", str(repository.study), "--dry-run", "--only", "fast"]) == 0
    said = capsys.readouterr().out
    run = repository.run("fast", 1)
    assert f"cd {repository.folder} && exec {sys.executable} -m assay.matrix.workplace {run} >>{run}/job.log" in said
    assert said.endswith("fast/0: submit (missing)\nfast/1: submit (missing)\n2 of 2 runs would be submitted\n")
    assert not (repository.folder / "runs").exists() and not (repository.folder / ".assay").exists()


def test_hypotheses_are_registered_before_the_first_run_and_amendments_are_noted(repository, scheduler):
    give(repository, scheduler)
    repository.change_study("margin: 0.1", "margin: 0.2")
    give(repository, scheduler)
    registration = read_registration(repository.folder / "runs/toy")
    assert [entry.changes for entry in registration.entries] == [(), ("H1.margin 0.1 -> 0.2",)]


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


def test_uncommitted_code_is_refused_but_the_study_file_may_differ(repository):
    repository.study.write_text(repository.study.read_text() + "# a note\n")
    open_study(repository.study, None)
    (repository.folder / "stage.py").write_text("pass")
    with pytest.raises(UserError, match=r"uncommitted changes in stage.py; every run gets the last commit; commit"):
        open_study(repository.study, None)


def test_a_report_that_was_committed_and_written_anew_keeps_no_run_from_being_submitted(repository, scheduler):
    for name in ("report.md", "code.py"):
        (repository.folder / "reports/toy").mkdir(parents=True, exist_ok=True)
        (repository.folder / "reports/toy" / name).write_text("one")
    repository.commit()
    (repository.folder / "reports/toy/report.md").write_text("two")
    assert len(give(repository, scheduler)) == len(ALL)
    (repository.folder / "reports/toy/code.py").write_text("two")
    with pytest.raises(UserError, match=r"got uncommitted changes in reports/toy/code\.py;"):
        give(repository, scheduler)


def test_a_pipeline_that_is_not_committed_is_refused(repository):
    repository.git("rm", "--quiet", "--cached", "dvc.yaml")
    repository.git("commit", "--quiet", "--message", "forgotten")
    with pytest.raises(UserError, match=r"dvc.yaml: got a file that is not committed"):
        open_study(repository.study, None)


def test_a_folder_without_git_is_refused(repository):
    (repository.folder / ".git").rename(repository.folder / "git-of-old")
    with pytest.raises(UserError, match="got no commit of a git repository"):
        open_study(repository.study, None)


def test_only_needs_a_study_file(tmp_path, capsys):
    assert main(["status", str(tmp_path), "--only", "x"]) == 2
    assert "--only: got" in capsys.readouterr().err


def test_a_wrong_machine_file_is_named(repository, tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_text("jobs: 0")
    with pytest.raises(ConfigError, match="jobs: got 0"):
        scheduler_of(repository.folder, path)


def test_status_ends_with_what_is_paid_for_where_machines_were_rented(repository, capsys, monkeypatch):
    monkeypatch.setattr("assay.matrix.standing.paid_for", lambda root: [f"2 machines are paid for from {root}"])
    assert main(["status", str(repository.study)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"2 machines are paid for from {repository.folder}"


def test_a_record_that_was_moved_away_is_no_longer_that_of_its_arm(repository, scheduler):
    """As the advice about changed parameters says: aside, to a folder of another name, or deeper."""
    give(repository, scheduler)
    scheduler.end_all()
    for place in ("toy/fast.old/0", "toy/fast/0.old", "toy/zold/fast/0"):
        aside = repository.folder / "runs" / place
        aside.parent.mkdir(parents=True, exist_ok=True)
        record(repository.run("fast", 0), code=1, stage={"kind": "ValueError", "error": "no"})
        repository.run("fast", 0).rename(aside)
        give(repository, scheduler)
    scheduler.end_all()
    record(repository.run("fast", 0), code=0)
    (repository.run("fast", 0) / "metrics.json").write_text("{}")
    assert what(look(repository, scheduler), "fast", 0).what == "complete"
    states = {(each.arm, each.seed): each.state for each in study_status(repository.study, "fast")}
    assert states["fast", "0"] == "complete"
    assert next(cell for cell in gather(repository.study, "fast").cells if cell.seed == 0).state == "complete"


def test_a_report_counts_no_run_as_complete_whose_result_was_not_handed_back(repository, scheduler):
    submit(open_study(repository.study, "slow"), scheduler)
    scheduler.end_all()
    record(repository.run("slow", 0), code=0)
    record(repository.run("slow", 1), code=0)
    (repository.run("slow", 0) / "metrics.json").write_text('{"validate/error": 1.0}')
    assert [cell.state for cell in gather(repository.study, "slow").cells] == ["complete", "partial"]
    assert "runs are missing or not at their end" in gather(repository.study).verdicts["H1"].reason
