"""Everything that a training run carries from step to step, and its way into and out of a checkpoint.

Open it when a resumed run differs from an undisturbed one: what is missing here is what was forgotten.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from assay.engine.batch_norm import share_batch_norms
from assay.engine.config import TrainConfig
from assay.engine.distributed import Group, gathered
from assay.engine.ensemble import Ensemble
from assay.engine.log import Row
from assay.engine.optim import build_optimizer, build_schedule, schedule_state
from assay.engine.precision import Precision
from assay.engine.random import derive
from assay.engine.task import Batch, Monitor, Task
from assay.errors import CheckpointError, ConfigError

TensorDict = dict[str, Tensor]


class TrainState:
    """Weights, optimiser, schedule, scaler, moving average, best weights, counters and logged rows of one run."""

    def __init__(
        self, task: Task[Batch], config: TrainConfig, seed: int, device: torch.device, group: Group | None = None
    ) -> None:
        group = group or Group.alone(device)
        if group.world > 1 and config.ensemble_size > 1:
            given = f"train.ensemble_size: got {config.ensemble_size} with {group.world} processes"
            raise ConfigError(f"{given}; allowed: 1; train the members one after the other, or in one process")
        self.config, self.group, self.device = config, group, device
        self.monitor: Monitor = task.monitor
        members = build_members(task, seed, config.ensemble_size, device)
        if group.world > 1:
            share_batch_norms(members[0], group)
        torch.manual_seed(derive(seed, "layers", *group.key))  # what layers draw, such as dropout's masks
        self.ensemble = Ensemble(members)
        self.optimizer = build_optimizer(config.optimizer, self.ensemble.parameters.values())
        steps = config.total_steps(task.samples_per_epoch)
        self.schedule = build_schedule(config.schedule, self.optimizer, steps, task.monitor.direction)
        self.precision = Precision(config, device)
        self.average = clone(self.ensemble.state()) if config.ema_decay else None
        self.best = clone(self.ensemble.state())
        self.best_value = [task.monitor.worst] * config.ensemble_size
        self.best_step = [0] * config.ensemble_size
        self.waited = [0] * config.ensemble_size
        self.step = 0
        self.rows: list[Row] = []
        self.validation_s = 0.0  # the longest in this process; no part of a checkpoint

    def row(self) -> Row:
        """What is logged at this step."""
        if not self.rows or self.rows[-1]["step"] != self.step:
            self.rows.append({"step": self.step})
        return self.rows[-1]

    def evaluated(self) -> TensorDict:
        """The weights that are judged: the moving average if there is one."""
        return self.average if self.average is not None else self.ensemble.state()

    def update_average(self) -> None:
        """Move the average one step towards the weights."""
        if self.average is not None and self.config.ema_decay is not None:
            for name, tensor in self.ensemble.state().items():
                if tensor.is_floating_point():
                    self.average[name].lerp_(tensor, 1 - self.config.ema_decay)
                else:
                    self.average[name].copy_(tensor)

    def judge(self, values: list[float]) -> None:
        """Keep the weights of every member whose monitored value improved, and count the waits of the others."""
        current = self.evaluated()
        for k, value in enumerate(values):
            if not self.monitor.better(value, self.best_value[k]):
                self.waited[k] += 1
                continue
            self.best_value[k], self.best_step[k], self.waited[k] = value, self.step, 0
            for name, tensor in self.best.items():
                tensor[k].copy_(current[name][k])

    @property
    def exhausted(self) -> bool:
        """Whether every member has waited longer than the patience."""
        patience = self.config.patience
        return patience is not None and min(self.waited) >= patience

    def tensors(self) -> TensorDict:
        """All tensors of the run under slash-separated names. All ranks ask: each has random numbers of its own."""
        groups = {"model": self.ensemble.state(), "best": self.best, "average": self.average or {}}
        flat = {f"{group}/{name}": tensor for group, state in groups.items() for name, tensor in state.items()}
        for index, slots in self.optimizer.state_dict()["state"].items():
            flat.update({f"optimizer/{index}/{key}": torch.as_tensor(value) for key, value in slots.items()})
        for rank, state in enumerate(gathered(torch.get_rng_state(), self.group)):
            flat[_of_rank("rng/cpu", rank)] = state
        if self.device.type == "cuda":
            for rank, state in enumerate(gathered(torch.cuda.get_rng_state(self.device), self.group)):
                flat[_of_rank("rng/cuda", rank)] = state
        return flat

    def document(self) -> dict[str, Any]:
        """All numbers of the run that are no tensors."""
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        return {
            "step": self.step,
            "processes": self.group.world,
            "optimizer": groups,
            "schedule": schedule_state(self.schedule),
            "scaler": self.precision.scaler.state_dict(),
            "best_value": self.best_value,
            "best_step": self.best_step,
            "waited": self.waited,
            "rows": self.rows,
        }

    def restore(self, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Put the run back exactly where `tensors()` and `document()` were taken.

        Raises:
            CheckpointError: that was with another number of processes, or not all of them see the same checkpoint.
        """
        refuse_another_group(document, self.group)
        self.ensemble.load(_group(tensors, "model", self.device))
        _copy(_group(tensors, "best", self.device), self.best)
        if self.average is not None:
            _copy(_group(tensors, "average", self.device), self.average)
        self._restore_optimizer(_group(tensors, "optimizer", torch.device("cpu")), document["optimizer"])
        self.schedule.load_state_dict(document["schedule"])
        self.precision.scaler.load_state_dict(document["scaler"])
        self.best_value, self.best_step = document["best_value"], document["best_step"]
        self.waited, self.rows, self.step = document["waited"], document["rows"], document["step"]
        torch.set_rng_state(tensors[_of_rank("rng/cpu", self.group.rank)])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[_of_rank("rng/cuda", self.group.rank)], self.device)

    def _restore_optimizer(self, slots: TensorDict, groups: list[dict[str, Any]]) -> None:
        """Each slot gets the memory layout of its parameter: fused kernels walk both in step."""
        parameters = list(self.ensemble.parameters.values())
        state: dict[int, TensorDict] = {}
        for name, tensor in slots.items():
            index, key = name.split("/")
            parameter = parameters[int(index)]
            laid_out = torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
            state.setdefault(int(index), {})[key] = laid_out
        indices = [group["params"] for group in self.optimizer.state_dict()["param_groups"]]
        packed = [{**group, "params": params} for group, params in zip(groups, indices, strict=True)]
        self.optimizer.load_state_dict({"state": state, "param_groups": packed})


