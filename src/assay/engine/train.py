"""The training loop: the only one in the project, to be read from top to bottom."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from assay import progress
from assay.engine.checkpoint import CheckpointFolder
from assay.engine.config import TrainConfig
from assay.engine.distributed import Group, any_rank, averaged, from_leader, gathered
from assay.engine.health import Health
from assay.engine.log import Row, TrainingLog
from assay.engine.precision import Compiled, pick_device
from assay.engine.progress import phase
from assay.engine.random import generator
from assay.engine.state import TensorDict, TrainState, clone
from assay.engine.stop import StopRequest
from assay.engine.task import Batch, Task
from assay.errors import AssayError, ConfigError, NonFiniteError, Unfinished


@dataclass(frozen=True)
class Trained:
    """What a finished run leaves: K members' weights, each tensor (K, ...), and how they came about."""

    best: TensorDict
    last: TensorDict
    best_value: list[float]
    best_step: list[int]
    steps: int
    samples: int
    epochs: float
    rows: list[Row] = field(repr=False)
    compiled: str = "none"
    """The mode in which the loss was compiled at the end; `fallback` says why if it is not the one asked for."""
    fallback: str | None = None


def train(  # noqa: PLR0913 - one run: what is trained, how, from where to where, by whom
    task: Task[Batch],
    config: TrainConfig,
    seed: int,
    checkpoints: CheckpointFolder,
    log: TrainingLog,
    stop: StopRequest,
    group: Group | None = None,
) -> Trained:
    """Train until the budget is spent or patience ends, from the newest checkpoint if there is one.

    group: the ranks that train together, each from a process of its own that calls this; None: this process alone.

    Raises:
        Unfinished: a stop was requested, of any rank; a checkpoint of this very step has been saved.
        NonFiniteError: a loss term or gradient norm became NaN or Inf; with fp16, in 100 steps in a row.
        CheckpointError: the checkpoints are damaged or foreign.
        DataError: the disk is full.
        ConfigError: a loss term with a positive weight reaches no trained parameter; or several ranks cannot share this
            training, as it is of an ensemble, or a parameter is reached by no term.
    """
    group = group or Group.alone(pick_device(config.device))
    state = TrainState(task, config, seed, group.device, group)
    resume(state, checkpoints)
    if not state.rows:
        refuse_idle_terms(state, task, seed)
    state.ensemble.share(group)
    total = config.total_steps(task.samples_per_epoch)
    put_off = validation_due(state, total) and not validated(state, task, stop)
    log.replay(state.rows)
    batches = task.batches(state.step * config.accumulate)
    loss = Compiled(state.ensemble.loss, config.compile)
    health = Health(group.device, state.ensemble.parameters, config.precision == "fp16", group)

    with phase("train", total, state.step, quiet=not group.leads) as shown:
        while put_off or (state.step < total and not state.exhausted):
            if any_rank(stop.requested, group):
                health.check()
                save(state, checkpoints)
                raise Unfinished(f"train: stopped at step {state.step} of {total}; the same command goes on from there")

            terms = backpropagate(state, task, loss, batches, seed)
            update(state, terms, health)

            due = validation_due(state, total)
            if due or state.step % config.log_every == 0:  # patience ends at a validation: the last step is logged
                health.check()
                note_losses(state, terms)
            if due:
                put_off = not validated(state, task, stop)
            row = state.rows[-1] if state.rows[-1]["step"] == state.step else {}
            if row:
                log.write(row)
            if state.step % config.checkpoint_every == 0:
                health.check()
                save(state, checkpoints)
            loss_now = row.get("train/loss")
            note = None if loss_now is None else f"loss {loss_now:.4g}"
            shown.advance(note=note, epoch=state.step * config.samples_per_step / task.samples_per_epoch, loss=loss_now)

    return finished(state, task, loss)


def resume(state: TrainState, checkpoints: CheckpointFolder) -> None:
    """Put the newest intact checkpoint into `state`, if there is one; says so, and which ones it passed over."""
    found = checkpoints.load()
    if found is None:
        return
    tensors, document, damaged = found
    state.restore(tensors, document)
    for line in [*damaged, f"train: goes on from step {state.step}"] if state.group.leads else ():
        print(line, file=sys.stderr, flush=True)


def save(state: TrainState, checkpoints: CheckpointFolder) -> None:
    """Write the checkpoint of this step; of several ranks the first does, and the others wait until it is written."""
    refuse_drift(state)
    tensors = state.tensors()
    if state.group.leads:
        checkpoints.save(state.step, tensors, state.document())
    from_leader(None, state.group)


def refuse_drift(state: TrainState) -> None:
    """Raise AssayError if weights or buffers are not the same on all ranks, as those of the first are what is kept."""
    if state.group.world == 1:
        return
    model = state.ensemble.state()
    sums = gathered(torch.stack([tensor.double().sum() for tensor in model.values()]).cpu(), state.group)
    drifted = [name for place, name in enumerate(model) if any(not one[place].equal(sums[0][place]) for one in sums)]
    if drifted:
        remedy = "fill it from assay.engine.distributed.total, or from nothing that depends on the samples"
        raise AssayError(f"train: step {state.step}: {drifted[0]} is not the same on all ranks; {remedy}")


def validation_due(state: TrainState, total: int) -> bool:
    """Whether this step ends with a validation that has not been made."""
    due = state.step % state.config.validate_every == 0 or state.step == total
    return due and not any(name.startswith("validate/") for name in state.row())


def validated(state: TrainState, task: Task[Batch], stop: StopRequest) -> bool:
    """Validate, unless a request to stop or the job's limit comes first: the next attempt makes up for it."""
    if state.step > 0 and any_rank(stop.before(state.validation_s), state.group):
        return False
    state.row().update(validate(state, task))
    return True


