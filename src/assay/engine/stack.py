"""Runs that differ in how they are optimised alone, trained in one pass; open it when one differs from its lone run.

The networks are stacked as those of an ensemble are (ensemble.py) and see the same batches, but each run keeps its own
optimiser, schedule, average, best weights and checkpoints: after every step it is its lone run at that step, but for
the rounding of stacked operations; on a GPU dropout draws other masks, too. What is left are checkpoints, from which
the lone run goes on, if only to the end.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from assay.config.load import build
from assay.engine.checkpoint import CHECKPOINTS, CheckpointFolder
from assay.engine.config import FREE_IN_STACK, TrainConfig
from assay.engine.ensemble import Ensemble
from assay.engine.health import Health
from assay.engine.precision import Compiled, pick_device
from assay.engine.progress import phase
from assay.engine.random import generator
from assay.engine.state import TrainState
from assay.engine.stop import StopRequest
from assay.engine.task import Task
from assay.engine.train import (
    backpropagate,
    note_losses,
    refuse_idle_terms,
    save,
    update,
    validated,
    validation_due,
)
from assay.errors import ConfigError, NonFiniteError, Unfinished


@dataclass(frozen=True, kw_only=True)
class StackedRun:
    """What `run_training` was asked to train."""

    task: Task[Any]
    config: TrainConfig
    seed: int
    checkpoints: CheckpointFolder


_collected: ContextVar[list[StackedRun] | None] = ContextVar("collected", default=None)


@contextmanager
def collecting() -> Iterator[list[StackedRun]]:
    """Within it `run_training` trains nothing: it puts what it was to train into this list and raises Unfinished."""
    runs: list[StackedRun] = []
    token = _collected.set(runs)
    try:
        yield runs
    finally:
        _collected.reset(token)


def put_by(run: StackedRun) -> None:
    """Raise Unfinished if runs are being collected, after adding this one."""
    runs = _collected.get()
    if runs is not None:
        runs.append(run)
        raise Unfinished("train: put by, to be trained together with others")


def train_alike(
    told: Mapping[str, tuple[Mapping[str, Any], str]],
    params: type,
    stage: Callable[[Any], None],
    begin: Callable[[list[str]], None],
) -> None:
    """Train runs of one stage together. Errors as of `train_stack`.

    told: name to the content of its parameter file and the folder for its checkpoints. stage: what a lone run is done
    by, from its typed parameters. begin: hears which runs are trained.
    """
    runs: dict[str, StackedRun] = {}
    for name, (data, checkpoints) in told.items():
        os.environ[CHECKPOINTS] = checkpoints
        with collecting() as found, suppress(Unfinished):
            stage(build(params, data))
        first = next(iter(runs.values()), found[0])
        runs[name] = replace(found[0], task=first.task)  # the data are kept once
    with StopRequest() as stop:
        train_stack(runs, stop, begin)


def train_stack(
    runs: Mapping[str, StackedRun], stop: StopRequest, begin: Callable[[list[str]], None] = lambda names: None
) -> dict[str, int]:
    """Train runs of one shape and one seed until all but one have ended; returns the steps that each has trained here.

    The task of the first is everybody's. One that meets NaN, or is the last, is left to its lone run. begin: hears
    which runs are trained, before the first step.

    Raises:
        Unfinished: a stop was requested; checkpoints of this very step have been saved.
        CheckpointError: checkpoints are damaged or foreign, or another process trains one of the runs.
        ConfigError: the runs cannot be stacked, or a loss term reaches no trained parameter.
    """
    _refuse_unlike(runs)
    with ExitStack() as locks:
        for run in runs.values():
            locks.enter_context(run.checkpoints.locked())
        training = _Training(runs, stop)
        first = {name: state.step for name, state in training.states.items()}
        if len(first) > 1:
            begin(list(first))
        with phase("train", training.total, min(first.values(), default=training.total)) as shown:
            while len(training.states) > 1:
                training.step()
                shown.advance(loss=training.loss_now)
        training.end_if_asked()
        training.leave_the_rest()
        return {name: training.ends[name] - first[name] for name in first}


class _Training:
    """The runs that are still trained, all at one step; what is done in a step, and what becomes of each."""

    def __init__(self, runs: Mapping[str, StackedRun], stop: StopRequest) -> None:
        first = next(iter(runs.values()))
        self.runs, self.stop, self.task, self.seed = runs, stop, first.task, first.seed
        self.config, self.total = first.config, first.config.total_steps(first.task.samples_per_epoch)
        self.ends: dict[str, int] = {}
        self.loss_now: float | None = None
        self.states = _at_one_step(runs, self.total)
        self.health = {name: Health(s.device, s.ensemble.parameters) for name, s in self.states.items()}
        fresh = next((state for state in self.states.values() if not state.rows), None)
        if fresh is not None:
            refuse_idle_terms(fresh, self.task, self.seed)
        if len(self.states) > 1:
            networks, random = self._networks(), generator(0, device=self._lead.device)
            networks.refuse_unstackable(self.task, next(self.task.batches(0)), random)
            self.batches = self.task.batches(self._lead.step * self.config.accumulate)
        for name, state in list(self.states.items()):
            self._unless_not_finite(name, state, partial(self._validate_if_due, name, state))
        self._stack()

    @property
    def _lead(self) -> TrainState:
        return next(iter(self.states.values()))

    def _stack(self) -> None:
        """Put the networks' weights into common tensors: those of each run become views of them."""
        if len(self.states) < 2:
            return
        self.networks = self._networks()
        for place, state in enumerate(self.states.values()):
            for name, parameter in state.ensemble.parameters.items():
                parameter.data = self.networks.parameters[name].data[place]
            for name, buffer in state.ensemble.module.named_buffers():
                buffer.data = self.networks.buffers[name].data[place]
        self.loss = Compiled(self.networks.loss, self.config.compile)

    def _networks(self) -> Ensemble:
        return Ensemble([state.ensemble.module for state in self.states.values()])

    def end_if_asked(self) -> None:
        """Save every run and raise Unfinished, if there are any left and a stop was requested."""
        if not self.states or not self.stop.requested:
            return
        step = self._lead.step
        self.leave_the_rest()
        raise Unfinished(f"train: stopped at step {step} of {self.total}; the same command goes on from there")

    def leave_the_rest(self) -> None:
        """Save the runs that have not ended."""
        for name, state in list(self.states.items()):
            self._unless_not_finite(name, state, self.health[name].check)
        for name, state in self.states.items():
            self.ends[name] = state.step
            save(state, self.runs[name].checkpoints)
            _say(f"{name} is saved at step {state.step} of {self.total}")

    def _unless_not_finite(self, name: str, state: TrainState, act: Callable[[], None]) -> None:
        """One that meets NaN or Inf leaves, without another checkpoint: its own run will meet it, too, and say so."""
        try:
            act()
        except NonFiniteError as error:
            del self.states[name]
            self.ends[name] = state.step
            _say(f"{name} is left to its own run: {error}")

    def step(self) -> None:
        """One step of every run; those that have ended, or met NaN, leave the stack."""
        self.end_if_asked()
        before = len(self.states)
        terms = backpropagate(self._lead, self.task, self.loss, self.batches, self.seed)
        for place, (name, state) in enumerate(list(self.states.items())):
            self._take_gradient(place, state)
            own = {key: term[place : place + 1] for key, term in terms.items()}
            self._unless_not_finite(name, state, partial(self._advance, name, state, own))
        for parameter in self.networks.parameters.values():
            parameter.grad = None
        if len(self.states) < before:
            self._stack()

    def _take_gradient(self, place: int, state: TrainState) -> None:
        for name, parameter in state.ensemble.parameters.items():
            gradient = self.networks.parameters[name].grad
            parameter.grad = None if gradient is None else gradient[place]

    def _advance(self, name: str, state: TrainState, terms: dict[str, Tensor]) -> None:
        """What the training loop does with a lone run after its gradients are there."""
        health = self.health[name]
        update(state, terms, health)
        if validation_due(state, self.total) or state.step % self.config.log_every == 0:
            health.check()
            note_losses(state, terms)
            self.loss_now = state.row()["train/loss"]
        self._validate_if_due(name, state)
        if name in self.states and state.step % self.config.checkpoint_every == 0:
            health.check()
            save(state, self.runs[name].checkpoints)

    def _validate_if_due(self, name: str, state: TrainState) -> None:
        """A run whose last validation this was leaves, with its checkpoint."""
        if validation_due(state, self.total):
            validated(state, self.task, self.stop)
        if _is_over(state, self.total):
            save(state, self.runs[name].checkpoints)
            del self.states[name]
            self.ends[name] = state.step


