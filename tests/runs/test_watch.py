"""Silence is a stall when it is longer than the phase's floor and than N of its median intervals."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.runs.config import FloorsConfig, WatchConfig
from assay.runs.watch import Activity, Silence

FLOORS = FloorsConfig(load=60, train=5, validate=20, checkpoint=10, other=30, command=100)
WATCH = WatchConfig(factor=10, floors=FLOORS)


def stepping(phase: str, steps: int = 1) -> Silence:
    """A phase that has made quick steps."""
    silence = Silence(WATCH, phase, now=0)
    for step in range(1, steps + 1):
        silence.moved(step * 0.1, phase)
    return silence


@pytest.mark.parametrize(("phase", "floor"), [("load", 60), ("train", 5), ("simulate", 30), ("import", 60)])
def test_a_phase_has_its_own_floor_or_the_one_of_others(phase, floor):
    silence = stepping(phase)
    assert not silence.stalled(0.1 + floor)
    assert silence.stalled(0.2 + floor)


def test_the_first_step_of_a_phase_may_take_as_long_as_the_largest_floor():
    silence = Silence(WATCH, "train", now=0)
    assert silence.bound() == 60
    silence.moved(50, "train")
    silence.moved(50.1, "train")
    silence.moved(50.2, "train")
    assert silence.bound() == 5


def test_the_first_step_right_after_another_phase_too():
    silence = stepping("checkpoint", 5)
    silence.enter(1, "train")
    assert silence.bound() == 60
    silence.moved(2, "train")
    silence.enter(3, "checkpoint")
    silence.enter(4, "train")
    assert silence.bound() == 10


def test_a_command_that_says_nothing_has_its_own_floor_from_the_start():
    assert Silence(WATCH, "command", now=0).bound() == 100


def test_slow_steps_raise_the_bound():
    silence = Silence(WATCH, "train", now=0)
    for step in range(1, 6):
        silence.moved(step * 2.0, "train")
    assert silence.bound() == 20
    assert not silence.stalled(30)
    assert silence.stalled(30.1)


def test_the_way_from_one_phase_to_another_is_no_interval_of_either():
    silence = Silence(WATCH, "load", now=0)
    silence.moved(50, "train")
    assert silence.interval() == 0
    silence.moved(51, "train")
    assert silence.interval() == 1


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
def test_the_bound_is_never_below_the_floor_nor_below_the_slowest_half(gaps):
    silence, now = Silence(WATCH, "train", now=0), 0.0
    for gap in gaps:
        now += gap
        silence.moved(now, "train")
    assert silence.bound() >= 5
    assert sum(gap <= silence.bound() for gap in gaps) >= len(gaps) / 2


def test_time_in_which_the_watcher_stood_still_is_excused():
    silence = stepping("train")
    silence.excuse(1000)
    assert not silence.stalled(1004)


def test_work_and_reading_are_activity_and_waiting_is_not():
    activity = Activity(now=0)
    assert activity.active(1, cpu_s=0.5, moved_bytes=0)
    assert not activity.active(2, cpu_s=0.501, moved_bytes=100)
    assert activity.active(3, cpu_s=0.502, moved_bytes=10_000)
    assert activity.active(4, cpu_s=0.6, moved_bytes=10_000)
