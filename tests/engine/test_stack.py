"""Runs trained in one pass: each is what it would be alone, whatever becomes of the others."""

import pytest
import torch
from tests.engine.conftest import StopAt, run
from torch import nn

from assay.engine.checkpoint import CheckpointFolder
from assay.engine.session import run_training
from assay.engine.stack import StackedRun, collecting, train_stack
from assay.engine.stop import StopRequest
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
    with pytest.raises(
        ConfigError, match=r"train: these runs cannot be stacked \(.*lstm.*\); submit them without a stack"
    ):
        stack()


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


def test_the_last_one_goes_on_alone(stack, alone, capsys):
    arms = {"slow": {}, "wild": {"optimizer": {"lr": 1e38}, "clip_norm": None}}
    stack(arms=arms)
    assert "stack: slow is left to its own run at step" in capsys.readouterr().err
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
