"""What DVC had queued and assay took over: listed, ended and submitted again like any run, and none of the study."""

from pathlib import Path

import pytest
from tests.matrix.toy import POOL, Commanded, Repository, record

from assay.__main__ import main
from assay.errors import ConfigError
from assay.matrix.queued import _hand_over, take_over
from assay.matrix.standing import study_status
from assay.matrix.submission import Submission, read_submission, taken_over
from assay.matrix.submit import Decision, cancel, open_study, submit
from assay.matrix.verdicts.registration import read_registration
from assay.schedulers.client import SilentError
from assay.schedulers.local import Local, claimed

STASH = "5" * 40


@pytest.fixture
def by_hand(repository):
    """A function that takes an entry of DVC's queue over, as if it had been there; returns its run."""

    def take(scheduler, name: str = "by-hand") -> Path:
        study = open_study(repository.study, None)
        told = Submission(
            experiment=name,
            repository=str(repository.folder),
            commit=study.commit,
            pipeline=".",
            overrides=[],
            stash=STASH,
        )
        _hand_over(study, scheduler, study.runs / "queued" / name, told)
        return study.runs / "queued" / name

    return take


def again(repository: Repository, scheduler: Commanded, **options: bool) -> list[Decision]:
    return take_over(open_study(repository.study, None), scheduler, options.pop("dry_run", False), **options)


def states(repository: Repository, only: str | None = None) -> dict[str, str]:
    return {f"{each.arm}/{each.seed}": each.state for each in study_status(repository.study, only)}


def test_status_lists_it_after_the_arms_as_long_as_it_is_queued_and_once_it_was_cancelled(repository, by_hand):
    with claimed(repository.folder / POOL):
        by_hand(Local(repository.folder / POOL))
        assert list(states(repository).items())[-1] == ("queued/by-hand", "queued")
        assert states(repository, "queued") == {"queued/by-hand": "queued"}
        assert [each["seed"] for each in cancel(repository.study, "queued")] == ["by-hand"]
    assert states(repository, "queued") == {"queued/by-hand": "missing"}


def test_without_such_runs_the_pattern_names_nothing(repository):
    with pytest.raises(ConfigError, match="--only: got queued; allowed: a pattern that matches one of slow"):
        study_status(repository.study, "queued")


def test_status_advises_to_submit_it_again_from_the_queue(repository, by_hand, scheduler, capsys):
    run = by_hand(scheduler)
    scheduler.end_all()
    record(run, code=1, stage={"kind": "ValueError", "error": "no"})
    assert main(["status", str(repository.study), "--only", "queued"]) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[-2:] == ["1 failed", f"-> assay submit {repository.study} --queued"]
    assert f"    -> assay submit {repository.study} --queued  # after correcting" in shown


def test_what_has_no_result_is_submitted_again_from_what_was_recorded(repository, by_hand, scheduler):
    failed, missing, done = (by_hand(scheduler, name) for name in ("failed", "missing", "done"))
    scheduler.end_all()
    record(failed, code=1, stage={"kind": "ValueError", "error": "no"})
    record(done, code=0)
    (done / "metrics.json").write_text("{}")
    found = {each.seed: (each.what, each.note, each.job) for each in again(repository, scheduler)}
    assert found == {
        "done": ("complete", "", None),
        "failed": ("submit", "failed: ValueError", "4"),
        "missing": ("submit", "missing", "5"),
    }
    kept = read_submission(missing)
    assert (kept.job, kept.stash, kept.experiment) == ("5", STASH, "missing")
    assert {each.what for each in again(repository, scheduler)} == {"complete", "queued"}


def test_one_that_met_nan_is_a_result_until_it_is_asked_for(repository, by_hand, scheduler):
    run = by_hand(scheduler)
    scheduler.end_all()
    record(run, code=1, stage={"kind": "NonFiniteError", "error": "loss is NaN at step 3"})
    assert [each.what for each in again(repository, scheduler)] == ["failed"]
    assert [each.what for each in again(repository, scheduler, again=True)] == ["submit"]


def test_a_dry_run_submits_none(repository, by_hand, scheduler):
    by_hand(scheduler)
    scheduler.end_all()
    assert [(each.what, each.job) for each in again(repository, scheduler, dry_run=True)] == [("submit", None)]
    assert len(scheduler.jobs) == 1


def test_while_the_scheduler_is_silent_none_is_submitted(repository, by_hand, scheduler):
    by_hand(scheduler)
    scheduler.accepts = 0
    with pytest.raises(SilentError):
        again(repository, scheduler)


def test_an_amendment_counts_no_result_of_it(repository, by_hand, scheduler):
    submit(open_study(repository.study, None), scheduler)
    (by_hand(scheduler) / "metrics.json").write_text("{}")
    (repository.run("slow", 0) / "metrics.json").write_text("{}")
    repository.change_study("margin: 0.1", "margin: 0.2")
    submit(open_study(repository.study, None), scheduler)
    assert read_registration(repository.folder / "runs/toy").entries[-1].results == 1


def test_an_arm_may_be_called_as_the_folder_is(repository, scheduler):
    repository.change_study("  fast:\n", "  queued:\n")
    repository.change_study("arm: fast", "arm: queued")
    submit(open_study(repository.study, None), scheduler)
    assert taken_over(repository.folder / "runs/toy") == []
    assert [each.seed for each in study_status(repository.study, "queued")] == ["0", "1"]
