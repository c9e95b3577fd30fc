"""From a run to the job that runs it, and from jobs back to runs; open it when a run is submitted twice, or forgotten.

Here schedulers and containers meet: a job's command is wrapped by the machine's container.

A run's submission is written before its job is handed over, and again with the job's id. One without an id is in doubt:
whoever submitted it may have died in between, so the scheduler is asked for it before it is submitted again.
"""

import math
import sys
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from assay.containers import Bind, container_of
from assay.errors import ConfigError
from assay.machine import MachineConfig, load_machine
from assay.matrix.cells import METRICS, recordable
from assay.matrix.submission import JOB_LOG, JOB_SCRIPT, Submission, read_submission, write_submission
from assay.runs.record import Run
from assay.runs.store import RunFolder
from assay.schedulers import SUSPECTS, Alive, Job, Meaning, Scheduler
from assay.schedulers.client import SilentError
from assay.schedulers.locks import locked
from assay.schedulers.registry import SCHEDULERS, scheduler_named

SPARE = 1
"""Jobs of a chain beyond what is expected to do: for a node that fails, or a forecast that did."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The newest job of a run. word: the scheduler's own; meaning: what it means."""

    scheduler: str
    job: str
    word: str
    meaning: Meaning

    @property
    def alive(self) -> Alive | None:
        """How, if it goes on by itself."""
        return self.meaning if self.meaning == "queued" or self.meaning == "running" else None


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A run that is to be submitted, and in how many jobs."""

    run: Path
    submission: Submission
    attempts: int = 1


def scheduler_of(root: Path, machine: Path | None) -> Scheduler:
    """The scheduler of a machine; without a machine file, this computer, one run at a time.

    Raises:
        ConfigError: the machine file is wrong.
    """
    config = machine_config(machine)
    try:
        return scheduler_named(config.scheduler, root, config)
    except ConfigError as error:
        raise ConfigError(f"{machine}: {error}") from None


def machine_config(machine: Path | None) -> MachineConfig:
    """What a machine file says.

    Raises:
        ConfigError: it is wrong.
    """
    return load_machine(machine) if machine else MachineConfig()


def attempts_of(machine: MachineConfig, expected: int | None) -> int:
    """How many jobs in a row a run is given. expected: as many as it needs by the forecast; None: unknown."""
    if machine.chain is not None:
        return machine.chain
    if machine.scheduler == "local" or machine.wall_limit is None:
        return 1
    return (expected or 1) + SPARE


def job_of(planned: Planned, machine: MachineConfig) -> Job:
    """The job of a run: its command in the machine's container."""
    run, submission = planned.run, planned.submission
    root, container = Path(submission.repository), container_of(machine.container)
    seen = [run.parents[2], *([Path(submission.machine).parent] if submission.machine else [])]
    outside = [Bind(source=path, target=path, writable=path != seen[-1]) for path in seen if not _within(path, root)]

    def wrap(module: str, *arguments: str) -> list[str]:
        return container.wrap(
            [container.python, "-m", module, *arguments],
            folder=root,
            binds=outside,
            gpus=machine.resources.gpus,
            memory=machine.resources.memory,
        )

    together = machine.resources.nodes > 1 and machine.resources.processes > 1
    told = [str(run), *([submission.machine] if submission.machine else [])]
    return Job(
        name=submission.experiment,
        command=wrap("assay.matrix.workplace", str(run)),
        beside=tuple(wrap("assay.runs.nodes", *told)) if together else (),
        folder=root,
        log=run / JOB_LOG,
        script=run / JOB_SCRIPT,
        resources=machine.resources,
        wall_limit=machine.wall_limit,
        attempts=planned.attempts,
        avoid=suspects(run),
    )


def _within(path: Path, root: Path) -> bool:
    return path.is_relative_to(root)


def suspects(run: Path) -> tuple[str, ...]:
    """The node where the run stalled; none if it did so on several: then it is not the nodes."""
    path = run / SUSPECTS
    found = sorted(set(path.read_text().split())) if path.is_file() else []
    return tuple(found) if len(found) == 1 else ()


