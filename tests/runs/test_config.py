"""A machine file says how runs are watched there; a mistake in it is one line."""

import dataclasses
from pathlib import Path

import pytest

from assay.config import resolved
from assay.config.load import read
from assay.errors import ConfigError
from assay.machine import MachineConfig, load_machine
from assay.runs.config import FloorsConfig
from assay.runs.execute import watched

LOCAL = Path(__file__).parents[2] / "machines/local.yaml"


def test_the_local_machine_shows_every_key_with_its_default():
    assert load_machine(LOCAL) == MachineConfig()
    assert read(LOCAL) == resolved(MachineConfig())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("watch: {floors: {trian: 5}}", "watch.floors.trian: .*train"),
        ("grace: -1", "grace: got -1"),
        ("watch: {factor: 1}", "watch.factor: got 1"),
        ("watch: {retries: 9}", "watch.retries: got 9"),
        ("wall_limit: soon", "wall_limit: got "),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_machine(path)


def test_what_a_machine_file_leaves_out_has_its_default(tmp_path):
    path = tmp_path / "machine.yaml"
    path.write_text("wall_limit: 21600\nwatch: {floors: {load: 900}}")
    machine = load_machine(path)
    assert (machine.wall_limit, machine.watch.floors.load) == (21600, 900)
    assert machine.watch.floors.train == FloorsConfig().train


def test_stall_after_is_the_floor_of_every_phase():
    floors = watched(MachineConfig(), stall_after=7.0, grace=None).watch.floors
    assert {getattr(floors, item.name) for item in dataclasses.fields(FloorsConfig)} == {7.0}


def test_grace_on_the_command_line_is_the_graces():
    assert watched(MachineConfig(), stall_after=None, grace=3.0).grace == 3.0
