"""Runs trained in one pass: each is what it would be alone, whatever becomes of the others."""

import math

import pytest
import torch
from tests.engine.conftest import StopAt, run
from torch import nn

from assay.engine.checkpoint import CheckpointFolder
from assay.engine.health import Health
from assay.engine.session import run_training
from assay.engine.stack import StackedRun, collecting, train_stack
from assay.engine.stop import StopRequest
from assay.engine.task import Evaluation
from assay.errors import ConfigError, NonFiniteError, Unfinished

ARMS = {
    "slow": {"optimizer": {"lr": 0.003}},
    "decayed": {"optimizer": {"weight_decay": 0.3}, "ema_decay": 0.8},
    "clipped": {"clip_norm": 0.1},
    "sgd": {"optimizer": {"name": "sgd", "betas": None, "momentum": 0.9}},
    "flat": {
        "schedule": {"name": "constant", "warmup_fraction": None, "initial_division": None, "final_division": None}
    },
}


@pytest.fixture
def stack(make_task, make_config, tmp_path):
    """Trains arms together, or goes on, in a folder of that name; returns what `train_stack` does."""

    def train(folder="stack", stop=None, arms=ARMS, dropout=0.3, **common):
        task = make_task(dropout=dropout)
        runs = {
            name: StackedRun(
                task=task,
                config=make_config(**{**common, **changes}),
                seed=0,
                checkpoints=CheckpointFolder(tmp_path / folder / name, "run"),
            )
            for name, changes in arms.items()
        }
        return train_stack(runs, stop or StopRequest())

    return train


@pytest.fixture
def alone(make_task, make_config, tmp_path):
    """The lone run of an arm: from what is in a folder, or from nothing."""

    def train(name, folder="lone", arms=ARMS, dropout=0.3, **common):
        config = make_config(**{**common, **arms[name]})
        return run(make_task(dropout=dropout), config, tmp_path / folder / name)

    return train


def same(one, two, **tolerance) -> None:
    assert one.rows[-1].keys() == two.rows[-1].keys()
    assert [row["step"] for row in one.rows] == [row["step"] for row in two.rows]
    assert (one.steps, one.best_step) == (two.steps, two.best_step)
    for state, other in ((one.last, two.last), (one.best, two.best)):
        for name, tensor in state.items():
            torch.testing.assert_close(tensor, other[name], **tolerance)


@pytest.mark.parametrize("name", ARMS)
def test_a_run_of_a_stack_equals_its_lone_run(name, stack, alone):
    assert stack() == dict.fromkeys(ARMS, 12)
    same(alone(name, "stack"), alone(name), rtol=1e-4, atol=1e-6)


def test_batch_norms_count_for_each_run_alone(stack, alone, make_task, monkeypatch):
    monkeypatch.setattr(make_task, "build", lambda self: nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)))
    stack()
    found = alone("slow", "stack")
    same(found, alone("slow"), rtol=1e-4, atol=1e-6)
    assert found.last["0.num_batches_tracked"].item() == 12


