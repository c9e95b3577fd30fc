"""What `assay submit` submits and what it leaves alone, with a scheduler that only takes notes."""

import math
import sys
import threading
from dataclasses import replace

import pytest
from tests.matrix.toy import ALL, POOL, Commanded, Repository, give, record

from assay.__main__ import main
from assay.matrix.jobs import alone, attempts_of, machine_config
from assay.matrix.standing import study_status
from assay.matrix.submission import read_submission, write_submission
from assay.matrix.submit import Decision, decide, open_study, submit
from assay.matrix.verdicts.registration import read_registration
from assay.reports.gather import gather
from assay.schedulers.client import SilentError
from assay.schedulers.local import Local, claimed


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
