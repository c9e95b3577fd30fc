"""Optimisers move downhill; learning rates rise and fall as their schedule says."""

import json
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.engine.config import ScheduleConfig
from assay.engine.optim import build_optimizer, build_schedule, schedule_state
from assay.errors import ConfigError

STEPS = 100


def rates(config) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer(config.optimizer, [parameter])
    schedule = build_schedule(config.schedule, optimizer, STEPS, "min")
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        parameter.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("name", ["onecycle", "cosine"])
def test_a_rising_schedule_starts_low_peaks_after_the_warm_up_and_ends_low(name, make_config):
    found = rates(make_config(steps=STEPS, schedule={"name": name}))
    assert found[0] == pytest.approx(0.01 / 25)
    assert max(found) == pytest.approx(0.01, rel=0.01)
    assert found.index(max(found)) in range(28, 33)
    assert found[-1] < 0.01 / 50
    assert all(a <= b + 1e-12 for a, b in pairwise(found[:28])) and all(a >= b for a, b in pairwise(found[33:]))


def test_a_warm_up_of_exactly_one_step_is_refused(make_config):
    with pytest.raises(ConfigError, match=r"schedule\.warmup_fraction: got 0\.2; allowed: a warm-up that is not"):
        build_schedule(
            make_config(schedule={"warmup_fraction": 0.2}).schedule,
            torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))]),
            4,
            "min",
        )


def test_a_constant_schedule_is_constant(make_config):
    flat = {"name": "constant", "warmup_fraction": None, "initial_division": None, "final_division": None}
    assert set(rates(make_config(steps=STEPS, schedule=flat))) == {0.01}


@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "radam", "sgd"])
def test_every_rule_moves_downhill(name, make_config):
    extra = {"betas": None, "momentum": 0.5} if name == "sgd" else {}
    config = make_config(optimizer={"name": name, **extra})
    parameter = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = build_optimizer(config.optimizer, [parameter])
    for _ in range(50):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
    assert 0 < float(parameter.detach()) < 3


@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "radam", "sgd"])
def test_a_first_step_that_loss_scaling_leaves_out_changes_nothing_of_the_next(name, make_config):
    extra = {"betas": None, "momentum": 0.9} if name == "sgd" else {}
    config = make_config(optimizer={"name": name, **extra})

    def after(*gradients: float) -> torch.Tensor:
        parameter = torch.nn.Parameter(torch.zeros(100_000))
        optimizer, scaler = build_optimizer(config.optimizer, [parameter]), torch.amp.GradScaler("cpu")
        used = [torch.full((100_000,), 1e6) for _ in range(8)]
        del used  # memory that is not zero, as in any training
        for gradient in gradients:
            scaler.scale((parameter * gradient).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        return parameter.detach()

    assert torch.equal(after(1e38, 1.0), after(1.0))


@pytest.mark.parametrize(("direction", "sign"), [("min", 1), ("max", -1)])
@pytest.mark.parametrize("start", [1.0, -1.0, 0.0])
def test_a_plateau_is_where_the_monitor_sees_no_improvement_however_small(direction, sign, start, make_config):
    flat = dict.fromkeys(("warmup_fraction", "initial_division", "final_division"))
    config = make_config(schedule={"name": "plateau", "plateau_factor": 0.5, "plateau_patience": 0, **flat})

    def rate(values: list[float]) -> float:
        optimizer = build_optimizer(config.optimizer, [torch.nn.Parameter(torch.zeros(1))])
        schedule = build_schedule(config.schedule, optimizer, STEPS, direction)
        for value in values:
            schedule.step(value)
        return optimizer.param_groups[0]["lr"]

    improving = [start - sign * 1e-5 * step for step in range(4)]
    assert rate(improving) == 0.01
    assert rate([start] * 4) == rate(improving[::-1]) == 0.01 / 8


@given(st.sampled_from(["onecycle", "cosine"]))
def test_the_state_of_a_schedule_is_plain_json(name):
    config = ScheduleConfig(
        name=name,
        warmup_fraction=0.1,
        initial_division=10.0,
        final_division=10.0,
        lowest_momentum=0.8 if name == "onecycle" else None,
        plateau_factor=None,
        plateau_patience=None,
    )
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    state = schedule_state(build_schedule(config, optimizer, 10, "min"))
    assert json.loads(json.dumps(state)) == state and state["last_epoch"] == 0
