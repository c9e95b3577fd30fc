"""Runs that differ in how they are optimised alone, trained in one pass; open it when one differs from its lone run.

The networks are stacked as those of an ensemble are (ensemble.py) and see the same batches, but each run keeps its own
optimiser, schedule, average, best weights and checkpoints: after every step it is its lone run at that step, but for
the rounding of stacked operations. What is left are checkpoints, from which the lone run goes on, if only to the end.
"""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import torch
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
    told: Mapping[str, tuple[Mapping[str, Any], str]], params: type, stage: Callable[[Any], None]
) -> dict[str, int]:
    """Train runs of one stage together; returns the steps that each has trained here. Errors as of `train_stack`.

    told: name to the content of its parameter file and the folder for its checkpoints. stage: what a lone run is done
    by, from its typed parameters.
    """
    runs: dict[str, StackedRun] = {}
    for name, (data, checkpoints) in told.items():
        os.environ[CHECKPOINTS] = checkpoints
        with collecting() as found, suppress(Unfinished):
            stage(build(params, data))
        first = next(iter(runs.values()), found[0])
        runs[name] = replace(found[0], task=first.task)  # the data are kept once
    with StopRequest() as stop:
        return train_stack(runs, stop)


def train_stack(runs: Mapping[str, StackedRun], stop: StopRequest) -> dict[str, int]:
    """Train runs of one shape and one seed until all but one have ended; returns the steps that each has trained here.

    The task of the first is everybody's. One that meets NaN, or is the last, is left to its lone run.

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
        with phase("train", training.total, min(first.values(), default=training.total)) as shown:
            while len(training.states) > 1:
                training.step()
                shown.advance(loss=training.loss_now)
        for name, state in training.states.items():
            save(state, runs[name].checkpoints)
            _say(f"{name} is left to its own run at step {state.step} of {training.total}")
        return {name: training.ends.get(name, first[name]) - first[name] for name in first}


class _Training:
    """The runs that are still trained, all at one step; what is done in a step, and what becomes of each."""

    def __init__(self, runs: Mapping[str, StackedRun], stop: StopRequest) -> None:
        first = next(iter(runs.values()))
        self.runs, self.stop, self.task, self.seed = runs, stop, first.task, first.seed
        self.config, self.total = first.config, first.config.total_steps(first.task.samples_per_epoch)
        self.ends: dict[str, int] = {}
        self.loss_now: float | None = None
        self.states = _at_one_step(runs, self.total)
        _refuse_unstackable(list(self.states.values()), self.task)
        fresh = next((state for state in self.states.values() if not state.rows), None)
        if fresh is not None:
            refuse_idle_terms(fresh, self.task, self.seed)
        for name, state in list(self.states.items()):
            self._validate_if_due(name, state)
        if self.states:
            self.batches = self.task.batches(self._lead.step * self.config.accumulate)
        self._stack()

    @property
    def _lead(self) -> TrainState:
        return next(iter(self.states.values()))

    def _stack(self) -> None:
        """Put the networks' weights into common tensors: those of each run become views of them."""
        if len(self.states) < 2:
            return
        self.networks = Ensemble([state.ensemble.module for state in self.states.values()])
        for place, state in enumerate(self.states.values()):
            for name, parameter in state.ensemble.parameters.items():
                parameter.data = self.networks.parameters[name].data[place]
            for name, buffer in state.ensemble.module.named_buffers():
                buffer.data = self.networks.buffers[name].data[place]
        self.health = {name: Health(s.device, s.ensemble.parameters) for name, s in self.states.items()}
        self.loss = Compiled(self.networks.loss, self.config.compile)

    def step(self) -> None:
        """One step of every run; those that have ended, or met NaN, leave the stack."""
        if self.stop.requested:
            for name, state in self.states.items():
                save(state, self.runs[name].checkpoints)
            where = f"train: stopped at step {self._lead.step} of {self.total}"
            raise Unfinished(f"{where}; the same command goes on from there")
        before = len(self.states)
        terms = backpropagate(self._lead, self.task, self.loss, self.batches, self.seed)
        for place, (name, state) in enumerate(list(self.states.items())):
            self._take_gradient(place, state)
            try:
                self._advance(name, state, {key: term[place : place + 1] for key, term in terms.items()})
            except NonFiniteError as error:
                del self.states[name]
                self.ends[name] = state.step
                _say(f"{name} is left to its own run: {error}")
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


def _refuse_unstackable(states: Sequence[TrainState], task: Task[Any]) -> None:
    """Raise ConfigError if torch cannot run these networks as one; leaves no trace."""
    if len(states) < 2:
        return
    networks = Ensemble([state.ensemble.module for state in states])
    with torch.random.fork_rng(), torch.no_grad():
        try:
            networks.loss(task, next(task.batches(0)), generator(0, device=states[0].device))
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"train: these runs cannot be stacked ({reason}); submit them without a stack") from error


def _say(text: str) -> None:
    print(f"stack: {text}", file=sys.stderr, flush=True)
