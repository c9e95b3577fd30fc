"""How the runs below a folder stand, those that were submitted as their study says it; open it to change that advice.

Their advice names the study, never `assay exec`, which would run in the working tree and overwrite the record.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from assay.matrix.cells import COMPLETE, METRICS, MISSING, NOT_HANDED_BACK, advice, submit_step
from assay.matrix.submission import Submission, is_in_place, read_submission
from assay.runs.diagnose import Diagnosis
from assay.runs.status import collect
from assay.runs.store import find, names

if TYPE_CHECKING:
    from assay.matrix.jobs import Standing


def folder_status(folder: Path) -> list[Diagnosis]:
    """A diagnosis of every run at or below a folder.

    Raises:
        DataError: there is no such folder, or a submission is damaged.
    """
    unfinished = [run.path for run in find(folder) if not (run.path / METRICS).is_file()]
    submitted = {run: told for run in unfinished if (told := read_submission(run))}
    if not submitted:
        return collect(folder)
    from assay.matrix.standing import with_job, words_of  # which knows the schedulers: only where they are asked

    jobs = _jobs(submitted)
    found = []
    for run, each in _placed(folder, collect(folder, words=words_of(jobs))):
        told = submitted.get(run) if run else None
        found.append(_advised(with_job(each, run, jobs.get(run)), run, told) if run and told else each)
    return found


def _jobs(submitted: Mapping[Path, Submission]) -> "dict[Path, Standing]":
    """Each repository has its own."""
    from assay.matrix.standing import jobs_shown

    runs = defaultdict(list)
    for run, told in submitted.items():
        runs[Path(told.repository)].append(run)
    return {run: job for root, some in runs.items() for run, job in jobs_shown(root, some).items()}


def _placed(folder: Path, found: Sequence[Diagnosis]) -> Iterator[tuple[Path | None, Diagnosis]]:
    """Each with the folder of its run. Both are sorted alike; a run that began in between is passed over."""
    runs = (run.path for run in find(folder))
    for each in found:
        yield next((run for run in runs if names(run) == (each.study, each.arm, each.seed)), None), each


def _advised(found: Diagnosis, run: Path, submission: Submission) -> Diagnosis:
    """With a step that names its study file; with none where nothing is to be done, or the run was moved away."""
    if found.state in {"queued", "running", COMPLETE} or not is_in_place(run, submission):
        return replace(found, action="")
    study = _shown(submission.study)
    if found.action:
        return replace(found, action=advice(found.action, run, study, found.cause))
    wanting = found.state in (MISSING, NOT_HANDED_BACK)
    return replace(found, action=submit_step(run, study, found.cause) if wanting else "")


def _shown(study: str) -> Path:
    """A study file as a person would give it here."""
    path, here = Path(study or "STUDY.yaml"), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
