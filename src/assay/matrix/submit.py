"""Which runs of a study are missing, and their submission; open it to change what is submitted again.

Submitting is idempotent: what is complete, queued or running is left alone; what is left alone otherwise says why.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from assay.config.load import assign, read
from assay.containers import refuse_missing_image
from assay.machine import MachineConfig
from assay.matrix.arms import Resolved, outline, resolve
from assay.matrix.cells import CHANGED, COMPLETE, CellResult, changed, plain, planned, read_cells
from assay.matrix.git import git, refuse_uncommitted, refuse_without_dvc, repository
from assay.matrix.grammar import as_dvc
from assay.matrix.jobs import (
    Planned,
    Standing,
    adopt,
    alone,
    attempts_of,
    hand_over,
    job_of,
    jobs_of,
    machine_config,
)
from assay.matrix.names import claim, refuse_taken
from assay.matrix.study import StudyConfig, params_path, read_study
from assay.matrix.submission import SUBMISSION, Submission, experiment_of, read_submission
from assay.matrix.verdicts.registration import register, rules_of
from assay.schedulers import ALIVE, Job, Scheduler
from assay.schedulers.registry import scheduler_named

SUBMIT = "submit"
NAN = "NaN, which comes again; it stays in the denominator; --again runs it once more"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of one run. what: submit, or why it is left alone; note: more about that."""

    arm: str
    seed: int | str
    """The name, of a run that DVC had queued."""
    what: str
    note: str = ""
    job: str | None = None
    differs: str = ""
    """What a job that is queued or running was submitted with and the study no longer says."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file with its place: repository, commit, runs, machine."""

    path: Path
    resolved: Resolved
    root: Path
    commit: str
    machine: Path | None
    place: MachineConfig
    """What the machine file says."""

    @property
    def runs(self) -> Path:
        """The folder of all its runs."""
        return runs_folder(self.path, self.resolved.config)

    @property
    def params(self) -> dict[str, Any]:
        """What every run's params.yaml says before its overrides."""
        return read(params_path(self.path, self.resolved.config))


def runs_folder(path: Path, study: StudyConfig) -> Path:
    """`runs/<study name>` beside the study file."""
    return path.absolute().parent / "runs" / study.name


def open_study(path: Path, only: str | None, machine: Path | None = None) -> Study:
    """Read a study file for submitting.

    Raises:
        UserError: something is wrong with the file, its name is taken, or what it names is not committed.
    """
    resolved = resolve(path, only)
    root = repository(path.absolute().parent)
    refuse_without_dvc(root)
    refuse_uncommitted(root, path.absolute().parent / resolved.config.pipeline, path)
    named = resolved.config.machine
    place = machine or (path.parent / named if named else None)
    commit = git(root, "rev-parse", "HEAD")
    place = place and place.absolute()
    study = Study(path=path, resolved=resolved, root=root, commit=commit, machine=place, place=machine_config(place))
    refuse_taken(path, root, study.runs, _cells(study))
    return study


def submit(
    study: Study, scheduler: Scheduler, again: bool = False, inert: Mapping[str, str] | None = None
) -> list[Decision]:
    """Submit what is missing; the hypotheses are registered before the first run.

    again: those that met NaN too. inert: arms that are not submitted, each with the reason.

    Raises:
        ConfigError: another study of the repository has this name.
        SchedulerError: the scheduler does not answer, or refuses a job; those that it took before are on record.
    """
    with alone(study.root):
        refuse_taken(study.path, study.root, study.runs, _cells(study))  # another may just have been submitted
        claim(study.root, study.runs)
        adopt(study.root, [study.runs / arm / str(seed) for arm, seed in _cells(study)], scheduler)
        decisions = leave_alone(decide(study, scheduler, again), inert or {})
        planned = plan_jobs(study, decisions)
        register(study.runs, study.resolved.config.hypotheses, rules_of(study.resolved))
        jobs = iter(list(hand_over(scheduler, study.place, planned, stage_names(study))))
        return [replace(each, job=next(jobs)) if each.what == SUBMIT else each for each in decisions]


