"""What a study will take: time, memory, disk, GPU hours, money and jobs; open it to forecast something more.

A run's forecast is that of it alone, from nothing. A study's is what its missing runs take together: a stage that
several of them share, or that a complete run of this commit has done, is computed once and then comes from DVC's cache.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.config.load import read
from assay.errors import ConfigError, UserError
from assay.machine import MachineConfig, load_machine
from assay.matrix.arms import Resolved, ResolvedArm
from assay.matrix.cells import changed, planned
from assay.matrix.forecast.budget import HOP_S, HOUR_S, Piece, against, elapsed_share, jobs_needed, unfit
from assay.matrix.forecast.laws import Laws
from assay.matrix.forecast.pipeline import SEED, Parameters, leaves_of, read_pipeline
from assay.matrix.forecast.scaling import Estimate, total
from assay.matrix.forecast.sharing import Key, Sharing
from assay.matrix.forecast.workload import Recorded, alike, read_recorded
from assay.matrix.git import git
from assay.matrix.study import params_path
from assay.runs.provenance import hardware
from assay.studies import study_config

BETWEEN = "between stages"


@dataclass(frozen=True, kw_only=True)
class ArmForecast:
    """One run of an arm, from nothing. None: unknown."""

    stages: dict[str, Estimate | None]
    """Seconds by stage in the pipeline's order, and between them."""
    seconds: Estimate | None
    memory: Estimate | None
    """Bytes of the largest stage."""
    gpu_memory: Estimate | None
    disk: Estimate | None
    """Bytes of all outputs."""
    jobs: int | None
    """In a chain against the machine's limit, by the upper end of the interval; 0: it cannot be done."""
    refusal: str | None
    """Why it cannot."""
    missing: tuple[int, ...]
    """Seeds that are not complete with the parameters that the study now has."""


@dataclass(frozen=True, kw_only=True)
class StudyForecast:
    """What the missing runs of a study take together, as far as known."""

    arms: dict[str, ArmForecast]
    seconds: Estimate
    elapsed_s: Estimate
    """With as many runs at a time as the machine has going."""
    gpu_hours: Estimate
    money: Estimate
    disk: Estimate
    spent_s: float
    """Of all attempts so far."""
    runs: int
    missing: int
    changed: tuple[str, ...]
    """Runs of other parameters than the study now has, with what differs; submit leaves them alone, here they miss."""
    unknown: tuple[str, ...]
    """Arms with missing runs that are not in the sums."""
    learnt_from: dict[str, int]
    """How many runs and pilots, and how many were left out, for they ran on other hardware."""
    over_budget: tuple[str, ...]

    @property
    def refusals(self) -> list[str]:
        """One line for each arm that the machine cannot run."""
        return [each.refusal for each in self.arms.values() if each.refusal]


