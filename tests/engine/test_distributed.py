"""Several ranks train as one process does: same gradients, same decisions, a resume to the bit; gloo on CPUs."""

import fcntl
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests.engine.rank import BATCH, NormedTask, SharedTask, fit, gradients, make
from torch import Tensor

from assay.engine import distributed
from assay.engine.checkpoint import CheckpointFolder, read_tensors
from assay.engine.distributed import VARIABLES, Group, Share, join, together, total
from assay.engine.session import run_training
from assay.engine.state import refuse_another_group
from assay.errors import CheckpointError, ConfigError, PeerLostError
from assay.runs.ranks import free_port

ROOT = Path(__file__).parents[2]
ALONE = Group.alone()
SCENARIOS = ("gradient", "whole", "parts", "left", "patience", "bad")


class Found(NamedTuple):
    """What two ranks found: by rank, by scenario; their tensors and checkpoints lie in the folder."""

    folder: Path
    ranks: list[dict[str, Any]]

    def tensors(self, scenario: str, rank: int) -> dict[str, Tensor]:
        return read_tensors(self.folder / f"{scenario}-{rank}.safetensors")[0]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Found:
    """Two real processes, started once however many workers the tests have."""
    own = tmp_path_factory.getbasetemp()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    folder = own.parent / f"ranks-{run}" if run else own / "ranks"
    folder.mkdir(exist_ok=True)
    results = [folder / f"2-{rank}.json" for rank in range(2)]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not results[1].exists():
            start(folder)
    return Found(folder, [json.loads(path.read_text()) for path in results])


def start(folder: Path) -> None:
    ranks([str(ROOT / "tests/engine/rank.py"), str(folder), *SCENARIOS])


def ranks(arguments: list[str]) -> None:
    """Two ranks of a Python program, to their end."""
    command = [sys.executable, "-W", "error", *arguments]
    program = f"import sys; from assay.runs.nodes import launch; sys.exit(launch({command!r}, 2, {{}}))"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)


def assert_close(one: dict[str, Tensor], two: dict[str, Tensor], within: float = 1e-5) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=within, atol=within, msg=lambda text, name=name: name + text)


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


@pytest.mark.parametrize("rank", [0, 1])
def test_two_ranks_have_the_gradient_of_one_process_with_the_whole_batch(two, rank):
    """Also with a loss that is no mean over samples, and with gradients exchanged once for three micro-batches."""
    assert_close(two.tensors("gradient", rank), gradients(SharedTask(ALONE), make(accumulate=3)))


@pytest.mark.parametrize("rank", [0, 1])
def test_batch_norm_is_over_the_batch_of_all_ranks(two, rank):
    alone = gradients(NormedTask(ALONE), make())
    assert alone["buffer/1.running_var"].ne(1).any()
    assert_close(two.tensors("normed", rank), alone)


def test_ranks_see_different_samples_and_together_those_of_one_process(two):
    alone = SharedTask(ALONE)
    gradients(alone, make(accumulate=3))
    seen = torch.tensor([found["gradient"] for found in two.ranks]).reshape(2, -1, BATCH // 2)
    assert seen.transpose(0, 1).flatten().tolist() == alone.seen


def test_a_whole_training_is_that_of_one_process_and_the_same_on_all_ranks(two, tmp_path):
    alone = fit(SharedTask(ALONE), make(ema_decay=0.9, accumulate=2), tmp_path)
    assert_close(two.tensors("whole", 0), alone.last, 1e-4)
    assert_same(two.tensors("whole", 0), two.tensors("whole", 1))
    first, second = (found["whole"] for found in two.ranks)
    assert first == second
    for row, lone in zip(first, alone.rows, strict=True):
        assert row == pytest.approx(lone, rel=1e-3)


def test_a_request_that_one_rank_hears_stops_all_and_the_resume_is_bit_identical(two):
    expected = ["Unfinished: train: stopped at step 6 of 12; the same command goes on from there"]
    assert [found["parts"] for found in two.ranks] == [expected, expected]
    for rank in range(2):
        assert_same(two.tensors("parts", rank), two.tensors("undisturbed", 0))


def test_a_checkpoint_has_the_random_numbers_of_every_rank(two):
    tensors, document, _ = CheckpointFolder(two.folder / "left", "run").load()
    assert document["processes"] == 2
    assert not torch.equal(tensors["rng/cpu"], tensors["rng/cpu/1"])


def test_another_number_of_processes_is_refused(two):
    message = "checkpoint of step 6: got 1 processes; allowed: 2; start as many again"
    with pytest.raises(CheckpointError, match=message):
        fit(SharedTask(ALONE), make(), two.folder / "left")
    with pytest.raises(CheckpointError, match="checkpoint of step 5: got 4 processes; allowed: 2"):
        refuse_another_group({"processes": 2, "step": 5}, Group(rank=3, world=4))


def test_all_ranks_lose_patience_together(two):
    (first, second) = (found["patience"] for found in two.ranks)
    assert first == second
    assert first[0] < 100


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_wrong_on_one_rank_ends_all_and_names_it(two, rank):
    bad, unused, ensemble, drifting = two.ranks[rank]["bad"]
    assert bad.startswith("NonFiniteError: train: step 5: second of rank 1 is not finite; lower train.optimizer.lr")
    assert unused.startswith("ConfigError: loss: parameter idle is reached by no term of the loss, with 2 processes")
    assert ensemble.startswith("ConfigError: train.ensemble_size: got 2 with 2 processes; allowed: 1;")
    assert drifting.startswith("AssayError: train: step 3: latest is not the same on all ranks; fill it from")


def test_a_batch_that_cannot_be_cut_into_equal_parts_is_refused():
    assert Share(rank=1, world=2).of(6) == 3
    with pytest.raises(ConfigError, match=r"train.batch_size: got 7 with 2 processes; allowed: a multiple of 2"):
        Share(rank=1, world=2).of(7)


def test_a_process_that_nobody_started_as_a_rank_is_alone(monkeypatch):
    said(monkeypatch)
    group = join("cpu")
    assert (group.rank, group.world, group.leads, group.key) == (0, 1, True, ())
    tensor = torch.ones(3)
    assert total(tensor, group) is tensor


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE: got nothing; allowed: a whole number; set all of RANK, WORLD_SIZE"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK: got one; allowed: a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, "RANK: got 2; allowed: 0 to WORLD_SIZE - 1 = 1"),
    ],
)
def test_variables_that_are_missing_or_wrong_are_refused(monkeypatch, told, message):
    said(monkeypatch, **told)
    with pytest.raises(ConfigError, match=message):
        join("cpu")