def render(study: Study, scheduler: Scheduler, decisions: Sequence[Decision]) -> list[str]:
    """What the scheduler would be handed for these decisions; nothing is written."""
    jobs: list[Job] = [job_of(each, study.place) for each in plan_jobs(study, decisions)]
    return scheduler.scripts(jobs)


def _cells(study: Study) -> list[tuple[str, int]]:
    """Seed by seed, so that every arm has a result soon; copies of an arm come last, and may find its results."""
    order = sorted(study.resolved.arms.values(), key=lambda arm: arm.same_as is not None)
    return [(arm.name, seed) for seed in study.resolved.config.seeds for arm in order]


def decide(study: Study, scheduler: Scheduler, again: bool = False) -> list[Decision]:
    """What becomes of every run. again: those that met NaN are submitted too.

    Raises:
        SilentError: a scheduler does not answer, so what is queued or running is not known.
    """
    config, arms = study.resolved.config, study.resolved.arms
    cells = {(cell.arm, cell.seed): cell for cell in read_cells(study.runs, list(arms), config.seeds)}
    unfinished = [cell.folder for cell in cells.values() if cell.state != COMPLETE]
    jobs = jobs_of(study.root, unfinished, scheduler, insist=True)
    alive = {run: job for run, job in jobs.items() if job.alive}
    now = planned(study.params, {name: arm.overrides for name, arm in arms.items()})
    decisions = []
    for arm, seed in _cells(study):
        cell, params = cells[arm, seed], {**now[arm], "seed": seed}
        what, note = _what(study, cell, alive, params, again)
        differs = _differs(cell.folder, params, type(arms[arm].params)) if what in ALIVE else ""
        decisions.append(Decision(arm=arm, seed=seed, what=what, note=note, differs=differs))
    return decisions


def _differs(run: Path, now: dict[str, Any], config_class: type) -> str:
    submission = read_submission(run)
    found = changed(submission.params, now, config_class) if submission else ""
    return f"with {found}, as it was submitted; assay cancel it first for the study as it is" if found else ""


def probed(study: Study, decisions: Sequence[Decision], say: Callable[[str], None]) -> dict[str, str]:
    """Arms among those to submit that change nothing in their first steps, each with what shows it."""
    from assay.matrix.forecast.probe import INERT, probe

    chosen = {each.arm for each in decisions if each.what == SUBMIT}
    arms = {name: arm for name, arm in study.resolved.arms.items() if name in chosen}
    found = probe(study.path, replace(study.resolved, arms=arms), say)
    return {arm: text for arm, text in found.items() if text.startswith(INERT)}


def leave_alone(decisions: Sequence[Decision], inert: Mapping[str, str]) -> list[Decision]:
    """The same decisions, but for runs of inert arms, which are not submitted."""
    note = "{}; --probe leaves it alone, without it the run is submitted"
    return [
        replace(each, what="left alone", note=note.format(inert[each.arm]))
        if each.what == SUBMIT and each.arm in inert
        else each
        for each in decisions
    ]


def _what(
    study: Study, cell: CellResult, alive: Mapping[Path, Standing], now: dict[str, Any], again: bool
) -> tuple[str, str]:
    complete, config_class = cell.state == COMPLETE, type(study.resolved.arms[cell.arm].params)
    if cell.folder in alive and not complete:
        return alive[cell.folder].meaning, f"job {alive[cell.folder].job}"
    if cell.state == "running":
        return "running", "by hand, or by a pool that was killed"
    if cell.attempts and (changes := changed(cell.params, now, config_class)):
        return CHANGED, f"was run with {changes}; move {cell.folder} away, or give the arm another name"
    if complete:
        return "complete", ""
    if cell.cause == "NaN" and cell.commit == study.commit and not again:
        return "failed", NAN
    return SUBMIT, cell.state if cell.cause is None else f"{cell.state}: {cell.cause}"


def plan_jobs(study: Study, decisions: Sequence[Decision]) -> list[Planned]:
    """The runs to submit, each with all that its jobs need to know.

    Raises:
        ConfigError: a run cannot be done within the machine's limit.
        DataError: the image that they are to run in is not there.
    """
    chosen = [each for each in decisions if each.what == SUBMIT]
    if chosen:
        refuse_missing_image(study.place.container, study.root)
    attempts = _attempts(study, {each.arm for each in chosen})
    data, folder = study.params, pipeline_folder(study)
    return [_planned(study, each, data, folder, attempts[each.arm]) for each in chosen]


