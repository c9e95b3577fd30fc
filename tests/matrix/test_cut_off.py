"""Submissions that were cut off, damaged by a crash, or overtaken by a change of the study."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.matrix.toy import Commanded, Repository

from assay.__main__ import main
from assay.errors import DataError, UserError
from assay.matrix.standing import study_status
from assay.matrix.submission import read_submission, write_submission
from assay.matrix.submit import Decision, cancel, open_study, show, submit
from assay.schedulers.registry import SCHEDULERS


class Second(Commanded):
    """Another scheduler."""

    name = "second"


def give(repository: Repository, scheduler: Commanded) -> list[Decision]:
    return submit(open_study(repository.study, "fast"), scheduler)


def forget_job(run: Path) -> None:
    """As if the submitter had died between the scheduler's answer and its record."""
    write_submission(run, replace(read_submission(run), job=""))


def test_cancel_ends_a_job_whose_submitter_died_before_it_knew(repository, scheduler):
    give(repository, scheduler)
    forget_job(repository.run("fast", 0))
    assert [each["job"] for each in cancel(repository.study, None, scheduler)] == ["1", "2"]
    assert sorted(scheduler.cancelled) == ["1", "2"]


def test_status_says_that_a_job_may_be_there_that_nobody_knows(repository, scheduler):
    give(repository, scheduler)
    forget_job(repository.run("fast", 0))
    found = study_status(repository.study, "fast")[0]
    told = "submission.json: cut off before its job was known; assay submit and cancel ask commanded for it"
    assert (found.state, found.evidence) == ("missing", [told])


def test_such_a_job_is_found_where_the_study_goes_to_another_scheduler_now(repository, scheduler, monkeypatch):
    give(repository, scheduler)
    forget_job(repository.run("fast", 0))
    monkeypatch.setitem(SCHEDULERS, scheduler.name, lambda *_: scheduler)
    second = Second()
    assert [each.what for each in give(repository, second)] == ["queued", "queued"]
    assert not second.jobs


@pytest.mark.parametrize("left", [b"", b"\0" * 64])
def test_a_run_whose_files_a_crash_has_emptied_is_submitted_again(repository, scheduler, left):
    give(repository, scheduler)
    run = repository.run("fast", 0)
    (run / "submission.json").write_bytes(left)
    (run / "run.json").write_bytes(left)
    assert [each.state for each in study_status(repository.study, "fast")] == ["missing", "missing"]
    scheduler.end_all()
    assert [each.what for each in give(repository, scheduler)] == ["submit", "submit"]
    assert '"params"' in (run / "run.json").read_text()


def test_a_job_that_waits_with_parameters_the_study_no_longer_has_is_named(repository, scheduler, capsys):
    give(repository, scheduler)
    repository.change_study("train.optimizer.lr: 0.5", "train.optimizer.lr: 0.7")
    show(give(repository, scheduler))
    told = "queued (with train.optimizer.lr=0.5 (now 0.7), as it was submitted; assay cancel it first for the study as"
    assert capsys.readouterr().out.count(told) == 2


def test_without_a_repository_of_dvc_nothing_is_submitted(repository, scheduler):
    shutil.rmtree(repository.folder / ".dvc")
    repository.commit()
    with pytest.raises(UserError, match=r"got no DVC repository that is committed; allowed: one at the top of git's"):
        give(repository, scheduler)
    assert main(["submit", str(repository.study), "--dry-run"]) == 2


def test_without_the_image_that_runs_would_need_nothing_waits_for_it(repository, scheduler):
    machine = repository.folder / "machine.yaml"
    machine.write_text("container: {kind: apptainer, image: assay.sif}\n")
    study = open_study(repository.study, "fast", machine)
    with pytest.raises(DataError, match=r"container.image: got .*/assay.sif, which does not exist; make it with: make"):
        submit(study, scheduler)
    (repository.folder / "assay.sif").touch()
    assert len(submit(study, scheduler)) == 2
