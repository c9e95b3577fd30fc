"""One run from clone to DVC experiment, with a pipeline of one quick stage and real DVC and git."""

import csv
import io
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.matrix.toy import Commanded, Inline, Repository

from assay.matrix.cells import read_metrics
from assay.matrix.handback import numbers
from assay.matrix.queued import take_over
from assay.matrix.submission import CLONES, read_submission
from assay.matrix.submit import open_study, submit
from assay.matrix.workplace import main, prepare
from assay.runs.guardian import FORWARDED
from assay.runs.status import collect


def dvc(repository: Repository, *arguments: str) -> str:
    environment = {**os.environ, **{f"GIT_{each}": "nobody@localhost" for each in ("AUTHOR_NAME", "COMMITTER_NAME")}}
    environment |= {f"GIT_{each}": "nobody@localhost" for each in ("AUTHOR_EMAIL", "COMMITTER_EMAIL")}
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(
        command, cwd=repository.folder, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Repository:
    """The study after `assay submit` of one run that ends well and one that fails, and of an entry of DVC's queue."""
    made = Repository(tmp_path_factory.mktemp("study"))
    made.change_study("seeds: [0, 1]", "seeds: [3]")
    made.commit()
    dvc(made, "exp", "run", "--quiet", "--queue", "--name", "by-hand", "--set-param", "train.optimizer.lr=0.75")
    scheduler = Inline()
    submit(open_study(made.study, "fast"), scheduler)
    submit(open_study(made.study, "broken"), scheduler)
    taken = take_over(open_study(made.study, "fast"), scheduler, dry_run=False)
    assert [(each.arm, each.seed, each.note) for each in taken] == [("queued", "by-hand", "by dvc exp run --queue")]
    return made


def experiments(repository: Repository) -> dict[str, dict[str, str]]:
    rows = csv.DictReader(io.StringIO(dvc(repository, "exp", "show", "--csv")))
    return {row["Experiment"]: row for row in rows if row["Experiment"]}


def clone(repository: Repository, name: str) -> Path:
    return repository.folder / CLONES / name


def test_a_run_is_listed_as_an_experiment_with_its_parameters_and_metrics(repository):
    found = experiments(repository)
    assert found.keys() == {"toy-fast-s3", "by-hand"}
    assert (found["toy-fast-s3"]["train.optimizer.lr"], found["toy-fast-s3"]["seed"]) == ("0.5", "3")
    assert found["toy-fast-s3"]["error"] == "3.5"


def test_its_metrics_and_small_results_lie_in_its_folder(repository):
    run = repository.run("fast", 3)
    assert json.loads((run / "metrics.json").read_text()) == {
        "validate/error": 3.5,
        "validate/by.snr": 2,
        "validate/bad": None,
    }
    assert (run / "results/validate/table.csv").read_text() == "a,b\n1,2\n"
    assert "handed back" in (run / "job.log").read_text()


def test_its_record_is_that_of_a_supervised_run(repository):
    (found,) = collect(repository.run("fast", 3))
    assert (found.study, found.arm, found.seed, found.state) == ("toy", "fast", "3", "complete")


def test_the_clone_of_a_complete_run_is_removed_and_that_of_another_kept(repository):
    assert not clone(repository, "toy-fast-s3").exists()
    kept = clone(repository, "toy-broken-s3")
    assert "lr: 2.0" in (kept / "params.yaml").read_text()
    assert (kept / ".dvc/config.local").read_text().endswith(f"dir = {repository.folder}/.dvc/cache\n")


def test_a_run_that_fails_leaves_its_record_and_no_metrics(repository):
    run = repository.run("broken", 3)
    (found,) = collect(run)
    assert found.state == "failed"
    assert not (run / "metrics.json").exists()


def test_the_main_tree_is_left_as_it_was(repository):
    assert repository.git("status", "--porcelain") == ""
    assert not (repository.folder / "results").exists()


def test_what_dvc_had_queued_ran_with_what_it_was_queued_with_and_has_left_that_queue(repository):
    assert experiments(repository)["by-hand"]["train.optimizer.lr"] == "0.75"
    assert "by-hand" not in dvc(repository, "queue", "status")
    assert (
        json.loads((repository.folder / "runs/toy/queued/by-hand/metrics.json").read_text())["validate/error"] == 0.75
    )


def test_a_folder_that_was_never_submitted_is_refused_in_one_line(tmp_path, capsys):
    assert main(tmp_path) == 2
    assert capsys.readouterr().err == (
        f"assay: {tmp_path}: got no submission; allowed: the folder of a run; give assay submit\n"
    )


def test_what_dvc_had_queued_runs_with_its_values_when_it_is_submitted_again_after_it_was_cancelled(tmp_path):
    made = Repository(tmp_path)
    dvc(made, "exp", "run", "--quiet", "--queue", "--name", "by-hand", "--set-param", "train.optimizer.lr=0.75")
    never = Commanded()
    take_over(open_study(made.study, "fast"), never, dry_run=False)
    never.end_all()
    (again,) = take_over(open_study(made.study, "fast"), Inline(), dry_run=False)
    assert (again.what, again.note) == ("submit", "missing")
    assert json.loads((made.folder / "runs/toy/queued/by-hand/metrics.json").read_text())["validate/error"] == 0.75


def test_of_two_entries_of_one_name_each_runs_with_its_own_values_though_the_first_s_clone_was_kept(tmp_path):
    made = Repository(tmp_path)
    queue = ("exp", "run", "--quiet", "--queue", "--name", "by-hand", "--set-param")
    dvc(made, *queue, "train.optimizer.lr=2.0")  # with which the stage fails
    take_over(open_study(made.study, "fast"), Inline(), dry_run=False)
    assert "lr: 2.0" in (clone(made, "by-hand") / "params.yaml").read_text()
    dvc(made, *queue, "train.optimizer.lr=0.75")
    take_over(open_study(made.study, "fast"), Inline(), dry_run=False)
    assert experiments(made)["by-hand"]["train.optimizer.lr"] == "0.75"


def test_a_job_that_is_asked_to_end_before_its_run_has_begun_leaves_the_rest_of_the_chain(tmp_path, monkeypatch):
    made = Repository(tmp_path)
    submit(open_study(made.study, "slow"), Commanded())
    monkeypatch.setattr("assay.matrix.workplace.prepare", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = {number: signal.getsignal(number) for number in FORWARDED}
    try:
        assert main(made.run("slow", 0)) == 75
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert not (made.run("slow", 0) / "attempts").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_job_that_is_asked_to_end_waits_for_its_run_to_save_whatever_the_signal(tmp_path, number):
    made = Repository(tmp_path / "study")
    (made.folder / "stage.py").write_text("import time; print('begun', flush=True); time.sleep(60)")
    made.commit()
    submit(open_study(made.study, "fast"), Commanded())
    run = made.run("fast", 0)
    with subprocess.Popen([sys.executable, "-m", "assay.matrix.workplace", str(run)], cwd=made.folder) as job:
        log = run / "logs/0001.log"
        while not (log.is_file() and "begun" in log.read_text()):
            assert job.poll() is None
            time.sleep(0.05)
        job.send_signal(number)
    assert job.returncode == 75
    assert json.loads((run / "attempts/0001.json").read_text())["code"] == 75


def test_a_clone_that_was_cut_off_before_it_had_its_data_is_made_anew(tmp_path, monkeypatch):
    made = Repository(tmp_path / "study")
    (made.folder / "data.txt").write_text("data")
    dvc(made, "add", "--quiet", "data.txt")
    made.commit()
    submit(open_study(made.study, "slow"), Commanded())
    submission = read_submission(made.run("slow", 0))  # which changes nothing in params.yaml

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("dvc.repo.Repo.checkout", killed)
        prepare(submission)
    prepare(submission)
    assert (submission.clone / "data.txt").read_text() == "data"


def test_a_repository_that_was_moved_goes_on_in_the_clones_that_moved_with_it(tmp_path):
    made = Repository(tmp_path / "before")
    submit(open_study(made.study, "slow"), Commanded())
    prepare(read_submission(made.run("slow", 0)))
    made.folder = made.folder.rename(tmp_path / "after")
    made.study = made.folder / "study.yaml"
    submit(open_study(made.study, "slow"), Commanded())
    moved = read_submission(made.run("slow", 0))
    (moved.clone / "work").touch()
    prepare(moved)
    assert (moved.clone / "work").exists() and not (tmp_path / "before").exists()
    command = ["git", "cat-file", "-e", "HEAD^{tree}"]
    subprocess.run(command, cwd=moved.clone, check=True)
    assert str(made.folder) in (moved.clone / ".dvc/config.local").read_text()


def test_parameters_may_have_numbers_for_keys_which_a_record_has_as_text(tmp_path):
    made = Repository(tmp_path / "study")
    submit(open_study(made.study, "slow"), Commanded())
    submission = read_submission(made.run("slow", 0))
    params = made.folder / "params.yaml"
    params.write_text(f"{params.read_text()}labels: {{0: background, 1: tumour}}\n")
    planned = {**submission.params, "labels": {"0": "background", "1": "tumour"}}
    told = replace(submission, commit=made.commit(), params=planned)
    prepare(told)
    (told.clone / "kept").touch()
    prepare(told)
    assert (told.clone / "kept").exists()


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("results/validate/metrics.json", {"validate/a": 1, "validate/b.c": 0.5}),
        ("results/a/b/metrics.json", {"a/b/a": 1, "a/b/b.c": 0.5}),
        ("metrics.json", {"a": 1, "b.c": 0.5}),
    ],
)
def test_metrics_are_named_by_their_folder_below_results(file, expected):
    assert numbers(file, {"a": 1, "b": {"c": 0.5}, "text": "x", "yes": True}) == expected


def test_a_metric_that_is_not_finite_is_kept_as_such_for_its_seed_failed(tmp_path):
    told = {"nan": float("nan"), "inf": float("inf"), "null": None, "fine": 1.0}
    kept = numbers("metrics.json", told)
    assert kept == {"nan": None, "inf": None, "null": None, "fine": 1.0}
    (tmp_path / "metrics.json").write_text(json.dumps(kept, allow_nan=False))
    found = read_metrics(tmp_path)
    assert found["fine"] == 1.0 and all(math.isnan(found[name]) for name in ("nan", "inf", "null"))
