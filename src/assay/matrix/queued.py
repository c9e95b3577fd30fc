"""What a person has queued with `dvc exp run --queue -S ...`, taken over; open it when an entry is not found."""

from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import DataError
from assay.matrix.jobs import Planned, alone, attempts_of, hand_over
from assay.matrix.submission import Submission
from assay.matrix.submit import SUBMIT, Decision, Study, pipeline_folder, stage_names
from assay.schedulers import Scheduler

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc.repo.experiments.queue.base import QueueEntry

ARM = "queued"
"""The folder of such runs, runs/<study name>/queued/NAME: they are no arm of the study."""


def take_over(study: Study, scheduler: Scheduler, dry_run: bool) -> list[Decision]:
    """Submit every entry of DVC's queue as a run of its own, and take it from that queue; it keeps its name.

    Raises:
        DataError: DVC's queue cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    taken = []
    try:
        with alone(study.root), Repo(str(study.root)) as repo:
            for entry in list(repo.experiments.celery_queue.iter_queued()):
                name = entry.name or f"queued-{entry.stash_rev[:7]}"
                job = None if dry_run else _take(study, scheduler, repo, entry, name)
                note = f"{ARM}/{name}, by dvc exp run --queue"
                taken.append(Decision(arm=ARM, seed=0, what=SUBMIT, note=note, job=job))
    except DvcException as error:
        raise DataError(f"{study.root}: DVC's queue cannot be read ({error}); see dvc queue status") from error
    return taken


def _take(study: Study, scheduler: Scheduler, repo: "Repo", entry: "QueueEntry", name: str) -> str:
    """Submitted first, then removed: what happens in between makes it run twice, not never.

    The removal lets go of DVC's stash, so the changed files get a reference of their own until the run has its clone.
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
        machine=str(study.machine) if study.machine else None,
    )
    run: Path = study.runs / ARM / name
    planned = Planned(run=run, submission=submission, attempts=attempts_of(study.place, None))
    (job,) = hand_over(scheduler, study.place, [planned], stage_names(study))
    repo.experiments.celery_queue.remove([name if entry.name else entry.stash_rev])
    return job