def _attempts(study: Study, arms: set[str]) -> dict[str, int]:
    """Arm to the number of jobs in a row; the forecast is asked only where it matters."""
    expected: Mapping[str, int | None] = {}
    if arms and attempts_of(study.place, None) != attempts_of(study.place, 2):
        from assay.matrix.forecast.forecast import chain_lengths

        expected = chain_lengths(study.path, study.resolved, study.place)
    return {arm: attempts_of(study.place, expected.get(arm)) for arm in arms}


def _planned(study: Study, decision: Decision, data: dict[str, Any], folder: str, attempts: int) -> Planned:
    config, arm = study.resolved.config, study.resolved.arms[decision.arm]
    overrides = {**arm.overrides, "seed": decision.seed}
    submission = Submission(
        experiment=experiment_of(config.name, decision.arm, decision.seed),
        repository=str(study.root),
        commit=study.commit,
        pipeline=folder,
        overrides=as_dvc(overrides),
        params=plain(assign(data, overrides)),
        study=str(study.path.absolute()),
        machine=str(study.machine) if study.machine else None,
    )
    return Planned(run=study.runs / decision.arm / str(decision.seed), submission=submission, attempts=attempts)


def pipeline_folder(study: Study) -> str:
    """The folder of dvc.yaml, relative to the repository."""
    folder = (study.path.absolute().parent / study.resolved.config.pipeline).parent.resolve()
    return str(folder.relative_to(study.root))


def stage_names(study: Study) -> list[str]:
    """The pipeline's stages, in its order."""
    return list(read(study.path.parent / study.resolved.config.pipeline)["stages"])


def cancel(study: Path, only: str | None, scheduler: Scheduler | None = None) -> list[dict[str, Any]]:
    """Have every queued or running job of a study ended; returns arm, seed, state and job of each.

    Whatever was submitted counts: arms that the study file has no longer, and what DVC had queued, too.
    scheduler: taken for runs of that name instead of a new one.

    Raises:
        UserError: something is wrong with the study file.
        SchedulerError: a scheduler does not answer.
    """
    root, folder = repository(study.absolute().parent), runs_folder(study, read_study(study))
    with alone(root):  # jobs that are being submitted are on record afterwards
        submitted = [path.parent for path in sorted(folder.glob(f"*/*/{SUBMISSION}"))]
        runs = [run for run in submitted if only is None or fnmatchcase(run.parent.name, only)]
        if not runs:
            outline(study, only)  # refuses a pattern that names nothing
        adopt(root, runs, scheduler)
        alive = {run: job for run, job in jobs_of(root, runs, scheduler, insist=True).items() if job.alive}
        for name in {job.scheduler for job in alive.values()}:
            place = scheduler if scheduler and scheduler.name == name else scheduler_named(name, root)
            place.cancel(*(job.job for job in alive.values() if job.scheduler == name))
    names = {run: int(run.name) if run.name.isdecimal() else run.name for run in alive}
    return [
        {"arm": run.parent.name, "seed": names[run], "state": job.meaning, "job": job.job} for run, job in alive.items()
    ]


def show(decisions: list[Decision], scripts: Sequence[str] | None = None) -> None:
    """Print a line for each run that is submitted or needs a word, and the sums. scripts: of a dry run."""
    for script in scripts or []:
        print(script)
    for each in decisions:
        if each.what not in ("complete", *ALIVE) or each.differs:
            note = each.differs or each.note
            print(f"{each.arm}/{each.seed}: {each.what}{f' ({note})' if note else ''}")
    sums = Counter(each.what for each in decisions)
    verb = "submitted" if scripts is None else "would be submitted"
    others = [f"{count} {what}" for what, count in sums.items() if what != SUBMIT]
    print(", ".join([f"{sums[SUBMIT]} of {len(decisions)} runs {verb}", *others]))
