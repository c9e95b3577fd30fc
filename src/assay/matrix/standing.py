"""How a study stands, missing runs too, and the log of one run; open it to change what those verbs show."""

import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from assay.config.load import read
from assay.errors import DataError
from assay.matrix.arms import outline
from assay.matrix.cells import (
    CHANGED,
    COMPLETE,
    METRICS,
    MISSING,
    NOT_HANDED_BACK,
    advice,
    changed,
    diagnosed,
    params_class,
    planned,
    recorded_params,
)
from assay.matrix.expand import Expanded
from assay.matrix.git import repository
from assay.matrix.jobs import Standing, jobs_of
from assay.matrix.study import StudyConfig, params_path
from assay.matrix.submission import JOB_LOG, QUEUED, SUBMISSION, machine_option, read_submission, taken_over, was_queued
from assay.matrix.submit import runs_folder
from assay.progress import UNFINISHED
from assay.rented import paid_for
from assay.runs.case import EXCERPT
from assay.runs.diagnose import Diagnosis
from assay.runs.status import show
from assay.runs.store import RunFolder, is_held
from assay.schedulers.local import Local

ALIVE = frozenset({"queued", "running"})
WATCH_S = 2.0
FOLLOW_S = 0.3
GIB = 2**30


def study_status(path: Path, only: str | None) -> list[Diagnosis]:
    """A diagnosis of every run of a study, by arm and seed, then of what DVC had queued.

    `missing` where there is no record, `queued` by its job, `changed` where it was run with other parameters.

    Raises:
        UserError: something is wrong with the study file.
    """
    study, arms = outline(path)
    folder = runs_folder(path, study)
    cells = [folder / arm / str(seed) for arm in arms if _is_meant(arm, only) for seed in study.seeds]
    queued = taken_over(folder) if _is_meant(QUEUED, only) else []
    if not (cells or queued):
        outline(path, only)  # refuses a pattern that names nothing
    runs = [*cells, *queued]
    found = how_they_stand(folder, runs, jobs_shown(repository(path.absolute().parent), runs))
    found |= _outdated(path, study, arms, {run: found[run] for run in cells})
    return [_in_study(each, path, run) for run, each in found.items()]


def _is_meant(arm: str, only: str | None) -> bool:
    return only is None or fnmatchcase(arm, only)


def how_they_stand(folder: Path, runs: Sequence[Path], jobs: Mapping[Path, Standing]) -> dict[Path, Diagnosis]:
    """Run to its diagnosis with what its job adds, of runs in runs/<study name>."""
    known = diagnosed(folder, words_of(jobs))
    unknown = Diagnosis(study=folder.name, arm="", seed="", state=MISSING)
    found = {}
    for run in runs:
        arm, seed = run.parent.name, run.name
        found[run] = with_job(known.get((arm, seed), replace(unknown, arm=arm, seed=seed)), run, jobs.get(run))
    return found


def words_of(jobs: Mapping[Path, Standing]) -> dict[Path, dict[str, str]]:
    """What schedulers say of runs, for their diagnosis; the pool's words are its own."""
    return {run: {"State": job.word} for run, job in jobs.items() if job.scheduler != Local.name}


def jobs_shown(root: Path, runs: Sequence[Path]) -> dict[Path, Standing]:
    """The jobs of runs that are not complete; a scheduler that is silent is named, and what it said before counts."""
    silences: list[str] = []
    unfinished = [run for run in runs if not (run / METRICS).is_file()]
    found = jobs_of(root, unfinished, silences=silences)
    for silence in silences:
        print(f"assay: {silence} (shown is what was known before)", file=sys.stderr)
    return found


def _outdated(
    path: Path, study: StudyConfig, arms: Mapping[str, Expanded], found: Mapping[Path, Diagnosis]
) -> dict[Path, Diagnosis]:
    """Those that have run with other parameters than the study now has, which `assay submit` leaves alone."""
    ended = {run: each for run, each in found.items() if each.attempts and each.state not in ALIVE}
    if not ended:
        return {}
    overrides = {each.arm: arms[each.arm].overrides for each in ended.values()}
    now, config_class = planned(read(params_path(path, study)), overrides), params_class(path, study)
    mine = {run: {**now[run.parent.name], "seed": int(run.name)} for run in ended}
    texts = {run: changed(recorded_params(run), mine[run], config_class) for run in ended}
    return {run: _as_changed(ended[run], run, text) for run, text in texts.items() if text}


def _as_changed(found: Diagnosis, run: Path, text: str) -> Diagnosis:
    evidence = f"run.json:params: {found.state} with {text}"
    name = shlex.quote(str(run))
    step = f"mv {name} {name}.old  # or give the arm another name, or its parameters back"
    return replace(found, state=CHANGED, cause=None, evidence=[evidence[:EXCERPT]], action=step)


def _in_study(found: Diagnosis, study: Path, run: Path) -> Diagnosis:
    """With advice that names the study."""
    return replace(found, action=advice(found.action, run, study, found.cause)) if found.action else found


