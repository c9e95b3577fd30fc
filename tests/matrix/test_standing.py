"""`assay status` of a study and of a folder, and what it advises: the same words, and no step outside a clone."""

import json
import os
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from tests.matrix.toy import POOL, Repository, record

from assay.__main__ import main
from assay.machine import MachineConfig
from assay.matrix.arms import resolve
from assay.matrix.forecast.forecast import forecast
from assay.matrix.standing import study_status
from assay.matrix.submission import read_submission, write_submission
from assay.matrix.submit import cancel, decide, open_study, submit
from assay.reports.gather import gather
from assay.runs.diagnose import Diagnosis
from assay.runs.record import Resources
from assay.runs.store import RunFolder
from assay.schedulers.local import Local, claimed

FAULT = {"kind": "ValueError", "error": "no"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def below(capsys):
    """What `assay status FOLDER` says, by arm and seed."""

    def look(folder: Path | str = "runs") -> dict[tuple[str, str], dict[str, object]]:
        assert main(["status", str(folder), "--json"]) == 0
        return {(each["arm"], each["seed"]): each for each in json.loads(capsys.readouterr().out)}

    return look


def of_study(repository: Repository) -> dict[tuple[str, str], Diagnosis]:
    return {(each.arm, each.seed): each for each in study_status(repository.study, None)}


def complete(run: Path) -> None:
    record(run, code=0)
    (run / "metrics.json").write_text("{}")


def test_a_folder_advises_to_submit_what_was_submitted_and_never_to_run_it_in_the_working_tree(
    repository, scheduler, below
):
    submit(open_study(repository.study, None), scheduler)
    scheduler.end_all()
    record(repository.run("slow", 0), code=1, stage=FAULT)
    record(repository.run("broken", 0), code=1, stage={"kind": "NonFiniteError", "error": "loss is NaN at step 3"})
    record(repository.run("slow", 1), code=0)
    found = below()
    assert not any("assay exec" in each["action"] or "dvc repro" in each["action"] for each in found.values())
    assert found["slow", "0"]["action"].startswith("assay submit study.yaml --only slow  # after correcting")
    assert found["broken", "0"]["action"].startswith("assay submit study.yaml --only broken --again  # after changing")
    assert found["broken", "0"]["action"].endswith("; if the arm changes, mv runs/toy/broken/0 aside first")
    assert (found["slow", "1"]["state"], found["slow", "1"]["action"]) == (
        "partial",
        "assay submit study.yaml --only slow",
    )
    assert found["fast", "1"]["action"] == "assay submit study.yaml --only fast"


def test_the_advice_is_the_same_from_within_the_folder_of_the_run(repository, scheduler, below, monkeypatch):
    submit(open_study(repository.study, None), scheduler)
    record(repository.run("slow", 0), code=1, stage=FAULT)
    monkeypatch.chdir(repository.run("slow", 0))
    assert below(".")["slow", "0"]["action"].startswith(f"assay submit {repository.study} --only slow  # after")


def test_a_folder_advises_nothing_for_what_is_queued_running_or_complete(repository, below):
    with claimed(repository.folder / POOL):
        submit(open_study(repository.study, "slow"), Local(repository.folder / POOL))
        record(repository.run("slow", 0), code=None)
        states = {key: (each["state"], each["action"]) for key, each in below().items()}
    assert states == {("slow", "0"): ("running", ""), ("slow", "1"): ("queued", "")}
    complete(repository.run("slow", 1))
    assert below()["slow", "1"]["action"] == ""


@pytest.mark.parametrize("folder", ["runs", "runs/toy", "runs/toy/slow/0", "."])
def test_a_run_whose_job_was_cancelled_is_missing_in_the_folder_as_in_the_study(repository, below, folder):
    with claimed(repository.folder / POOL):
        submit(open_study(repository.study, "slow"), Local(repository.folder / POOL))
        cancel(repository.study, None)
    assert below(folder)["slow", "0"]["state"] == of_study(repository)["slow", "0"].state == "missing"


def test_a_run_that_was_moved_away_is_shown_and_not_advised_upon(repository, scheduler, below):
    submit(open_study(repository.study, "slow"), scheduler)
    record(repository.run("slow", 0), code=1, stage=FAULT)
    repository.run("slow", 0).rename(repository.folder / "runs/toy/slow/0.old")
    assert (below()["slow", "0.old"]["state"], below()["slow", "0.old"]["action"]) == ("failed", "")


def test_a_submission_of_an_older_version_leaves_the_study_file_to_the_reader(repository, scheduler, below):
    submit(open_study(repository.study, "slow"), scheduler)
    run = repository.run("slow", 0)
    write_submission(run, replace(read_submission(run), study=""))
    scheduler.end_all()
    assert below()["slow", "0"]["action"] == "assay submit STUDY.yaml --only slow"


def test_a_run_that_nobody_submitted_is_advised_as_ever(repository, scheduler, below):
    submit(open_study(repository.study, "slow"), scheduler)
    record(repository.run("slow", 0), code=1, stage=FAULT)
    (repository.run("slow", 0) / "submission.json").unlink()
    assert below()["slow", "0"]["action"].startswith("assay exec --run runs/toy/slow/0 -- dvc repro")


def test_a_run_of_other_parameters_is_changed_and_not_complete(repository, scheduler, capsys):
    submit(open_study(repository.study, None), scheduler)
    scheduler.end_all()
    for arm in ("slow", "fast", "broken"):
        for seed in (0, 1):
            complete(repository.run(arm, seed))
    record(repository.run("broken", 1), code=1, stage=FAULT)
    repository.change_study("lr: 0.5", "lr: 0.25")
    repository.change_study("lr: 2.0", "lr: 4.0")
    assert main(["status", str(repository.study)]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-1] == "2 complete, 4 changed"  # and nothing to submit, for submit would leave them
    assert "run.json:params: complete with train.optimizer.lr=0.5 (now 0.25)" in shown
    assert "run.json:params: failed with train.optimizer.lr=2.0 (now 4.0)" in shown
    run, step = repository.run("fast", 0), of_study(repository)["fast", "0"].action
    assert shlex.split(step, comments=True) == ["mv", str(run), f"{run}.old"]


def test_a_run_stays_complete_where_only_keys_change_that_cannot_change_a_result(repository, scheduler):
    submit(open_study(repository.study, None), scheduler)
    scheduler.end_all()
    for arm in ("slow", "fast", "broken"):
        for seed in (0, 1):
            complete(repository.run(arm, seed))
    repository.change_study("arms:\n", "base: {train.device: cuda, data.path: elsewhere}\narms:\n")
    assert {each.state for each in of_study(repository).values()} == {"complete"}
    planned = forecast(repository.study, resolve(repository.study), MachineConfig())
    assert (planned.missing, planned.changed) == (0, ())
    assert gather(repository.study).warnings == []
    repository.commit()
    assert {each.what for each in decide(open_study(repository.study, None), scheduler)} == {"complete"}
    repository.change_study("lr: 0.5", "lr: 0.25")
    (evidence,) = of_study(repository)["fast", "0"].evidence
    assert evidence == "run.json:params: complete with train.optimizer.lr=0.5 (now 0.25)"
    assert of_study(repository)["slow", "0"].state == "complete"


def test_a_study_of_a_package_that_there_is_not_is_refused_in_one_line(repository, scheduler, capsys):
    submit(open_study(repository.study, "fast"), scheduler)
    complete(repository.run("fast", 0))
    repository.change_study("study: asl", "study: als")
    assert main(["status", str(repository.study)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"assay: {repository.study}: study: got als; allowed: one of asl, ")


def test_a_run_of_other_parameters_that_is_queued_again_or_runs_is_not_called_changed(repository):
    with claimed(repository.folder / POOL):
        submit(open_study(repository.study, "fast"), Local(repository.folder / POOL))
        record(repository.run("fast", 0), code=75)
        record(repository.run("fast", 1), code=None)
        repository.change_study("lr: 0.5", "lr: 0.25")
        assert [each.state for each in study_status(repository.study, "fast")] == ["queued", "running"]


@pytest.mark.parametrize(("rss", "said"), [(0, False), (2**20, False), (2**28, True)])
def test_what_a_run_uses_is_said_once_it_uses_anything(repository, scheduler, capsys, rss, said):
    submit(open_study(repository.study, "slow"), scheduler)
    run = repository.run("slow", 0)
    record(run, code=None)
    (attempt,) = RunFolder(run).read().attempts
    RunFolder(run).update(replace(attempt, resources=Resources(rss=rss, rss_peak=rss)))
    assert main(["status", str(repository.study), "--only", "slow"]) == 0
    assert ("slow/0 uses memory" in capsys.readouterr().out) == said


def test_the_study_file_is_named_as_one_would_give_it_from_here(repository, scheduler, below, tmp_path_factory):
    submit(open_study(repository.study, "slow"), scheduler)
    scheduler.end_all()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    (action, *_) = {each["action"] for each in below(repository.folder / "runs").values()}
    assert action == f"assay submit {repository.study} --only slow"


def test_what_is_advised_goes_to_the_machine_that_the_runs_were_submitted_to_and_names_the_same_arms(
    repository, scheduler, capsys
):
    machine = repository.folder / "my machine.yaml"
    machine.write_text("scheduler: local\n")
    submit(open_study(repository.study, "slow", machine), scheduler)
    scheduler.end_all()
    record(repository.run("slow", 0), code=1, stage=FAULT)
    assert main(["status", "study.yaml", "--only", "sl*"]) == 0
    shown = capsys.readouterr().out
    assert "-> assay submit study.yaml --only slow --machine 'my machine.yaml'  # after correcting" in shown
    assert shown.splitlines()[-1] == "-> assay submit study.yaml --only 'sl*' --machine 'my machine.yaml'"
