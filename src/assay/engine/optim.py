"""Optimisers and learning-rate schedules of torch.optim from their configs; open it to add one."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler

from assay.engine.config import OptimizerConfig, ScheduleConfig
from assay.errors import ConfigError

Scheduler = lr_scheduler.LRScheduler


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """The update rule over `parameters`; fused where torch has a fused kernel that can leave a step out."""
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.name == "sgd":
        # Not fused: if loss scaling leaves the first step out, the fused kernel keeps a momentum of unset memory.
        return torch.optim.SGD(parameters, momentum=config.momentum or 0.0, **common)
    common["betas"] = config.betas
    if config.name == "nadam":
        return torch.optim.NAdam(parameters, **common)
    if config.name == "radam":
        return torch.optim.RAdam(parameters, **common)
    rule = torch.optim.AdamW if config.name == "adamw" else torch.optim.Adam
    return rule(parameters, fused=True, **common)


def build_schedule(config: ScheduleConfig, optimizer: torch.optim.Optimizer, steps: int, mode: str) -> Scheduler:
    """The learning rate over `steps`; `mode` ("min" or "max") is the monitor's direction, for the plateau."""
    if config.name == "plateau":
        factor, patience = config.plateau_factor or 0.1, config.plateau_patience or 0
        return lr_scheduler.ReduceLROnPlateau(  # threshold 0: it improves where `Monitor.better` says so
            optimizer,
            mode=mode,  # type: ignore[arg-type]
            factor=factor,
            patience=patience,
            threshold=0.0,
        )
    if config.name == "constant":
        return lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    warmup, first, last = config.warmup_fraction, config.initial_division, config.final_division
    if warmup is None or first is None or last is None:
        raise ValueError("a schedule that rises needs warmup_fraction, initial_division and final_division")
    if config.name == "cosine":
        return lr_scheduler.LambdaLR(optimizer, lambda step: _cosine(step, steps, warmup, first, last))
    if abs(warmup * (steps + 1) - 1) < 1e-9:
        allowed = "a warm-up that is not exactly one step"
        raise ConfigError(f"train.schedule.warmup_fraction: got {warmup:g}; allowed: {allowed}; change it or steps")
    group = optimizer.param_groups[0]
    highest = group["betas"][0] if "betas" in group else group["momentum"]
    lowest = config.lowest_momentum
    return lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=group["lr"],
        total_steps=steps + 1,
        cycle_momentum=lowest is not None,
        base_momentum=highest if lowest is None else lowest,
        max_momentum=highest,
        pct_start=warmup,
        div_factor=first,
        final_div_factor=last,
    )


def _cosine(step: int, steps: int, warmup: float, first: float, last: float) -> float:
    """Factor on the rate: linear from 1/first to 1, then half a cosine down to 1/last."""
    rise = warmup * steps
    if step < rise:
        return 1 / first + (1 - 1 / first) * step / rise
    progress = min(1.0, (step - rise) / max(steps - rise, 1))
    return 1 / last + (1 - 1 / last) * 0.5 * (1 + math.cos(math.pi * progress))


def schedule_state(schedule: Scheduler) -> dict[str, Any]:
    """The schedule's counters as plain JSON values."""
    plain = (int, float, bool, str, type(None))
    return {
        key: value
        for key, value in schedule.state_dict().items()
        if isinstance(value, plain) or (isinstance(value, list) and all(isinstance(item, plain) for item in value))
    }
