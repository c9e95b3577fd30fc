"""All that a report says, gathered from a study file and its records; open it to let a report say more.

report = gather(Path("study.yaml"))
report.summaries["baseline"].metrics["validate/rollout_nrmse"]
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from assay.config.load import read
from assay.matrix.arms import Resolved, ResolvedArm, resolve
from assay.matrix.cells import COMPLETE, MISSING, CellResult, advice, changed, planned, read_cells
from assay.matrix.jobs import jobs_of
from assay.matrix.study import StudyConfig, params_path
from assay.matrix.submission import read_submission
from assay.matrix.verdicts.controls import failed_controls
from assay.matrix.verdicts.hypotheses import Verdict, judge
from assay.matrix.verdicts.parity import inert, unequal, unreadable
from assay.matrix.verdicts.registration import Registration, read_registration
from assay.reports.code import of_other_code
from assay.reports.details import RunDetails, details
from assay.reports.summary import ArmSummary, ranked, summarise

QUEUED, RUNNING = "queued", "running"
RUNS = "runs"
"""Folder of the runs of all studies, beside the study file."""
EDITED = "\nhypotheses, or the rules for all of them, edited since and not registered: submit again to amend"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric as a report shows it. controls: name of the control to the metric that holds it."""

    name: str
    direction: Literal["min", "max"]
    unit: str = ""
    controls: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """With its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    @property
    def better(self) -> str:
        """Which end is better, in words."""
        return "lower is better" if self.direction == "min" else "higher is better"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is known of a study at one time."""

    file: Path
    runs: Path
    """Folder of the study's runs."""
    config: StudyConfig
    arms: Mapping[str, ResolvedArm]
    """The arms reported, in the order of the study file."""
    summaries: Mapping[str, ArmSummary]
    """Of the same arms."""
    baseline: ArmSummary
    """Of the baseline arm, whether or not it is among the arms reported."""
    details: Mapping[tuple[str, int], RunDetails]
    """Arm and seed to what is behind its numbers."""
    metrics: Sequence[Metric]
    verdicts: Mapping[str, Verdict]
    registration: str
    """Whether the hypotheses were registered, and what was amended since, in words; empty for no hypotheses."""
    amended: Mapping[str, str]
    """Hypothesis to what was registered, changed or edited of it after data, for those where anything was."""
    warnings: Sequence[str]
    only: str | None
    written: float
    """Seconds since 1970."""

    @property
    def cells(self) -> list[CellResult]:
        """Every arm x seed."""
        return [cell for arm in self.summaries.values() for cell in arm.cells]

    @property
    def best(self) -> list[ArmSummary]:
        """Arms that have the first metric, best first."""
        first = self.metrics[0] if self.metrics else None
        return ranked(self.summaries.values(), first.name, first.direction) if first else []


def gather(path: Path, only: str | None = None, now: float | None = None) -> Report:
    """Read a study file and the records of its runs, which lie in runs/<name> beside it.

    Verdicts and warnings are of the whole study, whatever `only` (a pattern of arm names) leaves to be shown.

    Raises:
        ConfigError: the study file is wrong, or no arm matches `only`.
        DataError: a run's metrics are damaged.
    """
    resolved = resolve(path)
    config = resolved.config
    shown = resolve(path, only).arms if only else resolved.arms
    folder = path.parent / RUNS / config.name
    cells = [_advised(cell, path) for cell in _awaited(read_cells(folder, list(resolved.arms), config.seeds))]
    summaries = summarise(list(resolved.arms), config.baseline, cells)
    outdated = _outdated(path, resolved, cells)
    doubts = {**failed_controls(config, cells), **inert(resolved.arms, config.baseline, cells)}
    objections = {**doubts, **_of_others(outdated)}
    registration = read_registration(folder)
    edited = registration.edited(resolved, folder) if registration else None
    of_baseline = {cell.seed: cell for cell in summaries[config.baseline].cells}
    return Report(
        file=path,
        runs=folder,
        config=config,
        arms=shown,
        summaries={name: summaries[name] for name in shown},
        baseline=summaries[config.baseline],
        details={
            (cell.arm, cell.seed): details(cell, of_baseline.get(cell.seed)) for cell in cells if cell.arm in shown
        },
        metrics=_metrics(config),
        verdicts=judge(config.hypotheses, config.metrics, cells, correction=config.correction, objections=objections),
        registration=_registered(registration, edited, config),
        amended=_amended(edited or registration, config),
        warnings=[
            *(f"{name} is {reason}" for name, reason in doubts.items()),
            *(f"{name} runs exactly the same as {arm.same_as}" for name, arm in resolved.arms.items() if arm.same_as),
            *of_other_code(path, config, cells),
            *_say_outdated(outdated),
            *unreadable(cells),
            *unequal(resolved.arms, config.baseline, cells),
        ],
        only=only,
        written=time.time() if now is None else now,
    )


