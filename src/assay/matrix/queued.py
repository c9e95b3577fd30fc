"""What a person has queued with `dvc exp run --queue -S ...`, taken over; open it when an entry is not found."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import DataError
from assay.matrix.cells import COMPLETE
from assay.matrix.jobs import Planned, adopt, alone, attempts_of, hand_over, jobs_of
from assay.matrix.standing import how_they_stand
from assay.matrix.submission import QUEUED, Submission, read_submission, taken_over
from assay.matrix.submit import SUBMIT, Decision, Study, pipeline_folder, stage_names
from assay.runs.diagnose import Diagnosis
from assay.schedulers import ALIVE, Scheduler

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.repo.experiments.queue.base import QueueEntry


def take_over(study: Study, scheduler: Scheduler, dry_run: bool, again: bool = False) -> list[Decision]:
    """Submit every entry of DVC's queue as a run of its own, and take it from that queue; it keeps its name.

    Of those taken over before, the ones that have no result are submitted again. again: those that met NaN too.

    Raises:
        DataError: DVC's queue cannot be read.
        SchedulerError: the scheduler does not answer, or refuses a job.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    taken = []
    try:
        with alone(study.root), Repo(str(study.root)) as repo:
            for entry in list(repo.experiments.celery_queue.iter_queued()):
                name = entry.name or f"queued-{entry.stash_rev[:7]}"
                job = None if dry_run else _take(study, scheduler, repo, entry, name)
                taken.append(Decision(arm=QUEUED, seed=name, what=SUBMIT, note="by dvc exp run --queue", job=job))
            names = {each.seed for each in taken}
            older = [run for run in taken_over(study.runs) if run.name not in names]
            return taken + _submit_again(study, scheduler, older, dry_run, again)
    except DvcException as error:
        raise DataError(f"{study.root}: DVC's queue cannot be read ({error}); see dvc queue status") from error


def _take(study: Study, scheduler: Scheduler, repo: "Repo", entry: "QueueEntry", name: str) -> str:
    """Submitted first, then removed: what happens in between makes it run twice, not never.

    The removal lets go of DVC's stash, so the changed files get a reference of their own for every clone.
    """
    from assay.matrix.git import git

    git(study.root, "update-ref", f"refs/assay/queued/{entry.stash_rev}", entry.stash_rev)
    submission = Submission(
        experiment=name,
        repository=str(study.root),
        commit=entry.baseline_rev,
        pipeline=pipeline_folder(study),
        overrides=[],
        stash=entry.stash_rev,
    )
    job = _hand_over(study, scheduler, study.runs / QUEUED / name, submission)
    repo.experiments.celery_queue.remove([name if entry.name else entry.stash_rev])
    return job


def _hand_over(study: Study, scheduler: Scheduler, run: Path, submission: Submission) -> str:
    """Submit a run to the machine that the study now goes to; the job's id."""
    machine = str(study.machine) if study.machine else None
    told = replace(submission, study=str(study.path.absolute()), machine=machine, job="")
    planned = Planned(run=run, submission=told, attempts=attempts_of(study.place, None))
    (job,) = hand_over(scheduler, study.place, [planned], stage_names(study))
    return job


def _submit_again(
    study: Study, scheduler: Scheduler, runs: Sequence[Path], dry_run: bool, again: bool
) -> list[Decision]:
    """Of runs taken over before, those that have no result; from what was recorded then."""
    if not dry_run:
        adopt(study.root, runs, scheduler)
    jobs = jobs_of(study.root, runs, scheduler, insist=True)
    decisions = []
    for run, found in how_they_stand(study.runs, runs, jobs).items():
        what, note = _what(found, again)
        submission = read_submission(run) if what == SUBMIT and not dry_run else None
        job = _hand_over(study, scheduler, run, submission) if submission else None
        decisions.append(Decision(arm=QUEUED, seed=run.name, what=what, note=note, job=job))
    return decisions


def _what(found: Diagnosis, again: bool) -> tuple[str, str]:
    if found.state in {*ALIVE, COMPLETE}:
        return found.state, ""
    if found.cause == "NaN" and not again:
        return "failed", "NaN, which comes again; --again runs it once more"
    return SUBMIT, found.state if found.cause is None else f"{found.state}: {found.cause}"