def with_job(found: Diagnosis, run: Path, job: Standing | None) -> Diagnosis:
    """What the record does not know: the scheduler's queue, and whether the result was handed back."""
    alive = job.alive if job is not None else None
    handed_back = found.state == COMPLETE and (run / METRICS).is_file()
    if handed_back or found.state == "running":  # its heartbeat is newer than what a scheduler said
        return found
    if alive is not None:
        return replace(found, state=alive, cause=None, action="", evidence=[])
    if found.state == "queued":
        ended = [f"{JOB_LOG}: job {job.job} of {job.scheduler} ended before it began ({job.word})"] if job else []
        return replace(found, state=MISSING, action="", evidence=ended or _doubts(run))
    if found.state == COMPLETE:
        return replace(found, state=NOT_HANDED_BACK, evidence=[f"{METRICS}: not there: the result was not handed back"])
    return found


def _doubts(run: Path) -> list[str]:
    """A job may be there that nobody knows: its submission was cut off."""
    submission = read_submission(run)
    if submission is None or submission.job or not submission.scheduler:
        return []
    return [
        f"{SUBMISSION}: cut off before its job was known; assay submit and cancel ask {submission.scheduler} for it"
    ]


def show_study(path: Path, only: str | None, found: list[Diagnosis]) -> None:
    """Print the runs, what those that run use of the machine, the sums, the one command to give, machines paid for."""
    show(found)
    for each in found:
        if each.state == "running" and each.attempts and (used := _usage(path, each)):
            print(f"{each.arm}/{each.seed} uses {used}")
    sums = Counter(each.state for each in found)
    print("\n" + ", ".join(f"{count} {state}" for state, count in sums.items()))
    wanting = [each for each in found if each.state not in {*ALIVE, COMPLETE, CHANGED} and each.cause != "NaN"]
    if wanting:
        print(f"-> assay submit {shlex.quote(str(path))}{_options([_run(path, each) for each in wanting], only)}")
    for line in paid_for(repository(path.absolute().parent)):
        print(line)


def _options(runs: Sequence[Path], only: str | None) -> str:
    """With which one command submits them all: the same arms, and the machine if it was one."""
    machines = {machine_option(submission) for run in runs if (submission := read_submission(run))}
    kinds = set(map(was_queued, runs))
    arms = f" --only {shlex.quote(only)}" if only and False in kinds else ""
    queued = " --queued" if True in kinds else ""
    return f"{arms}{queued}{machines.pop() if len(machines) == 1 else ''}"


def _run(path: Path, found: Diagnosis) -> Path:
    return path.absolute().parent / "runs" / found.study / found.arm / found.seed


def _usage(path: Path, found: Diagnosis) -> str:
    """What the newest attempt uses; empty while a run starts or ends, for then it uses nothing worth a word."""
    used = RunFolder(_run(path, found)).read().attempts[-1].resources
    if not round(used.rss / GIB, 2):
        return ""
    gpu = "" if used.gpu_memory is None else f", GPU {used.gpu_memory / GIB:.1f} GiB"
    busy = "" if used.gpu_utilisation is None else f" {used.gpu_utilisation:.0f} %"
    return f"memory {used.rss / GIB:.2f} GiB (peak {used.rss_peak / GIB:.2f}){gpu}{busy}"


def watch(look: Callable[[], list[Diagnosis]], tell: Callable[[list[Diagnosis]], None], clear: bool) -> None:
    """Show it again and again until nothing is queued or running."""
    while True:
        found = look()
        print("\033[H\033[2J" if clear else "", end="")
        tell(found)
        if not any(each.state in ALIVE for each in found):
            return
        time.sleep(WATCH_S)


def log_lines(run: Path, follow: bool) -> Iterator[str]:
    """The newest attempt's log; followed until the run ends, on to a new attempt where one begins.

    Raises:
        DataError: there is no such run, or it has printed nothing yet.
    """
    folder = RunFolder(run)
    number = _newest(folder)
    path = folder.log(number) if number else run / JOB_LOG
    if not path.is_file():
        raise DataError(f"{run}: got no log; allowed: the folder of a run that has begun; see assay status")
    read = 0
    while True:
        pause = _next_look_s(run) if follow else 0.0  # before the last look, which then has all of it
        if path.is_file():  # an attempt has begun before it has printed anything
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(read)
                yield from file
                read = file.tell()
        newest = _newest(folder)
        if follow and newest > number:
            number, path, read = newest, folder.log(newest), 0
        elif not pause:
            return
        else:
            time.sleep(pause)


def _newest(folder: RunFolder) -> int:
    attempts = folder.read().attempts
    return attempts[-1].number if attempts else 0


def _next_look_s(run: Path) -> float:
    """When to look again, in s; 0: nothing more comes. Where no attempt runs its job is asked, less often."""
    newest = next(reversed(RunFolder(run).read().attempts), None)
    if newest is not None and is_held(newest, time.time()):
        return FOLLOW_S
    goes_on = newest is None or newest.code in (None, UNFINISHED)
    return WATCH_S if goes_on and _has_job(run) else 0.0


def _has_job(run: Path) -> bool:
    submission = read_submission(run)
    jobs = jobs_of(Path(submission.repository), [run], silences=[]) if submission else {}
    return any(job.alive for job in jobs.values())
