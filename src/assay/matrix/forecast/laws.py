"""What recorded runs tell about seconds, memory and disk, as laws by stage; open it to forecast another amount.

A stage that trains takes so much for each step, each validation and each checkpoint, and a start; any other takes what
its phases take together, and a start. What a pilot measured counts where no run of the same form is known.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Literal

from assay.matrix.forecast.pipeline import Leaves, Parameters, PipelineStage, Shapes
from assay.matrix.forecast.scaling import Estimate, Law, Sample, Target
from assay.matrix.forecast.workload import Recorded
from assay.runs.record import Stage, Work

START = ("import", "load")
"""Phases that come once for each start of a stage, however much it does."""
TRAIN, VALIDATE, CHECKPOINT = "train", "validate", "checkpoint"
"""Phases of a stage that trains, of which steps and passes are known beforehand."""
REST, ALL = "rest", "all"
"""Parts: the other phases together; an amount that is not taken apart."""
ANY = Target(shape="any", form="any", leaves={}, counts={ALL: 1.0})
"""What does not depend on parameters."""
Peak = Literal["rss_peak", "gpu_memory_peak"]
GROWTH = 1.09
"""Resident memory of a run over that of a pilot of 20 steps: the median of eight networks, see docs/forecast.md."""


class Laws:
    """What is known of every stage of a pipeline, of a run's memory, and of what lies between its stages."""

    def __init__(self, pipeline: Mapping[str, PipelineStage], recorded: Sequence[Recorded]) -> None:
        self.pipeline, self.shapes = pipeline, Shapes()
        self._epochs = {stage.name: list(_samples_per_epoch(stage, recorded)) for stage in pipeline.values()}
        self._targets: dict[tuple[str, Parameters], Target] = {}
        self._estimates: dict[tuple[str, Hashable], Estimate | None] = {}
        self.seconds = {name: _law(self._seconds(stage), recorded) for name, stage in pipeline.items()}
        self.disk = {name: _law(self._disk(stage), recorded) for name, stage in pipeline.items()}
        self.memory = _law(self._peak("rss_peak"), recorded)
        self.gpu_memory = _law(self._peak("gpu_memory_peak"), recorded)
        self.between = _law(self._between, [each for each in recorded if not each.pilot])
        ran = any(each.complete and not each.pilot and not each.stacked for each in recorded)
        self.silent = {name for name, law in self.seconds.items() if ran and not law.samples}
        """Stages that say nothing of themselves: what they take lies between the others."""

    def expect_seconds(self, stage: str, parameters: Parameters) -> Estimate | None:
        """What a stage takes from its start to its end."""
        return self._expect(f"{stage} s", self.seconds[stage], self.stage_target(self.pipeline[stage], parameters))

    def expect_disk(self, stage: str, parameters: Parameters) -> Estimate | None:
        """Bytes of a stage's outputs."""
        return self._expect(f"{stage} bytes", self.disk[stage], self._whole(self.pipeline[stage], parameters))

    def expect_between(self, parameters: Parameters) -> Estimate | None:
        """Seconds of a run in which no stage speaks: DVC, starts of processes, and stages that say nothing."""
        return self._expect("between", self.between, self._between_target(parameters))

    def expect_peak(self, peak: Peak, parameters: Parameters) -> Estimate | None:
        """Bytes of memory of a run's largest stage, on the host or on the GPU."""
        law = self.memory if peak == "rss_peak" else self.gpu_memory
        return self._expect(peak, law, self.run_target(parameters))

    def _expect(self, what: str, law: Law, target: Target) -> Estimate | None:
        """Each shape once."""
        key = what, target.shape
        if key not in self._estimates:
            self._estimates[key] = law.expect(target)
        return self._estimates[key]

    def stage_target(self, stage: PipelineStage, parameters: Parameters) -> Target:
        """A stage of a run with these parameters, its parts counted."""
        key = stage.name, parameters
        if key not in self._targets:
            names = stage.names(parameters.leaves)
            sections = [stage.train] if stage.train else []
            self._targets[key] = self.shapes.target(parameters, names, sections, self._counts(stage, parameters.leaves))
        return self._targets[key]

    def run_target(self, parameters: Parameters) -> Target:
        """A run with these parameters as a whole."""
        key = "", parameters
        if key not in self._targets:
            names = {name for stage in self.pipeline.values() for name in stage.names(parameters.leaves)}
            sections = [stage.train for stage in self.pipeline.values() if stage.train]
            self._targets[key] = self.shapes.target(parameters, sorted(names), sections, {ALL: 1.0})
        return self._targets[key]

    def _whole(self, stage: PipelineStage, parameters: Parameters) -> Target:
        target = self.stage_target(stage, parameters)
        return Target(shape=target.shape, form=target.form, leaves=target.leaves, counts={ALL: 1.0})

    def _between_target(self, parameters: Parameters) -> Target:
        """Where stages speak, what lies between them is the same for all runs."""
        if any(law.samples for law in self.seconds.values()):
            return ANY
        return self.run_target(parameters)

    def steps(self, stage: PipelineStage, leaves: Leaves) -> int | None:
        """Optimiser steps of a training stage; None where epochs are given and no record tells their length."""
        given: int | None = leaves[f"{stage.train}.steps"]
        epochs: float | None = leaves[f"{stage.train}.epochs"]
        if given is not None or epochs is None:
            return given
        known = self._epochs[stage.name]
        if not known:
            return None
        _, samples = min(known, key=lambda each: sum(leaves.get(key) != value for key, value in each[0].items()))
        return max(1, round(epochs * samples / _samples_per_step(stage, leaves)))

    def _counts(self, stage: PipelineStage, leaves: Leaves) -> dict[str, float]:
        if stage.train is None:
            return {REST: 1.0}
        steps = self.steps(stage, leaves)
        if steps is None:
            return {}
        validate, save = (leaves[f"{stage.train}.{key}_every"] for key in ("validate", "checkpoint"))
        passes = 1 + -(-steps // validate)
        return {TRAIN: steps, VALIDATE: passes, CHECKPOINT: steps // save, REST: 1.0}

    def _seconds(self, stage: PipelineStage) -> "Sampler":
        def sample(each: Recorded) -> Iterator[Sample]:
            tries = each.stages().get(stage.name, [])
            told = tries and any(one.ended is not None for one in tries)
            if told and not (stage.train and each.stacked):
                yield _stage_sample(stage, self.stage_target(stage, each.parameters), tries)

        return sample

    def _disk(self, stage: PipelineStage) -> "Sampler":
        def sample(each: Recorded) -> Iterator[Sample]:
            size = each.record.run.disk.get(stage.name)
            if size:
                yield _whole_sample(self._whole(stage, each.parameters), size)

        return sample

    def _peak(self, peak: Peak) -> "Sampler":
        def sample(each: Recorded) -> Iterator[Sample]:
            found = max((getattr(attempt.resources, peak) or 0 for attempt in each.attempts), default=0)
            if found and each.complete and not each.stacked and (not each.pilot or self._is_heavy(each)):
                grown = GROWTH if each.pilot and peak == "rss_peak" else 1.0
                yield _whole_sample(self.run_target(each.parameters), grown * found)

        return sample

    def _is_heavy(self, pilot: Recorded) -> bool:
        """Whether a pilot ran all but, perhaps, stages that make data, which another had run before."""
        missing = [stage for name, stage in self.pipeline.items() if name not in pilot.stages()]
        return not any(each.train for stage in missing for each in (stage, *stage.behind))

    def _between(self, each: Recorded) -> Iterator[Sample]:
        if each.complete and len(each.attempts) == 1:
            attempt = each.attempts[0]
            spoken = sum((stage.ended or stage.started) - stage.started for stage in attempt.stages)
            seconds = (attempt.ended or attempt.heartbeat) - attempt.started - spoken
            yield _whole_sample(self._between_target(each.parameters), max(seconds, 0.1))


Sampler = Callable[[Recorded], Iterator[Sample]]


def _law(sampler: Sampler, recorded: Sequence[Recorded]) -> Law:
    """The law of what runs show; a pilot counts where no run has its form."""
    samples = [sample for each in recorded if not each.pilot for sample in sampler(each)]
    known = {sample.target.form for sample in samples}
    pilots = [sample for each in recorded if each.pilot for sample in sampler(each)]
    return Law([*samples, *(sample for sample in pilots if sample.target.form not in known)])


def _whole_sample(target: Target, amount: float) -> Sample:
    return Sample(target=target, amount=amount, rates={ALL: amount})


def _stage_sample(stage: PipelineStage, target: Target, tries: Sequence[Stage]) -> Sample:
    """A stage over all attempts; its amount only where one try ran from beginning to end."""
    whole = tries[0] if len(tries) == 1 and tries[0].code == 0 and tries[0].ended is not None else None
    phases = _sums(tries)
    rates = dict(_training_rates(phases)) if stage.train else {}
    others = {name: work for name, work in phases.items() if name not in START and name not in rates}
    rates[REST] = sum(work.seconds * _extent(work) for work in others.values())
    seconds = whole.ended - whole.started if whole and whole.ended else None
    worked = sum(work.seconds for name, work in phases.items() if name not in START)
    return Sample(
        target=target,
        amount=seconds,
        fixed=max(seconds - worked, 0.0) if seconds is not None else 0.0,
        rates=rates,
        units=frozenset() if stage.train else _counted(others, target.leaves),
    )


def _sums(tries: Sequence[Stage]) -> dict[str, Work]:
    found: dict[str, Work] = {}
    for each in tries:
        for name, work in each.work.items():
            before = found.get(name, Work())
            found[name] = Work(
                passes=before.passes + work.passes,
                seconds=before.seconds + work.seconds,
                units=before.units + work.units,
                of=work.of,
                unit=work.unit,
                epoch=work.epoch,
            )
    return found


def _training_rates(phases: Mapping[str, Work]) -> Iterator[tuple[str, float]]:
    """Seconds for each step, validation and checkpoint."""
    for name, work in phases.items():
        count = work.units if name == TRAIN else work.passes
        if name in (TRAIN, VALIDATE, CHECKPOINT) and count:
            yield name, work.seconds / count


def _extent(work: Work) -> float:
    """What the whole of a phase is of what was done: more than 1 where it was stopped."""
    return max(1.0, work.of / work.units) if work.of and work.units and work.passes == 1 else 1.0


def _counted(phases: Mapping[str, Work], leaves: Mapping[str, Any]) -> frozenset[str]:
    """Whole numbers, and lists by their length, that are what a phase counted."""
    counts = {work.of for work in phases.values() if work.of and work.of > 1}
    sizes = {key: len(value) if isinstance(value, list) else value for key, value in leaves.items()}
    return frozenset(key for key, size in sizes.items() if type(size) is int and size in counts)


def _samples_per_epoch(stage: PipelineStage, recorded: Sequence[Recorded]) -> Iterator[tuple[Leaves, float]]:
    """Parameters of runs that trained, and how many samples their epochs had."""
    for each in recorded if stage.train else ():
        leaves = each.parameters.leaves
        for one in each.stages().get(stage.name, [])[: 0 if each.stacked else 1]:
            trained = one.work.get(TRAIN, Work())
            if trained.epoch:
                yield stage.leaves(leaves), trained.units * _samples_per_step(stage, leaves) / trained.epoch


def _samples_per_step(stage: PipelineStage, leaves: Leaves) -> float:
    return float(leaves[f"{stage.train}.batch_size"] * leaves[f"{stage.train}.accumulate"])