def test_networks_that_cannot_be_stacked_are_refused(stack, make_task, monkeypatch):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.LSTM(1, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.out(self.cell(x[:, None])[0][:, -1])

    monkeypatch.setattr(make_task, "build", lambda self: Recurrent())
    with pytest.raises(ConfigError, match=r"train: these networks cannot be stacked \(.*lstm.*\); train them alone"):
        stack()


class Counting(nn.Linear):
    """Counts how often it was called, in a buffer that it replaces."""

    def __init__(self):
        super().__init__(1, 2)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls = self.calls + 1
        return super().forward(x) + 0 * self.calls


class Sharing(nn.Linear):
    """Has a buffer within another."""

    def __init__(self):
        super().__init__(1, 2)
        self.register_buffer("both", torch.ones(2))
        self.register_buffer("first", self.both[:1])


class Calls(nn.Linear):
    """Counts how often it was called, in place, and keeps that in no file."""

    def __init__(self):
        super().__init__(1, 2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.calls += self.training
        return super().forward(x)


LOSSES = {
    Counting: "train: calls is replaced by the network; allowed in a stack: to change it in place",
    Sharing: "train: both and first share memory; allowed in a stack: tensors of their own",
}


@pytest.mark.parametrize("network", LOSSES)
def test_buffers_that_would_be_lost_are_refused(network, stack, make_task, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(make_task, "build", lambda self: network())
    with pytest.raises(ConfigError, match=LOSSES[network]):
        stack()
    with pytest.raises(ConfigError, match=LOSSES[network]):
        run(make_task(), make_config(ensemble_size=2), tmp_path / "ensemble")
    assert run(make_task(), make_config(), tmp_path / "lone").steps == 12


def test_what_is_tried_before_the_first_step_leaves_no_trace(make_task, make_config, tmp_path, monkeypatch):
    built: list[Calls] = []
    monkeypatch.setattr(make_task, "build", lambda self: built.append(Calls()) or built[-1])
    run(make_task(), make_config(), tmp_path)
    assert built[0].calls.item() == 12


def test_runs_of_a_stack_differ(stack, alone):
    stack()
    weights = [alone(name, "stack").last["0.weight"] for name in ARMS]
    for place, weight in enumerate(weights):
        assert not any(torch.allclose(weight, other, rtol=1e-4) for other in weights[:place])


def test_the_lone_run_of_one_that_has_ended_trains_no_more(stack, alone, make_task, monkeypatch):
    stack()
    monkeypatch.setattr(make_task, "loss", None)
    assert alone("slow", "stack").steps == 12


def test_it_accumulates_gradients_as_a_lone_run_does(stack, alone):
    stack(accumulate=3)
    same(alone("slow", "stack", accumulate=3), alone("slow", accumulate=3), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("looks", [0, 1, 5, 7, 11, 15, 22, 25])
def test_interrupted_anywhere_it_goes_on_bit_for_bit(looks, stack, alone):
    stack("undisturbed")
    with pytest.raises(Unfinished, match=r"train: stopped at step \d+ of 12; the same command goes on from there"):
        stack("disturbed", stop=StopAt(looks))
    stack("disturbed")
    for name in ARMS:
        same(alone(name, "disturbed"), alone(name, "undisturbed"), rtol=0, atol=0)


def test_an_interrupted_run_can_go_on_alone(stack, alone):
    with pytest.raises(Unfinished):
        stack(stop=StopAt(15))
    same(alone("clipped", "stack"), alone("clipped"), rtol=1e-4, atol=1e-6)


def test_after_a_kill_between_two_checkpoints_it_goes_on_from_the_step_that_all_have(stack, alone, tmp_path):
    stack("undisturbed")
    with pytest.raises(Unfinished):
        stack("disturbed", stop=StopAt(15))
    max((tmp_path / "disturbed" / "clipped").glob("step-*")).unlink()
    assert stack("disturbed") == dict.fromkeys(ARMS, 6)
    for name in ARMS:
        same(alone(name, "disturbed"), alone(name, "undisturbed"), rtol=0, atol=0)


@pytest.mark.parametrize("damaged", ["slow", "clipped"])
def test_with_a_damaged_checkpoint_all_go_on_from_the_one_before(damaged, stack, alone, tmp_path, capsys):
    with pytest.raises(Unfinished):
        stack(stop=StopAt(15))
    newest = max((tmp_path / "stack" / damaged).glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-1])
    stack()
    assert "stack: goes on from step 6" in capsys.readouterr().err
    for name in ARMS:
        same(alone(name, "stack"), alone(name), rtol=1e-4, atol=1e-6)


def test_one_that_lags_behind_is_left_alone(stack, alone, tmp_path, capsys):
    with pytest.raises(Unfinished):
        stack(stop=StopAt(15))
    for path in (tmp_path / "stack" / "clipped").glob("step-*"):
        path.unlink()
    trained = stack()
    assert trained.pop("clipped", 0) == 0
    assert set(trained.values()) == {4}
    same(alone("clipped", "stack"), alone("clipped"), rtol=0, atol=0)
    same(alone("slow", "stack"), alone("slow"), rtol=1e-4, atol=1e-6)
    assert "stack: clipped is left to its own run: it has no checkpoint of step 8" in capsys.readouterr().err


def test_one_whose_patience_ends_leaves_and_the_others_go_on(stack, alone):
    arms = {"slow": {}, "hasty": {"optimizer": {"lr": 1e-9}, "patience": 2, "ema_decay": None}, "clipped": {}}
    config = {"steps": 40, "validate_every": 4, "schedule": ARMS["flat"]["schedule"]}
    arms["hasty"]["optimizer"] = {"lr": 3.0}
    trained = stack(arms=arms, **config)
    assert trained["slow"] == trained["clipped"] == 40
    assert trained["hasty"] == alone("hasty", arms=arms, **config).steps < 40
    same(alone("slow", "stack", arms, **config), alone("slow", arms=arms, **config), rtol=1e-3, atol=1e-5)


def test_one_that_meets_nan_is_left_to_its_lone_run_which_says_so(stack, alone, capsys):
    arms = {"slow": {}, "wild": {"optimizer": {"lr": 1e38}, "clip_norm": None}, "clipped": {}}
    assert stack(arms=arms)["slow"] == 12
    assert "stack: wild is left to its own run: train: step" in capsys.readouterr().err
    with pytest.raises(NonFiniteError):
        alone("wild", "stack", arms)
    same(alone("slow", "stack", arms), alone("slow", arms=arms), rtol=1e-4, atol=1e-6)


def test_a_stop_keeps_no_checkpoint_of_one_that_has_met_nan_unseen(stack, alone, monkeypatch):
    """As on a GPU, where values are looked at only now and then."""
    arms = {"slow": {}, "wild": {"optimizer": {"lr": 1e38}, "clip_norm": None}, "clipped": {}}
    rarely = dict.fromkeys(("log_every", "validate_every", "checkpoint_every"), 50)
    watch = Health.watch

    def unseen(self, *values):
        self.device = torch.device("meta")
        watch(self, *values)

    with monkeypatch.context() as patched:
        patched.setattr(Health, "watch", unseen)
        with pytest.raises(Unfinished):
            stack(arms=arms, stop=StopAt(6), **rarely)
    with pytest.raises(NonFiniteError, match="train: step 2: "):
        alone("wild", "stack", arms, **rarely)
    assert alone("slow", "stack", arms, **rarely).steps == 12


def test_one_whose_validation_was_put_off_and_is_not_finite_leaves(stack, alone, make_task, monkeypatch):
    judge = make_task.evaluate

    def evaluate(self, model):
        wild = float(model(torch.zeros(1, 1)).detach().abs().sum()) > 1e3
        return Evaluation({"loss": math.inf}) if wild else judge(self, model)

    monkeypatch.setattr(make_task, "evaluate", evaluate)
    sgd = {"name": "sgd", "betas": None, "momentum": 0.0, "lr": 1e6}
    arms = {"slow": {}, "wild": {"optimizer": sgd}, "clipped": {}}
    with pytest.raises(Unfinished):
        stack(arms=arms, stop=StopAt(4))
    assert stack(arms=arms)["slow"] == 8
    with pytest.raises(NonFiniteError, match="validate: step 4"):
        alone("wild", "stack", arms)


def test_a_stop_that_finds_one_left_is_heeded(stack):
    with pytest.raises(Unfinished, match="stopped at step 12 of 12"):
        stack(stop=StopAt(26))


def test_the_last_one_goes_on_alone(stack, alone, capsys):
    arms = {"slow": {}, "wild": {"optimizer": {"lr": 1e38}, "clip_norm": None}}
    stack(arms=arms)
    assert "stack: slow is saved at step" in capsys.readouterr().err
    same(alone("slow", "stack", arms), alone("slow", arms=arms), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 2}, "train.batch_size: other differs from slow; allowed to differ: train.optimizer, schedule"),
        ({"steps": 24}, "train.steps: other differs from slow"),
        ({"ensemble_size": 2}, "train.ensemble_size: other differs from slow"),
    ],
)
def test_runs_of_another_shape_are_refused(change, message, stack):
    with pytest.raises(ConfigError, match=message):
        stack(arms={"slow": {}, "other": change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ensemble_size": 2}, "train.ensemble_size: got 2; allowed in a stack: 1; train the runs alone"),
        ({"precision": "fp16", "device": "auto"}, "train.precision: got fp16; allowed in a stack: fp32, bf16"),
    ],
)
def test_what_a_stack_cannot_do_is_refused(change, message, stack):
    with pytest.raises(ConfigError, match=message):
        stack(**change)


def test_runs_are_collected_instead_of_trained(make_task, make_config, tmp_path):
    task, config, folder = make_task(), make_config(), CheckpointFolder(tmp_path / "run", "run")
    with collecting() as runs, pytest.raises(Unfinished, match="put by"):
        run_training(task, config, 3, folder, tmp_path / "log")
    assert runs == [StackedRun(task=task, config=config, seed=3, checkpoints=folder)]
    assert not list(tmp_path.iterdir())
    assert run_training(task, config, 3, folder, tmp_path / "log").steps == 12
