"""Which runs of a study are missing, and their submission; open it to change what is submitted again.

Submitting is idempotent: what is complete, queued or running is left alone; what is left alone otherwise says why.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from assay.config.load import assign, read
from assay.machine import MachineConfig, load_machine
from assay.matrix.arms import Resolved, resolve
from assay.matrix.cells import METRICS, CellResult, read_cells
from assay.matrix.git import git, refuse_uncommitted, repository
from assay.matrix.grammar import as_dvc
from assay.matrix.registration import register
from assay.matrix.study import params_path
from assay.matrix.submission import JOB_LOG, POOL, Submission, read_submission, write_submission
from assay.runs.provenance import masked_facts
from assay.runs.record import Run
from assay.runs.store import RunFolder
from assay.schedulers import ALIVE, Job, Meaning, Scheduler
from assay.schedulers.local import Local

SUBMIT = "submit"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What becomes of one run. what: submit, or why it is left alone; note: more about that."""

    arm: str
    seed: int
    what: str
    note: str = ""
    job: str | None = None


@dataclass(frozen=True)
class Alive:
    """A job that will go on by itself."""

    job: str
    meaning: Meaning


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file with its place: repository, commit, runs, machine."""

    path: Path
    resolved: Resolved
    root: Path
    commit: str
    machine: Path | None

    @property
    def runs(self) -> Path:
        """The folder of all its runs."""
        return runs_folder(self.path, self.resolved)

    @property
    def params(self) -> dict[str, Any]:
        """What every run's params.yaml says before its overrides."""
        return read(params_path(self.path, self.resolved.config))


def runs_folder(path: Path, resolved: Resolved) -> Path:
    """`runs/<study name>` beside the study file."""
    return path.absolute().parent / "runs" / resolved.config.name


def open_study(path: Path, only: str | None, machine: Path | None = None) -> Study:
    """Read a study file for submitting.

    Raises:
        UserError: something is wrong with the file, or what it names is not committed.
    """
    resolved = resolve(path, only)
    root = repository(path.absolute().parent)
    refuse_uncommitted(root, path.absolute().parent / resolved.config.pipeline, path)
    named = resolved.config.machine
    place = machine or (path.parent / named if named else None)
    commit = git(root, "rev-parse", "HEAD")
    return Study(path=path, resolved=resolved, root=root, commit=commit, machine=place and place.absolute())


def scheduler_of(root: Path, machine: Path | None) -> Scheduler:
    """The scheduler of a machine; without a machine file, this computer, one run at a time.

    Raises:
        ConfigError: the machine file is wrong.
    """
    config = load_machine(machine) if machine else MachineConfig()
    return Local(root / POOL, config.jobs)


def submit(study: Study, scheduler: Scheduler, dry_run: bool = False, again: bool = False) -> list[Decision]:
    """Submit what is missing; the hypotheses are registered before the first run. again: those that met NaN too."""
    decisions = list(_decide(study, scheduler, again))
    if dry_run:
        return decisions
    config = study.resolved.config
    rules = {"metrics": config.metrics, "correction": config.correction, "seeds": list(config.seeds)}
    register(study.runs, config.hypotheses, rules)
    data, stages = study.params, stage_names(study)
    return [
        replace(each, job=_submit_one(study, scheduler, each, data, stages)) if each.what == SUBMIT else each
        for each in decisions
    ]


def _decide(study: Study, scheduler: Scheduler, again: bool) -> Iterator[Decision]:
    """Seed by seed, so that every arm has a first result soon; copies of an arm come last and find its results."""
    config, arms, data = study.resolved.config, study.resolved.arms, study.params
    order = sorted(arms.values(), key=lambda arm: arm.same_as is not None)
    cells = {(cell.arm, cell.seed): cell for cell in read_cells(study.runs, list(arms), config.seeds)}
    alive = alive_runs(scheduler, [cell.folder for cell in cells.values()])
    for seed in config.seeds:
        for arm in order:
            cell = cells[arm.name, seed]
            what, note = _what(study, cell, alive, assign(data, {**arm.overrides, "seed": seed}), again)
            yield Decision(arm=arm.name, seed=seed, what=what, note=note)


def _what(
    study: Study, cell: CellResult, alive: Mapping[Path, Alive], params: dict[str, Any], again: bool
) -> tuple[str, str]:
    complete = cell.state == "complete" and (cell.folder / METRICS).is_file()
    if cell.folder in alive and not complete:
        return alive[cell.folder].meaning, f"job {alive[cell.folder].job}"
    if cell.state == "running":
        return "running", "by hand, or by a pool that was killed"
    if cell.params is not None and cell.attempts and (changes := _changes(cell.params, masked_facts(_plain(params)))):
        return "changed", f"was run with {changes}; move {cell.folder} away, or give the arm another name"
    if complete:
        return "complete", ""
    if cell.cause == "NaN" and cell.commit == study.commit and not again:
        return "failed", "NaN, which comes again; it stays in the denominator; --again runs it once more"
    return SUBMIT, cell.state if cell.cause is None else f"{cell.state}: {cell.cause}"