def backpropagate(
    state: TrainState, task: Task[Batch], loss: Callable[..., dict[str, Tensor]], batches: Iterator[Batch], seed: int
) -> dict[str, Tensor]:
    """Gradients of one optimiser step, summed over its micro-batches; returns the mean loss and terms, each (K,)."""
    parts: list[dict[str, Tensor]] = []
    for micro in range(state.config.accumulate):
        rng = generator(seed, "loss", state.step, micro, *state.group.key, device=state.device)
        batch = next(batches)
        with state.ensemble.exchange(micro == state.config.accumulate - 1):
            with state.precision.autocast():
                terms = loss(task, batch, rng)
                total = weigh(terms, task.weights)
            scaled: Tensor = state.precision.scaler.scale(total.sum() / state.config.accumulate)
            torch.autograd.backward(scaled)
        parts.append({name: term.detach() for name, term in {**terms, "loss": total}.items()})
    return parts[0] if len(parts) == 1 else {name: torch.stack([p[name] for p in parts]).mean(0) for name in parts[0]}


def update(state: TrainState, terms: Mapping[str, Tensor], health: Health) -> None:
    """One step of the optimiser, by the gradients that are there: clip, refuse NaN, move weights, rate and average."""
    state.precision.scaler.unscale_(state.optimizer)
    health.watch(state.step + 1, terms, state.ensemble.clip(state.config.clip_norm or math.inf))
    state.precision.scaler.step(state.optimizer)
    state.precision.scaler.update()
    state.optimizer.zero_grad(set_to_none=True)
    if state.config.schedule.name != "plateau":
        state.schedule.step()
    state.step += 1
    state.update_average()


def note_losses(state: TrainState, terms: Mapping[str, Tensor]) -> None:
    """Log the losses of this step, and its learning rate."""
    state.row().update({f"train/{name}": value for name, value in averaged(terms, state.group).items()})
    state.row()["train/lr"] = state.optimizer.param_groups[0]["lr"]


def weigh(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The weighted sum of the terms, (K,)."""
    if terms.keys() != weights.keys():
        raise KeyError(f"loss terms {sorted(terms)} and weights {sorted(weights)} differ")
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum(dim=0)


def validate(state: TrainState, task: Task[Batch]) -> Row:
    """Evaluate every member, keep the best weights, lower the rate on a plateau; returns the members' means.

    Of several ranks the first evaluates and the others wait for its word, so that all decide alike.
    """
    begun = time.monotonic()
    state.ensemble.module.eval()
    members, weights, results = state.ensemble.size, state.evaluated(), []
    with torch.no_grad(), progress.phase("validate", members, unit="members") as judged:
        for k in range(members):
            member = state.precision.network(state.ensemble.member(k, weights))
            metrics = task.evaluate(member).metrics if state.group.leads else None
            results.append(from_leader(metrics, state.group))
            judged.advance()
    state.ensemble.module.train()
    state.validation_s = max(state.validation_s, time.monotonic() - begun)
    monitored = [float(result[state.monitor.metric]) for result in results]
    if not all(math.isfinite(value) for value in monitored):
        raise NonFiniteError(f"validate: step {state.step}: {state.monitor.metric} is {monitored}; look at the data")
    if state.step > 0:  # untrained weights are a control and no result, however good they look
        state.judge(monitored)
        if state.config.schedule.name == "plateau":
            state.schedule.step(sum(monitored) / len(monitored))  # type: ignore[arg-type]
    return {f"validate/{name}": sum(r[name] for r in results) / len(results) for name in results[0]}


def refuse_idle_terms(state: TrainState, task: Task[Batch], seed: int) -> None:
    """Raise ConfigError if a term with a positive weight has no gradient in any parameter; leaves no trace.

    Several ranks exchange the gradient of every parameter, so among them one that gets none is refused, too.
    """
    before, batch = clone(state.ensemble.everything()), next(task.batches(0))
    if state.ensemble.size > 1:
        state.ensemble.refuse_unstackable(task, batch, generator(seed, "loss", 0, 0, device=state.device))
    with torch.random.fork_rng():
        terms = state.ensemble.loss(task, batch, generator(seed, "loss", 0, 0, device=state.device))
    reached = {name: _reached(terms[name], state.ensemble.parameters) for name, w in task.weights.items() if w > 0}
    for name, tensor in state.ensemble.everything().items():
        tensor.copy_(before[name])
    idle = [name for name, parameters in reached.items() if not parameters]
    if idle:
        remedy = "set its weight to 0, or train what it needs"
        raise ConfigError(f"loss: term {idle[0]} reaches no trained parameter; {remedy}")
    unused = state.ensemble.parameters.keys() - set().union(*reached.values())
    if unused and state.group.world > 1:
        given = f"parameter {min(unused)} is reached by no term of the loss, with {state.group.world} processes"
        raise ConfigError(f"loss: {given}; allowed: parameters that are; freeze it, or train in one process")


def _reached(term: Tensor, parameters: Mapping[str, Any]) -> set[str]:
    """Names of the parameters in which a term has a gradient."""
    if not term.requires_grad:
        return set()
    gradients: tuple[Tensor | None, ...] = torch.autograd.grad(
        term.sum(), list(parameters.values()), retain_graph=True, allow_unused=True
    )
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def finished(state: TrainState, task: Task[Batch], loss: Compiled) -> Trained:
    """The result of a run that spent its budget or its patience."""
    samples = state.step * state.config.samples_per_step
    return Trained(
        best=state.best,
        last=state.evaluated(),
        best_value=state.best_value,
        best_step=state.best_step,
        steps=state.step,
        samples=samples,
        epochs=samples / task.samples_per_epoch,
        rows=state.rows,
        compiled=loss.used,
        fallback=loss.fallback,
    )