def _awaited(cells: Sequence[CellResult]) -> list[CellResult]:
    """As the scheduler's jobs make them: one that goes on has not ended, and one that never began may be cancelled."""
    unfinished = {cell.folder: read_submission(cell.folder) for cell in cells if cell.state not in {COMPLETE, RUNNING}}
    roots = {Path(each.repository) for each in unfinished.values() if each}
    silences: list[str] = []  # what a silent scheduler said before counts; `assay status` names it
    jobs = {run: job for root in roots for run, job in jobs_of(root, list(unfinished), silences=silences).items()}
    alive = {run: job.alive for run, job in jobs.items() if job.alive}

    def seen(cell: CellResult) -> CellResult:
        if cell.folder in alive:
            return replace(cell, state=alive[cell.folder], cause=None, action=None)
        unbegun = cell.state == QUEUED and not cell.attempts
        return replace(cell, state=MISSING, action=None) if unbegun else cell

    return [seen(cell) for cell in cells]


def _advised(cell: CellResult, study: Path) -> CellResult:
    """With advice that names the study."""
    return replace(cell, action=advice(cell.action, cell.folder, study, cell.cause)) if cell.action else cell


def _registered(registration: Registration | None, edited: Registration | None, config: StudyConfig) -> str:
    if not config.hypotheses:
        return ""
    if registration is None:
        return "Not registered: `assay submit` freezes the hypotheses, and nothing was submitted yet."
    return edited.describe() + EDITED if edited else registration.describe()


def _amended(registration: Registration | None, config: StudyConfig) -> dict[str, str]:
    """Hypothesis to what was changed after data of what its verdict depends on."""
    changes = {name: registration.amended(name) for name in config.hypotheses} if registration else {}
    return {name: text for name, text in changes.items() if text}


def _outdated(path: Path, resolved: Resolved, cells: Sequence[CellResult]) -> dict[tuple[str, int], str]:
    """Arm and seed of complete runs that were run with other things than the study file now says, to those."""
    overrides = {name: arm.overrides for name, arm in resolved.arms.items()}
    now = planned(read(params_path(path, resolved.config)), overrides)
    complete = [cell for cell in cells if cell.state == COMPLETE]
    kinds = {name: type(arm.params) for name, arm in resolved.arms.items()}
    texts = [(cell, changed(cell.params, {**now[cell.arm], "seed": cell.seed}, kinds[cell.arm])) for cell in complete]
    return {(cell.arm, cell.seed): text for cell, text in texts if text}


def _of_others(outdated: Mapping[tuple[str, int], str]) -> dict[str, str]:
    """Arm to why nothing follows from it: its numbers are not of what the study file says it is."""
    seeds = {arm: [str(seed) for each, seed in outdated if each == arm] for arm, _ in outdated}
    return {arm: f"run with other parameters than it now has, seeds {', '.join(some)}" for arm, some in seeds.items()}


def _say_outdated(outdated: Mapping[tuple[str, int], str]) -> list[str]:
    found = [f"{arm}/{seed} with {text}" for (arm, seed), text in outdated.items()]
    many = "complete runs have numbers of other parameters than the study file now says"
    return [f"{len(found)} {many}, e.g. {found[0]}; assay submit --dry-run names them all"] if found else []


def _metrics(config: StudyConfig) -> list[Metric]:
    """The metrics of the study file; the controls stand beside the first."""
    named = {"null": config.controls.null, "constant": config.controls.constant, "classical": config.controls.classical}
    controls = {name: metric for name, metric in named.items() if metric}
    return [
        Metric(name=name, direction=each.direction, unit=each.unit, controls=controls if index == 0 else {})
        for index, (name, each) in enumerate(config.metrics.items())
    ]
