"""When `assay submit` refuses a study, and what it does not mind: names, code, pipelines, machine files."""

import shutil
from pathlib import Path

import pytest
from tests.matrix.toy import ALL, Repository, give

from assay.__main__ import main
from assay.errors import ConfigError, UserError
from assay.matrix.jobs import scheduler_of
from assay.matrix.submit import open_study, submit


def copied(repository: Repository) -> Path:
    """The folder of a second study, committed, which is the same and has the same name."""
    other = repository.folder / "copy"
    other.mkdir()
    for name in ("study.yaml", "dvc.yaml", "params.yaml", "stage.py"):
        shutil.copy(repository.folder / name, other)
    repository.commit()
    return other


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


def test_a_wrong_machine_file_is_named(repository, tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_text("jobs: 0")
    with pytest.raises(ConfigError, match="jobs: got 0"):
        scheduler_of(repository.folder, path)