def _at_one_step(runs: Mapping[str, StackedRun], total: int) -> dict[str, TrainState]:
    """The runs that have not ended, from their checkpoints of the newest step that most of them have."""
    kept = {name: _steps(run) for name, run in runs.items() if not _is_over(_begun(run), total)}
    counts = Counter(step for steps in kept.values() for step in steps)
    chosen = max(counts, key=lambda step: (counts[step], step), default=0)
    for name, steps in kept.items():
        if chosen not in steps:
            _say(f"{name} is left to its own run: it has no checkpoint of step {chosen}")
    if chosen:
        _say(f"goes on from step {chosen}")
    return {name: _begun(runs[name], until=chosen) for name, steps in kept.items() if chosen in steps}


def _steps(run: StackedRun) -> list[int]:
    """The steps that a run can go on from."""
    return run.checkpoints.steps() or [0]


def _begun(run: StackedRun, until: int | None = None) -> TrainState:
    """A run where it stands, or stood. Its weights are laid out as in a stack, and what the optimiser keeps follows."""
    state = TrainState(run.task, run.config, run.seed, pick_device(run.config.device))
    for parameter in state.ensemble.parameters.values():
        parameter.data = parameter.data.contiguous()
    found = run.checkpoints.load(until)
    if found is not None:
        tensors, document, damaged = found
        state.restore(tensors, document)
        for line in damaged:
            _say(line)
    return state


def _is_over(state: TrainState, total: int) -> bool:
    return (state.step >= total or state.exhausted) and not validation_due(state, total)


def _refuse_unlike(runs: Mapping[str, StackedRun]) -> None:
    """Raise ConfigError unless the runs have one seed, and training sections that differ in no other keys."""
    first_name, first = next(iter(runs.items()))
    for key, allowed in (("ensemble_size", (1,)), ("precision", ("fp32", "bf16"))):
        given = getattr(first.config, key)
        if given not in allowed:
            words = ", ".join(map(str, allowed))
            raise ConfigError(f"train.{key}: got {given}; allowed in a stack: {words}; train the runs alone")
    fixed = [key for key in vars(first.config) if key not in FREE_IN_STACK]
    for name, run in runs.items():
        unlike = [key for key in fixed if getattr(run.config, key) != getattr(first.config, key)]
        if unlike or run.seed != first.seed:
            key = f"train.{unlike[0]}" if unlike else "seed"
            raise ConfigError(
                f"{key}: {name} differs from {first_name}; allowed to differ: train.{', '.join(FREE_IN_STACK)}"
            )


def _say(text: str) -> None:
    print(f"stack: {text}", file=sys.stderr, flush=True)