class Forecaster:
    """Forecasts runs of one study on one machine."""

    def __init__(self, path: Path, resolved: Resolved, machine: MachineConfig) -> None:
        config = resolved.config
        self.resolved, self.machine = resolved, machine
        self.folder = path.absolute().parent
        self.params: type = study_config(config.study).Params
        self.pipeline = read_pipeline(path.parent / config.pipeline, config.study)
        runs = self.folder / "runs"
        self.recorded = read_recorded(runs, config.name, config.study, self.params)
        self.used = alike(self.recorded, machine.scheduler, hardware() if self.recorded else {})
        self.laws = Laws(self.pipeline, self.used)
        self.sharing = Sharing(self.pipeline)
        self._own = {_cell(each): each for each in self.recorded if each.record.folder.parents[1] == runs / config.name}
        self.changed = self._changed(read(params_path(path, config)))
        self.parameters = {name: self.parameters_of(arm) for name, arm in resolved.arms.items()}
        self.gpus = machine.resources.gpus or int(bool(self.laws.gpu_memory.samples))

    def parameters_of(self, arm: ResolvedArm) -> Parameters:
        """All parameters of an arm's runs."""
        return Parameters(dict(leaves_of(self.params, arm.params)))

    def arm(self, name: str) -> ArmForecast:
        """One run of an arm."""
        parameters, laws = self.parameters[name], self.laws
        stages = {stage: laws.expect_seconds(stage, parameters) for stage in self.pipeline if stage not in laws.silent}
        stages[BETWEEN] = laws.expect_between(parameters)
        sizes = [laws.expect_disk(stage, parameters) for stage in self.pipeline]
        # what lies between the stages is seconds, and a pilot does not tell it
        known = any(stages.values()) and all(found for stage, found in stages.items() if stage != BETWEEN)
        chain = self._chain(stages)
        limit, lead = self.machine.wall_limit, self.machine.grace + HOP_S
        return ArmForecast(
            stages=stages,
            seconds=total([each for each in stages.values() if each], together=True) if known else None,
            memory=laws.expect_peak("rss_peak", parameters),
            gpu_memory=laws.expect_peak("gpu_memory_peak", parameters),
            disk=total([size for size in sizes if size], together=True) if any(sizes) else None,
            jobs=jobs_needed(chain, limit, lead) if known or limit is None else None,
            refusal=next((self._refusal(name, piece) for piece in unfit(chain, limit, lead)), None),
            missing=tuple(seed for seed in self.resolved.config.seeds if not self.is_complete(name, str(seed))),
        )

    def _chain(self, stages: Mapping[str, Estimate | None]) -> list[Piece]:
        """The stages of a run by the upper ends of their intervals; what may just fit into a job is not refused."""
        usable = (self.machine.wall_limit or math.inf) - self.machine.grace - HOP_S
        pieces = []
        for name, found in stages.items():
            continues = name == BETWEEN or self.pipeline[name].train is not None
            if found is not None:
                seconds = found.high if continues else min(found.high, max(found.value, usable))
                pieces.append(Piece(name=name, seconds=seconds, continues=continues))
        return pieces

    def _refusal(self, arm: str, piece: Piece) -> str:
        return (
            f"arms.{arm}: {piece.name} takes about {piece.seconds:.0f} s and cannot stop and go on; allowed: "
            f"{self.machine.wall_limit:g} s, wall_limit of {self.machine.name}; give it less to do, or another machine"
        )

    def _changed(self, data: Mapping[str, Any]) -> dict[tuple[str, str], str]:
        """Arm and seed of the runs that ended with other parameters than the study now has, to what differs."""
        arms = self.resolved.arms
        runs = {cell: each for cell, each in self._own.items() if cell[0] in arms and cell[1].isdecimal()}
        now = planned(data, {arm: arms[arm].overrides for arm, _ in runs})
        ended = ((cell, each.record.run) for cell, each in runs.items() if each.attempts and each.attempts[-1].ended)
        texts = {
            (arm, seed): changed(run.params, {**now[arm], SEED: int(seed)}, self.params) for (arm, seed), run in ended
        }
        return {cell: text for cell, text in texts.items() if text}

    def is_complete(self, arm: str, seed: str) -> bool:
        """Whether a run has the result of what the study now says."""
        run = self._own.get((arm, seed))
        return run is not None and run.complete and (arm, seed) not in self.changed

    def computed(self) -> set[Key]:
        """Stages that complete runs of the last commit have left in DVC's cache, which knows no key as incidental."""
        commit = _commit(self.folder)
        return {
            self.sharing.key(stage, run.parameters, int(seed))
            for (arm, seed), run in self._own.items()
            if arm in self.parameters and seed.isdecimal() and self.is_complete(arm, seed)
            if commit is not None and run.record.run.commit == commit
            for stage in self.pipeline
        }

    def spent_s(self) -> float:
        """Wall seconds of all attempts at the study's runs."""
        attempts = (attempt for run in self._own.values() for attempt in run.attempts)
        return sum((attempt.ended or attempt.heartbeat) - attempt.started for attempt in attempts)