def build_members(task: Task[Batch], seed: int, size: int, device: torch.device) -> list[nn.Module]:
    """`size` fresh networks; member k draws its weights from the key (seed, "init", k).

    A lone network's 2-D convolutions get channels-last weights, a sixth faster on a CPU; vmap cannot take them yet.
    """
    members = []
    for k in range(size):
        torch.manual_seed(derive(seed, "init", k))
        member = task.build().to(device)
        for layer in member.modules() if size == 1 else ():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        members.append(member)
    return members


def refuse_another_group(document: Mapping[str, Any], group: Group) -> None:
    """Raise CheckpointError if a checkpoint is of another number of processes, or not the one that all others see."""
    saved, step = document["processes"], document["step"]
    if saved != group.world:
        remedy = "start as many again, or move the checkpoints away to begin anew"
        raise CheckpointError(f"checkpoint of step {step}: got {group.world} processes; allowed: {saved}; {remedy}")
    steps = [int(seen) for seen in gathered(torch.tensor(step), group)]
    if len(set(steps)) > 1:
        seen = ", ".join(f"rank {rank} sees step {one}" for rank, one in enumerate(steps))
        raise CheckpointError(f"checkpoints: {seen}; allowed: one for all; give all nodes the same folder")


def _of_rank(name: str, rank: int) -> str:
    return f"{name}/{rank}" if rank else name


def clone(state: Mapping[str, Tensor]) -> TensorDict:
    """A copy that shares no memory."""
    return {name: tensor.clone() for name, tensor in state.items()}


def _copy(saved: Mapping[str, Tensor], own: TensorDict) -> None:
    """Fill tensors that keep their memory layout: the last bits of a convolution depend on that of its weights."""
    for name, tensor in own.items():
        tensor.copy_(saved[name])


def _group(tensors: Mapping[str, Tensor], group: str, device: torch.device) -> TensorDict:
    prefix = f"{group}/"
    return {name.removeprefix(prefix): t.to(device) for name, t in tensors.items() if name.startswith(prefix)}