def alive_runs(scheduler: Scheduler, runs: Iterable[Path]) -> dict[Path, Alive]:
    """Run folder -> its job, of those that are queued or running."""
    kept = {run: read_submission(run) for run in runs}
    jobs = {run: each.job for run, each in kept.items() if each and each.job and each.scheduler == scheduler.name}
    words = scheduler.states(list(jobs.values()))
    found = {run: Alive(job, scheduler.meaning(words.get(job, ""))) for run, job in jobs.items()}
    return {run: each for run, each in found.items() if each.meaning in ALIVE}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> str:
    """Leaves that differ, as `key=old (now new)`."""
    found = []
    for key in {**old, **new}:
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            found.append(_changes(before, now, f"{prefix}{key}."))
        elif before != now:
            found.append(f"{prefix}{key}={json.dumps(before)} (now {json.dumps(now)})")
    return ", ".join(text for text in found if text)


def _plain(value: Any) -> Any:
    """As YAML gives it back: lists instead of tuples."""
    return json.loads(json.dumps(value))


def _submit_one(study: Study, scheduler: Scheduler, decision: Decision, data: dict[str, Any], stages: list[str]) -> str:
    config, arm = study.resolved.config, study.resolved.arms[decision.arm]
    overrides = {**arm.overrides, "seed": decision.seed}
    submission = Submission(
        experiment=f"{config.name}-{decision.arm}-s{decision.seed}",
        repository=str(study.root),
        commit=study.commit,
        pipeline=pipeline_folder(study),
        overrides=as_dvc(overrides),
        params=_plain(assign(data, overrides)),
        machine=str(study.machine) if study.machine else None,
    )
    run = study.runs / decision.arm / str(decision.seed)
    return hand_over(scheduler, run, submission, stages)


def pipeline_folder(study: Study) -> str:
    """The folder of dvc.yaml, relative to the repository."""
    folder = (study.path.absolute().parent / study.resolved.config.pipeline).parent.resolve()
    return str(folder.relative_to(study.root))


def stage_names(study: Study) -> list[str]:
    """The pipeline's stages, in its order."""
    return list(read(study.path.parent / study.resolved.config.pipeline)["stages"])


def hand_over(scheduler: Scheduler, run: Path, submission: Submission, stages: list[str]) -> str:
    """Write the run's folder and submit its job; returns the job's id."""
    folder = RunFolder(run)
    if not (run / "run.json").exists():
        arm, seed = run.parent.name, run.name
        planned = Run(study=run.parent.parent.name, arm=arm, seed=seed, stages=stages, params=submission.params)
        folder.write_run(planned)
    write_submission(run, replace(submission, scheduler=scheduler.name))
    command = [sys.executable, "-m", "assay.matrix.workplace", str(run)]
    root = Path(submission.repository)
    job = scheduler.submit(Job(name=submission.experiment, command=command, folder=root, log=run / JOB_LOG))
    write_submission(run, replace(submission, scheduler=scheduler.name, job=job))
    return job


def cancel(study: Path, only: str | None, scheduler: Scheduler | None = None) -> list[dict[str, Any]]:
    """Have every queued or running job of a study ended; returns arm, seed, state and job of each.

    Raises:
        UserError: something is wrong with the study file.
    """
    resolved = resolve(study, only)
    place = scheduler or scheduler_of(repository(study.absolute().parent), None)
    cells = read_cells(runs_folder(study, resolved), list(resolved.arms), resolved.config.seeds)
    jobs = alive_runs(place, [cell.folder for cell in cells])
    for each in jobs.values():
        place.cancel(each.job)
    alive = [cell for cell in cells if cell.folder in jobs]
    return [
        {"arm": cell.arm, "seed": cell.seed, "state": jobs[cell.folder].meaning, "job": jobs[cell.folder].job}
        for cell in alive
    ]


def show(decisions: list[Decision], dry_run: bool) -> None:
    """Print a line for each run that is submitted or needs a word, and the sums."""
    for each in decisions:
        if each.what not in ("complete", "queued", "running"):
            print(f"{each.arm}/{each.seed}: {each.what}{f' ({each.note})' if each.note else ''}")
    sums = Counter(each.what for each in decisions)
    verb = "would be submitted" if dry_run else "submitted"
    others = [f"{count} {what}" for what, count in sums.items() if what != SUBMIT]
    print(", ".join([f"{sums[SUBMIT]} of {len(decisions)} runs {verb}", *others]))
