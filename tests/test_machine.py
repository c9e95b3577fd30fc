"""A machine file says where and how runs happen; a mistake in it is one line, and the examples have none."""

import dataclasses
from pathlib import Path

import pytest

from assay.config import resolved
from assay.config.load import read
from assay.errors import ConfigError
from assay.machine import MachineConfig, load_machine
from assay.runs.config import FloorsConfig
from assay.runs.execute import watched

MACHINES = Path(__file__).parents[1] / "machines"
LOCAL = MACHINES / "local.yaml"


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
        ("chain: 0", "chain: got 0"),
        ("scheduler: pbs", "scheduler: got pbs|scheduler: .*local.*slurm"),
        (
            "slurm: {partition: gpu}",
            "slurm: got values with scheduler local; allowed: none; .* or choose scheduler slurm",
        ),
        ("scheduler: slurm\nlsf: {queue: gpu}", "lsf: got values with scheduler slurm"),
        ("scheduler: slurm\njobs: 4", "jobs: got values with scheduler slurm; .* or choose scheduler local"),
        ("scheduler: vast\ncontainer: {kind: docker, image: x}", "container.kind: got docker with scheduler vast"),
        (
            "scheduler: slurm\nresources: {nodes: 2, processes: 3}",
            "resources.processes: got 3 with nodes 2; allowed: a multiple of 2",
        ),
        (
            "resources: {gpus: 2, processes: 4}",
            "resources.processes: got 4 with gpus 2 on each of 1 nodes; allowed: <= 2, one for each GPU",
        ),
        ("chain: 3", "chain: got a number with scheduler local; allowed: null, as the pool starts a run anew"),
        ("resources: {nodes: 2}", "resources.nodes: got 2 with scheduler local; allowed: 1, this computer"),
        ("resources: {gpu: a100}", "resources.gpu: got a100 with scheduler local; allowed: null"),
        (
            "container: {image: assay.sif}",
            "container.image: got a value with kind none; allowed: none; remove it, or cho",
        ),
        (
            "container: {kind: apptainer, image: a.sif, host: ssh://a@b}",
            "container.host: got a value with kind apptainer; allowed: none",
        ),
        ("scheduler: slurm\nslurm: {options: [gpus=1]}", "slurm.options: got 'gpus=1'; allowed: --name=value"),
        ('scheduler: slurm\nslurm: {options: ["--a=b\\nrm -rf /"]}', "slurm.options: got .*on one line"),
        ('scheduler: lsf\nlsf: {options: ["sp 10"]}', "lsf.options: got 'sp 10'; allowed: -name value"),
        (
            "scheduler: slurm\nslurm: {options: [--comment=mine]}",
            "slurm.options: got '--comment=mine'; allowed: none of --job-name, .*; remove it, assay sets it",
        ),
        ("scheduler: slurm\nslurm: {options: [--sig=USR2]}", "slurm.options: got '--sig=USR2'; allowed: none of"),
        ("scheduler: slurm\nslurm: {options: [-Jmine]}", "slurm.options: got '-Jmine'; allowed: --name=value"),
        ('scheduler: lsf\nlsf: {options: ["-g /mine"]}', "lsf.options: got '-g /mine'; allowed: none of -J"),
    ],
)
def test_a_mistake_is_named(tmp_path, text, message):
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_machine(path)


@pytest.mark.parametrize(
    "text",
    [
        "scheduler: slurm\nslurm: {options: [--exclusive, --mem-per-cpu=4G, --nodelist=n1, --mail-type=END]}",
        'scheduler: lsf\nlsf: {options: ["-sp 60", "-R select[type==any]", -x]}',
    ],
)
def test_options_that_assay_does_not_set_are_taken(tmp_path, text):
    path = tmp_path / "machine.yaml"
    path.write_text(text)
    assert load_machine(path)


@pytest.mark.parametrize("path", sorted(MACHINES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid(path):
    """Each chooses what it is named after."""
    machine = load_machine(path)
    assert path.stem in (machine.scheduler, machine.container.kind)


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
