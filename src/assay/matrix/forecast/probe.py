"""Which arms change nothing? A few steps on tiny data tell before anything is submitted; open it for the rules.

An arm is rehearsed beside the baseline: the stages that train and read what it changes, for three optimiser steps each,
on the CPU, at one seed, with the study's `SMALL` amounts, in one temporary clone. What an arm changes is left as it
is; an amount keeps its ratio to the baseline's. Then, bit for bit:

    losses differ                               nothing to say
    losses are equal, later results differ      the same first steps
    all that is compared is equal               inert

What cannot show in a few steps on a CPU (the length of training, patience, compilation) is not held against an arm. An
arm about the evaluation changes no stage that trains: it trains as the baseline does, and is not inert.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from assay.config.load import assign, build, read
from assay.engine.config import training_sections
from assay.errors import ConfigError
from assay.matrix.arms import Resolved, ResolvedArm, resolve
from assay.matrix.forecast.bench import RESULTS, bench
from assay.matrix.forecast.pipeline import (
    BUDGET,
    SEED,
    Parameters,
    PipelineStage,
    leaves_of,
    read_pipeline,
)
from assay.matrix.forecast.rehearsal import Rehearsal, RehearsalError, Rehearsed, rehearsing
from assay.matrix.forecast.sharing import Sharing
from assay.matrix.study import params_path

STEPS = 3
FIXED: dict[str, Any] = {"steps": STEPS, "epochs": None, "patience": None, "validate_every": STEPS}
FIXED |= {
    "checkpoint_every": STEPS,
    "log_every": 1,
    "device": "cpu",
    "precision": "fp32",
    "compile": "none",
    "tf32": False,
}
"""Of every training section."""
UNSEEN = (
    *BUDGET,
    "device",
    "precision",
    "compile",
    "tf32",
    "clip_norm",
    "plateau_factor",
    "plateau_patience",
    "log_every",
)
"""Last parts of keys that do not show in a few steps on a CPU, or may not."""
INERT = "inert"
"""Begins what is said of an arm on which nothing acts."""
TRACES = f"{RESULTS}/{{}}/log/live/plots/metrics/*/*.tsv"
NUMBERS = f"{RESULTS}/{{}}/metrics.json"
Say = Callable[[str], None]


def probe(path: Path, resolved: Resolved, say: Say) -> dict[str, str]:
    """Arm to what a few steps show about it, where that is not simply that it trains in another way than the baseline.

    Raises:
        UserError: the study is not committed.
    """
    study = resolved.config
    stages = read_pipeline(path.parent / study.pipeline, study.study)
    baseline = resolve(path).arms[study.baseline]
    arms = [arm for arm in resolved.arms.values() if arm.name != study.baseline and not arm.same_as]
    say(f"probe: {len(arms)} arms beside {study.baseline}, {STEPS} steps each, on the CPU")
    found: dict[str, str] = {}
    with bench(path, study.pipeline, stages, f"probe-{study.name}") as place, rehearsing(place) as rehearsal:
        judge = Judge(rehearsal, stages, baseline, read(params_path(path, study)), study.seeds[0])
        for arm in judge.order(arms):
            found[arm.name] = judge.verdict(arm)
            say(f"probe: {arm.name}: {found[arm.name] or 'trains in another way'}")
    return {arm.name: found[arm.name] for arm in arms if found[arm.name]}


class Judge:
    """Compares arms with the baseline."""

    def __init__(
        self,
        rehearsal: Rehearsal,
        stages: Mapping[str, PipelineStage],
        baseline: ResolvedArm,
        data: Mapping[str, Any],
        seed: int,
    ) -> None:
        self.rehearsal, self.stages, self.baseline, self.data, self.seed = rehearsal, stages, baseline, data, seed
        self.sharing = Sharing(stages)
        self.small: dict[str, Any] = getattr(inspect.getmodule(type(baseline.params)), "SMALL", {})
        self._submitted: dict[str, Parameters] = {}
        self._known: dict[str, Rehearsed] = {}
        self._written: dict[str, dict[str, str]] = {}

    def order(self, arms: list[ResolvedArm]) -> list[ResolvedArm]:
        """Arms that share their first stages one after another, so that these are run once."""
        return sorted(
            arms, key=lambda arm: [self.sharing.key(each, self._actual(arm), self.seed)[1] for each in self.stages]
        )

    def verdict(self, arm: ResolvedArm) -> str:
        """What is to be said of an arm; nothing where its losses differ."""
        changed = self._changed(arm)
        training = [name for name in changed if self.stages[name].train]
        if not training:
            return f"trains as {self.baseline.name} does; it changes {', '.join(changed)}"
        try:
            seen = self._seen(arm)
            if not seen:
                return f"not judged: {', '.join(arm.differences)} cannot show in {STEPS} steps on a CPU"
            if any(self._differs(arm, stage, TRACES) for stage in training):
                return ""
        except (RehearsalError, ConfigError) as error:
            return f"not judged: {str(error).splitlines()[0]}"
        return self._after_training(arm, [name for name in changed if self._is_after(name)], seen)

    def _after_training(self, arm: ResolvedArm, later: list[str], seen: list[str]) -> str:
        """Where nothing differed in training: do the results that come of it?"""
        same = f"same first {STEPS} steps as {self.baseline.name}"
        try:
            differing = [stage for stage in later if self._differs(arm, stage, NUMBERS)]
        except RehearsalError as error:
            return f"{same}; what is evaluated after them was not compared: {error}"
        if differing:
            return f"{same}; {', '.join(differing)} differs"
        return f"{INERT}: {same}, to the last bit; nothing acts on {', '.join(seen)}"

    def _differs(self, arm: ResolvedArm, stage: str, pattern: str) -> bool:
        """Whether a stage writes something else than for the baseline; where it writes nothing, that is unknown."""
        if stage not in self._written:
            self._written[stage] = self.rehearsal.read(self._rehearsed(self.baseline), stage, pattern)
        if not self._written[stage]:
            raise RehearsalError(f"{stage} writes nothing like {pattern.format(stage)}")
        return self.rehearsal.read(self._rehearsed(arm), stage, pattern) != self._written[stage]

    def _actual(self, arm: ResolvedArm) -> Parameters:
        """All leaves of an arm as it would be submitted."""
        if arm.name not in self._submitted:
            self._submitted[arm.name] = Parameters(dict(leaves_of(type(arm.params), arm.params)))
        return self._submitted[arm.name]

    def _changed(self, arm: ResolvedArm) -> list[str]:
        """Stages that run with other parameters, or after such ones."""
        one, two = self._actual(arm), self._actual(self.baseline)
        return [name for name in self.stages if self._key(name, one) != self._key(name, two)]

    def _key(self, stage: str, parameters: Parameters) -> int:
        return self.sharing.key(stage, parameters, self.seed)[1]

    def _is_after(self, name: str) -> bool:
        """Whether a stage evaluates: it trains nothing itself, and a stage before it does."""
        return not self.stages[name].train and any(self._trains(each) for each in self.stages[name].needs)

    def _trains(self, name: str) -> bool:
        return bool(self.stages[name].train) or any(map(self._trains, self.stages[name].needs))

    def _seen(self, arm: ResolvedArm) -> list[str]:
        """Keys that an arm changes, still changes when it is rehearsed, and that can show."""
        one, two = (self._rehearsed(each).parameters.leaves for each in (arm, self.baseline))
        keys = [key for key in {**one, **two} if one.get(key) != two.get(key)]
        return [key for key in keys if key.rpartition(".")[2] not in UNSEEN]

    def _rehearsed(self, arm: ResolvedArm) -> Rehearsed:
        if arm.name not in self._known:
            params = type(arm.params)
            own, base = self._actual(arm).leaves, self._actual(self.baseline).leaves
            data = assign(self.data, {**arm.overrides, SEED: self.seed})
            data = assign(data, {**shortened(params), **dict(smaller(self.small, own, base))})
            leaves = dict(leaves_of(params, build(params, data)))
            self._known[arm.name] = Rehearsed(data=data, parameters=Parameters(leaves), seed=self.seed)
        return self._known[arm.name]


def shortened(params: type) -> dict[str, Any]:
    """Overrides that cut every training to a few steps on the CPU."""
    return {f"{section}.{key}": value for section in training_sections(params) for key, value in FIXED.items()}


def smaller(small: Mapping[str, Any], own: Mapping[str, Any], base: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Overrides by small amounts; one that the arm changes keeps its ratio to the baseline's, or its value."""
    for key, amount in small.items():
        if key not in own:
            continue
        if own[key] == base.get(key):
            yield key, amount
        elif type(amount) is int and base[key]:
            scaled = max(1, round(amount * own[key] / base[key]))
            yield key, scaled if scaled != amount else amount + 1