def forecast(path: Path, resolved: Resolved, machine: MachineConfig) -> StudyForecast:
    """Forecast every arm of a study, and what its missing runs take together.

    Raises:
        UserError: the pipeline or a folder of runs cannot be read.
    """
    forecaster = Forecaster(path, resolved, machine)
    arms = {name: forecaster.arm(name) for name in resolved.arms}
    missing = [(name, seed) for seed in resolved.config.seeds for name, arm in arms.items() if seed in arm.missing]
    seconds, disk, runs_s = _missing_sums(forecaster, arms, missing)
    hours = seconds.times(1 / HOUR_S)
    gpu_hours = hours.times(forecaster.gpus)
    spent = forecaster.spent_s() / HOUR_S
    counted = _plus(gpu_hours if forecaster.gpus else hours, spent * (forecaster.gpus or 1))
    money = hours.times(machine.price)
    pilots = sum(each.pilot for each in forecaster.used)
    return StudyForecast(
        arms=arms,
        seconds=seconds,
        elapsed_s=seconds.times(elapsed_share(runs_s, machine.at_once)),
        gpu_hours=gpu_hours,
        money=money,
        disk=disk,
        spent_s=spent * HOUR_S,
        runs=len(arms) * len(resolved.config.seeds),
        missing=len(missing),
        changed=tuple(
            f"{arm}/{seed} with {text}"
            for (arm, seed), text in forecaster.changed.items()
            if int(seed) in resolved.config.seeds
        ),
        unknown=tuple(name for name, arm in arms.items() if arm.missing and arm.seconds is None),
        learnt_from={
            "runs": len(forecaster.used) - pilots,
            "pilots": pilots,
            "on other hardware": len(forecaster.recorded) - len(forecaster.used),
        },
        over_budget=tuple(against(resolved.config.budget, counted, _plus(money, spent * machine.price))),
    )


def _missing_sums(
    forecaster: Forecaster, arms: Mapping[str, ArmForecast], missing: Sequence[tuple[str, int]]
) -> tuple[Estimate, Estimate, list[float]]:
    """Seconds and bytes of the missing runs, each shared stage once; and the seconds of each run."""
    done = forecaster.computed()
    runs: list[float] = []
    seconds: dict[str, list[Estimate]] = defaultdict(list)
    sizes: dict[str, list[Estimate]] = defaultdict(list)
    for name, seed in missing:
        arm, parameters = arms[name], forecaster.parameters[name]
        if arm.seconds is None:
            continue
        run = [between] if (between := arm.stages[BETWEEN]) else []
        for stage in forecaster.pipeline:
            key = forecaster.sharing.key(stage, parameters, seed)
            if key in done:
                continue
            done.add(key)
            if found := arm.stages.get(stage):
                run.append(found)
            if size := forecaster.laws.expect_disk(stage, parameters):
                sizes[name].append(size)
        seconds[name] += run
        runs.append(sum(each.value for each in run))
    return _over_arms(seconds), _over_arms(sizes), runs


def _over_arms(parts: Mapping[str, Sequence[Estimate]]) -> Estimate:
    """Runs of an arm err alike, and so do all arms that are scaled from other shapes."""
    arms = [total(each, together=True) for each in parts.values()]
    scaled = total([each for each in arms if each.basis == "other shapes"], together=True)
    return total([*(each for each in arms if each.basis != "other shapes"), scaled], together=False)


def _plus(found: Estimate, known: float) -> Estimate:
    """With an amount that is certain."""
    value, low, high = (each + known for each in (found.value, found.low, found.high))
    return Estimate(value=value, low=low, high=high, basis=found.basis)


def _commit(folder: Path) -> str | None:
    """The last commit of the repository around a folder, if there is one."""
    with suppress(UserError):
        return git(folder, "rev-parse", "HEAD")
    return None


def _cell(run: Recorded) -> tuple[str, str]:
    return run.record.folder.parent.name, run.record.folder.name


def machine_of(path: Path, resolved: Resolved, machine: Path | None = None) -> MachineConfig:
    """The machine that a study runs on: the file given, or the one it names, or this computer.

    Raises:
        ConfigError: the machine file is wrong.
    """
    named = resolved.config.machine
    place = machine or (path.parent / named if named else None)
    return load_machine(place) if place else MachineConfig()


def chain_lengths(path: Path, resolved: Resolved, machine: MachineConfig) -> dict[str, int | None]:
    """Arm to the number of chained jobs that one of its runs needs; None: unknown.

    Raises:
        ConfigError: a stage that cannot stop and go on takes longer than a job may; one line for each arm.
    """
    forecaster = Forecaster(path, resolved, machine)
    arms = {name: forecaster.arm(name) for name in resolved.arms}
    refusals = [arm.refusal for arm in arms.values() if arm.refusal]
    if refusals:
        raise ConfigError("\n".join(f"{path}: {line}" for line in refusals))
    return {name: arm.jobs for name, arm in arms.items()}
