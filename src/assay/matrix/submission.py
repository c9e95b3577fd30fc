"""What a run was submitted as, kept in its folder: `submission.json`; open it to hand a job something more."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.errors import DataError
from assay.files import is_blank, write_bytes

SUBMISSION = "submission.json"
QUEUED = "queued"
"""The folder of runs that DVC had queued, runs/<study name>/queued/NAME: they are no arm of the study."""
CLONES = Path(".assay/clones")
"""Below the repository."""
JOB_SCRIPT = "job.sh"
"""The job as the scheduler gets it, rendered; in the run's folder."""
JOB_LOG = "job.log"
"""What a job says before and after the command it supervises; in the run's folder."""
REGISTERED = "registered.json"
"""The hypotheses of a study as they were registered, beside its runs."""
REPORTS = "reports"
"""The folder of the studies' reports, beside the study files."""


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One run and all that its job needs to know."""

    experiment: str
    """Its name among DVC's experiments."""
    repository: str
    commit: str
    """The baseline of the experiment: what the clone checks out."""
    pipeline: str
    """The folder of dvc.yaml and params.yaml, relative to the repository."""
    overrides: list[str]
    """Arguments of DVC's -S."""
    params: dict[str, Any] | None = None
    """What params.yaml must say once they are applied; None: as they come."""
    stash: str | None = None
    """The commit in which `dvc exp run --queue` has kept the changed files; None: nothing was queued."""
    study: str = ""
    """The study file; empty where an older version has submitted."""
    machine: str | None = None
    """A machine file."""
    scheduler: str = ""
    job: str = ""
    """The newest job's id; empty before it is submitted."""

    @property
    def clone(self) -> Path:
        """Where the run has its own clone of the repository."""
        return Path(self.repository) / CLONES / self.experiment


def experiment_of(study: str, arm: str, seed: int | str) -> str:
    """The name of an arm's run among DVC's experiments."""
    return f"{study}-{arm}-s{seed}"


def machine_option(submission: Submission | None) -> str:
    """What has a run submitted again to where it was submitted to, after a blank; empty: no machine file says where."""
    if submission is None or not submission.machine:
        return ""
    machine, here = Path(submission.machine), Path.cwd()
    return f" --machine {shlex.quote(str(machine.relative_to(here) if machine.is_relative_to(here) else machine))}"


def is_in_place(run: Path, submission: Submission) -> bool:
    """Whether a run lies where it was submitted to; where somebody moved it, it is no longer that of its arm."""
    name = run.name if submission.stash else experiment_of(*run.absolute().parts[-3:])
    return submission.experiment == name


def taken_over(folder: Path) -> list[Path]:
    """The runs in runs/<study name> that DVC had queued, sorted.

    Raises:
        DataError: a submission is damaged.
    """
    found = [path.parent for path in sorted((folder / QUEUED).glob(f"*/{SUBMISSION}"))]
    return [run for run in found if was_queued(run)]


def was_queued(run: Path) -> bool:
    """Whether DVC had queued a run, so that it belongs to no arm, not even to one called as their folder is.

    Raises:
        DataError: the submission is damaged.
    """
    submission = read_submission(run) if run.absolute().parent.name == QUEUED else None
    return submission is not None and submission.stash is not None


def write_submission(run: Path, submission: Submission) -> None:
    """Replace what is kept in the run's folder, in one step, a line for each key.

    Not to survive a power failure, which would take ten times as long: what one loses is submitted again.
    """
    lines = ",\n".join(f" {json.dumps(key)}: {json.dumps(value)}" for key, value in vars(submission).items())
    write_bytes(run / SUBMISSION, f"{{\n{lines}\n}}\n".encode(), durable=False)


def read_submission(run: Path) -> Submission | None:
    """What is kept; None: the run was never submitted.

    Raises:
        DataError: the file is damaged.
    """
    path = run / SUBMISSION
    try:
        content = path.read_bytes()
        return None if is_blank(content) else Submission(**json.loads(content))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); remove it and submit the run again") from None