LATE = """
import os, sys, time
from datetime import timedelta
from pathlib import Path
from tests.engine.rank import SharedTask, fit, make
from assay.engine import distributed
from assay.errors import PeerLostError

class SlowToValidate(SharedTask):
    def evaluate(self, model):
        time.sleep(4)
        return super().evaluate(model)

out, rank = Path(sys.argv[1]), os.environ["RANK"]
(out / f"here-{rank}").touch()
while len(list(out.glob("here-*"))) < 2:
    time.sleep(0.01)
distributed.JOIN_WITHIN = timedelta(seconds=2)
group = distributed.join("cpu")
trained = fit(SlowToValidate(group), make(steps=2, validate_every=2), out / "run")
(out / f"steps-{rank}").write_text(str(trained.steps))
if group.leads:
    os._exit(0)
begun = time.monotonic()
try:
    with distributed.together(group):
        distributed.any_rank(False, group)
except PeerLostError as error:
    (out / "lost").write_text(f"{time.monotonic() - begun:.0f} s: {error}")
"""


def test_ranks_wait_for_a_busy_one_longer_than_to_join_and_miss_an_ended_one_at_once(tmp_path):
    ranks(["-c", LATE, str(tmp_path)])
    assert [(tmp_path / f"steps-{rank}").read_text() for rank in range(2)] == ["2", "2"]
    seconds, _, said = (tmp_path / "lost").read_text().partition(" s: ")
    assert int(seconds) < 10
    assert said.startswith("rank 1: another rank has ended, or did not answer (")
    assert "by peer" in said


def test_a_rank_that_nobody_joins_says_so(monkeypatch):
    said(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    monkeypatch.setattr(distributed, "JOIN_WITHIN", timedelta(seconds=1))
    with pytest.raises(PeerLostError, match=r"^rank 0: .* did not answer \(Timed out after .* for clients"):
        join("cpu")


def test_an_exchange_that_fails_is_another_ranks_fault_and_any_other_error_is_ones_own():
    lost = "[/build/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:1. This is typical."
    reason = r"rank 1: another rank has ended, or did not answer \(Connection closed by peer \[127.0.0.1\]:1\)"
    with pytest.raises(PeerLostError, match=reason), together(Group(rank=1, world=2)):
        raise RuntimeError(lost)
    with pytest.raises(RuntimeError, match="shapes"), together(Group(rank=1, world=2)):
        raise RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="gloo"), together(ALONE):
        raise RuntimeError(lost)


def test_a_task_that_was_not_given_its_group_is_refused(monkeypatch, task, make_config, tmp_path):
    said(monkeypatch, RANK="0", WORLD_SIZE="2")
    with pytest.raises(ConfigError, match=r"train: got 2 processes .*; allowed: 1, as this study does not share out"):
        run_training(task, make_config(), 0, CheckpointFolder(tmp_path / "run", "run"), tmp_path / "log")


def said(monkeypatch: pytest.MonkeyPatch, **told: str) -> None:
    """The variables of a rank, no others."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    distributed._joined.cache_clear()