def hand_over(
    scheduler: Scheduler, machine: MachineConfig, planned: Sequence[Planned], stages: list[str]
) -> Iterator[str]:
    """Write the folders of runs and submit their jobs; yields the jobs' ids, each after it is on record.

    Raises:
        SchedulerError: not all were accepted; those that were are on record.
    """
    jobs = [job_of(each, machine) for each in planned]
    for each, job in zip(planned, jobs, strict=True):
        _prepare(each, stages)
        write_submission(each.run, replace(each.submission, scheduler=scheduler.name))
        job.script.write_text(scheduler.render(job))
    for each, job_id in zip(planned, scheduler.submit_all(jobs), strict=True):
        write_submission(each.run, replace(each.submission, scheduler=scheduler.name, job=job_id))
        yield job_id


def _prepare(planned: Planned, stages: list[str]) -> None:
    """The run's folder; metrics of an earlier result are removed, for where they are nothing is missing."""
    run = planned.run
    (run / METRICS).unlink(missing_ok=True)
    folder = RunFolder(run)
    if not folder.has_run:
        study, arm, seed = run.parts[-3:]
        params = planned.submission.params
        told = Run(study=study, arm=arm, seed=seed, stages=stages, params=params and recordable(params))
        folder.write_run(told, durable=False)  # as with the submission


def jobs_of(
    root: Path,
    runs: Collection[Path],
    scheduler: Scheduler | None = None,
    insist: bool = False,
    silences: list[str] | None = None,
) -> dict[Path, Standing]:
    """Run folder -> its newest job, of those that any scheduler knows; each is asked once.

    scheduler: taken for runs of that name instead of a new one. insist: ask one again that has just been silent.
    silences: takes what is to be said of one that does not answer; what it said before counts then.

    Raises:
        SilentError: a scheduler does not answer, and nobody takes that.
    """
    found: dict[Path, Standing] = {}
    for place, jobs in _by_scheduler(root, runs, scheduler):
        try:
            words = place.states(list(jobs.values()), insist)
        except SilentError as silence:
            if silences is None:
                raise
            silences.append(str(silence))
            words = silence.known
        for run, job in jobs.items():
            if job in words:
                meaning = place.meaning(words[job])
                found[run] = Standing(scheduler=place.name, job=job, word=words[job], meaning=meaning)
    return found


def _by_scheduler(
    root: Path, runs: Collection[Path], given: Scheduler | None
) -> Iterator[tuple[Scheduler, dict[Path, str]]]:
    """Each scheduler with the jobs it was given; whatever machine a study is submitted to now, older jobs may live."""
    kept: dict[str, dict[Path, str]] = defaultdict(dict)
    for run in runs:
        submission = read_submission(run)
        if submission is not None and submission.job:
            kept[submission.scheduler][run] = submission.job
    for name, jobs in kept.items():
        if place := _named(name, root, given):
            yield place, jobs


def _named(name: str, root: Path, given: Scheduler | None) -> Scheduler | None:
    """The scheduler of this name, the one given if it is that; None: there is none."""
    if given is not None and given.name == name:
        return given
    return scheduler_named(name, root) if name in SCHEDULERS else None


def adopt(root: Path, runs: Collection[Path], scheduler: Scheduler | None = None) -> None:
    """Put the job of every run on record whose submission was cut off, if the job was accepted.

    scheduler: taken for runs of that name instead of a new one.

    Raises:
        SchedulerError: a scheduler does not answer.
    """
    kept = {run: read_submission(run) for run in runs}
    doubtful = {run: each for run, each in kept.items() if each and each.scheduler and not each.job}
    for name in {each.scheduler for each in doubtful.values()}:
        place = _named(name, root, scheduler)
        scripts = [run / JOB_SCRIPT for run, each in doubtful.items() if each.scheduler == name]
        found = place.find(scripts) if place else {}
        for script, job in found.items():
            write_submission(script.parent, replace(doubtful[script.parent], job=job))


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """One `assay submit` of a repository at a time: two would find the same runs missing. Others wait."""
    path = root / ".assay/submit.lock"
    with locked(path) as free:
        if free:
            yield
            return
    print("assay: waiting for another assay submit of this repository", file=sys.stderr)
    with locked(path, math.inf):
        yield
