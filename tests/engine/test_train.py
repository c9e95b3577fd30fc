"""The loop: budget, resume, early stop, refusals."""

import errno
import math

import pytest
import torch
from tests.engine.conftest import StopAt, run
from torch import Tensor, nn
from torch.nn.functional import interpolate

from assay.engine.checkpoint import CheckpointFolder
from assay.engine.log import TrainingLog
from assay.engine.state import build_members
from assay.engine.stop import StopRequest
from assay.engine.task import Evaluation
from assay.engine.train import train
from assay.errors import CheckpointError, ConfigError, DataError, NonFiniteError, Unfinished

VARIANTS = {
    "plain": {},
    "ensemble": {"ensemble_size": 3},
    "average": {"ema_decay": 0.9},
    "accumulate": {"accumulate": 3},
    "everything": {"ensemble_size": 2, "ema_decay": 0.9, "accumulate": 2},
    "plateau": {
        "schedule": {
            "name": "plateau",
            "warmup_fraction": None,
            "initial_division": None,
            "final_division": None,
            "plateau_factor": 0.5,
            "plateau_patience": 0,
        }
    },
    "cosine sgd": {
        "schedule": {"name": "cosine"},
        "optimizer": {"name": "sgd", "betas": None, "momentum": 0.9},
    },
    "nadam": {"optimizer": {"name": "nadam"}},
    "radam": {"optimizer": {"name": "radam"}},
    "bf16": {"precision": "bf16"},
}


def assert_same(one: dict[str, Tensor], two: dict[str, Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name]), name


def test_training_learns_the_line(task, make_config, tmp_path):
    trained = run(task, make_config(steps=300, optimizer={"lr": 0.05}), tmp_path)
    assert trained.best_value[0] < 0.01
    assert trained.rows[0]["validate/loss"] > 10 * trained.best_value[0]


def test_steps_samples_and_epochs_are_reported(task, make_config, tmp_path):
    trained = run(task, make_config(steps=5, accumulate=2), tmp_path)
    assert (trained.steps, trained.samples, trained.epochs) == (5, 40, 4.0)


def test_a_budget_in_epochs_is_the_same_budget_in_steps(task, make_config, tmp_path):
    by_steps = run(task, make_config(steps=10), tmp_path / "steps")
    by_epochs = run(task, make_config(steps=None, epochs=4), tmp_path / "epochs")
    assert by_epochs.steps == 10
    assert_same(by_steps.last, by_epochs.last)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("looks", "step"), [(0, 0), (1, 1), (4, 4), (5, 4), (6, 5), (13, 11), (14, 12)])
def test_stop_and_resume_is_bit_identical(variant, looks, step, make_task, make_config, tmp_path):
    task, config = make_task(), make_config(**VARIANTS[variant])
    whole = run(task, config, tmp_path / "whole")
    with pytest.raises(Unfinished, match=f"stopped at step {step} of 12"):
        run(task, config, tmp_path / "parts", StopAt(looks))
    resumed = run(make_task(), config, tmp_path / "parts")
    assert_same(whole.last, resumed.last)
    assert_same(whole.best, resumed.best)
    assert whole.rows == resumed.rows
    assert whole.best_step == resumed.best_step


def test_a_request_before_a_validation_puts_it_off(make_task, make_config, tmp_path):
    """It may take longer than is left; the next attempt makes up for it."""
    task = make_task()
    judged, evaluate = [], task.evaluate
    task.evaluate = lambda model: judged.append(1) or evaluate(model)
    with pytest.raises(Unfinished, match="stopped at step 4"):
        run(task, make_config(), tmp_path, StopAt(4))
    assert len(judged) == 1  # the untrained model
    rows = run(task, make_config(), tmp_path).rows
    assert [row["step"] for row in rows if "validate/loss" in row] == [0, 4, 8, 12]


def test_dropout_resumes_bit_identically(make_task, make_config, tmp_path):
    whole = run(make_task(dropout=0.5), make_config(), tmp_path / "whole")
    with pytest.raises(Unfinished):
        run(make_task(dropout=0.5), make_config(), tmp_path / "parts", StopAt(7))
    torch.rand(5)
    assert_same(whole.last, run(make_task(dropout=0.5), make_config(), tmp_path / "parts").last)


def test_convolutions_and_their_average_resume_bit_identically(make_task, make_config, tmp_path):
    """Their last bits depend on the memory layout of the weights."""

    class Image(make_task):
        def build(self):
            return nn.Sequential(nn.Conv2d(1, 8, 7, 2, 3), nn.GELU(), nn.Conv2d(8, 8, 3), nn.GELU(), nn.Conv2d(8, 2, 1))

        def loss(self, model, batch, rng):
            return super().loss(lambda x: model(spread(x)).mean((2, 3)), batch, rng)

        def evaluate(self, model):
            return Evaluation({"loss": float(model(spread(self.x[:, None])).square().mean())})

    def spread(x):
        return interpolate(x[:, None, None], size=(33, 33)) * torch.linspace(0, 3, 33).sin()

    config = make_config(ema_decay=0.9, validate_every=1)
    whole = run(Image(), config, tmp_path / "whole")
    with pytest.raises(Unfinished):
        run(Image(), config, tmp_path / "parts", StopAt(7))
    resumed = run(Image(), config, tmp_path / "parts")
    assert whole.rows == resumed.rows
    assert_same(whole.best, resumed.best)


def test_validation_sees_no_dropout(make_task, make_config, tmp_path):
    class Twice(make_task):
        def evaluate(self, model):
            first, second = super().evaluate(model), super().evaluate(model)
            assert first == second
            return first

    run(Twice(dropout=0.5), make_config(), tmp_path)


def test_a_crash_loses_at_most_one_checkpoint_interval(make_task, make_config, tmp_path):
    class Crashing(make_task):
        def batches(self, cursor):
            for number, batch in enumerate(super().batches(cursor), start=cursor):
                if number == 8:
                    raise OSError("the node is gone")
                yield batch

    whole = run(make_task(), make_config(), tmp_path / "whole")
    with pytest.raises(OSError, match="the node is gone"):
        run(Crashing(), make_config(), tmp_path / "parts")
    _, document, _ = CheckpointFolder(tmp_path / "parts", "run").load()
    assert document["step"] == 6
    assert_same(whole.last, run(make_task(), make_config(), tmp_path / "parts").last)


def test_damaged_newest_checkpoint_falls_back_to_the_one_before(make_task, make_config, tmp_path, capsys):
    whole = run(make_task(), make_config(), tmp_path / "whole")
    with pytest.raises(Unfinished):
        run(make_task(), make_config(), tmp_path / "parts", StopAt(8))
    newest = max((tmp_path / "parts").iterdir())
    newest.write_bytes(newest.read_bytes()[:-40])
    assert_same(whole.last, run(make_task(), make_config(), tmp_path / "parts").last)
    assert "step-000000007" in capsys.readouterr().err


def test_foreign_checkpoint_is_refused(task, make_config, tmp_path):
    with pytest.raises(Unfinished):
        run(task, make_config(), tmp_path, StopAt(4))
    other = CheckpointFolder(tmp_path, "another run")
    with pytest.raises(CheckpointError, match="belongs to run run; allowed: run another run"):
        train(task, make_config(), 0, other, TrainingLog(None), StopRequest())


@pytest.mark.parametrize("size", [1, 3])
def test_one_sgd_step_moves_each_member_by_its_clipped_norm(size, make_task, make_config, tmp_path):
    rule = {"name": "sgd", "betas": None, "momentum": 0.0, "lr": 1.0, "weight_decay": 0.0}
    flat = {"name": "constant", "warmup_fraction": None, "initial_division": None, "final_division": None}
    config = make_config(steps=1, clip_norm=1e-3, optimizer=rule, schedule=flat, ensemble_size=size)
    trained = run(make_task(), config, tmp_path)
    for k, start in enumerate(build_members(make_task(), 0, size, torch.device("cpu"))):
        moves = [(trained.last[name][k] - p.detach()).flatten() for name, p in start.named_parameters()]
        assert float(torch.cat(moves).norm()) == pytest.approx(1e-3, rel=1e-3)


def test_early_stop_waits_for_every_member(make_task, make_config, tmp_path):
    class Flat(make_task):
        def evaluate(self, model):
            return Evaluation({"loss": 1.0})

    trained = run(Flat(), make_config(steps=100, validate_every=2, patience=3, ensemble_size=2), tmp_path)
    assert trained.steps == 8
    assert trained.best_step == [2, 2]


def test_untrained_weights_are_judged_and_never_the_best(make_task, make_config, tmp_path):
    class Worse(make_task):
        """Every validation has a greater loss than the one before."""

        judged = 0

        def evaluate(self, model):
            self.judged += 1
            return Evaluation({"loss": float(self.judged)})

    trained = run(Worse(), make_config(steps=4, validate_every=2), tmp_path)
    assert [row["validate/loss"] for row in trained.rows if "validate/loss" in row] == [1, 2, 3]
    assert (trained.best_step, trained.best_value) == ([2], [2.0])


@pytest.mark.parametrize("log_every", [1, 7, 1000])
def test_the_last_losses_of_an_early_stop_are_known_however_rarely_they_are_logged(
    log_every, make_task, make_config, tmp_path
):
    class Flat(make_task):
        def evaluate(self, model):
            return Evaluation({"loss": 1.0})

    often = run(Flat(), make_config(steps=100, patience=2, log_every=1), tmp_path / "often").rows[-1]
    config = make_config(steps=100, patience=2, log_every=log_every)
    whole = run(Flat(), config, tmp_path / "whole")
    assert whole.rows[-1] == often and {"train/first", "train/loss", "train/lr", "validate/loss"} <= often.keys()
    with pytest.raises(Unfinished, match="stopped at step 8 of 100"):
        run(Flat(), config, tmp_path / "parts", StopAt(9))  # before the validation that ends it
    assert run(Flat(), config, tmp_path / "parts").rows == whole.rows


def test_best_weights_are_those_of_the_best_validation(make_task, make_config, tmp_path):
    trained = run(make_task(), make_config(steps=60, validate_every=1, optimizer={"lr": 0.5}), tmp_path)
    values = {int(row["step"]): row["validate/loss"] for row in trained.rows if row["step"] > 0}
    assert trained.best_value[0] == min(values.values()) == values[trained.best_step[0]]


@pytest.mark.parametrize("size", [1, 2])
def test_nan_is_refused_with_step_and_term(size, make_task, make_config, tmp_path):
    class Poisoned(make_task):
        def loss(self, model, batch, rng):
            terms = super().loss(model, batch, rng)
            if self.poisoned:
                terms["second"] = terms["second"] * math.nan
            return terms

        def batches(self, cursor):
            for number, batch in enumerate(super().batches(cursor), start=cursor):
                self.poisoned = number == 4
                yield batch

    with pytest.raises(NonFiniteError, match=r"step 5: second of member 0 is not finite"):
        run(Poisoned(), make_config(ensemble_size=size), tmp_path)
    _, document, _ = CheckpointFolder(tmp_path, "run").load()
    assert document["step"] == 3


def test_an_infinite_gradient_is_traced_to_its_parameter_and_never_applied(make_task, make_config, tmp_path):
    class Steep(make_task):
        def loss(self, model, batch, rng):
            terms = super().loss(model, batch, rng)
            return {**terms, "first": terms["first"] - terms["first"].detach() + (model(batch[0]) * 0).sqrt().sum()}

    for clip_norm in (1.0, None):
        with pytest.raises(NonFiniteError, match=r"step 1: gradient of 0\.weight of member 0 is not finite"):
            run(Steep(), make_config(clip_norm=clip_norm), tmp_path / str(clip_norm))


def test_a_validation_that_is_not_a_number_is_refused(make_task, make_config, tmp_path):
    class Undefined(make_task):
        def evaluate(self, model):
            return Evaluation({"loss": math.nan})

    with pytest.raises(NonFiniteError, match=r"validate: step 0: loss is \[nan\]"):
        run(Undefined(), make_config(), tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"betas": [0.5, 0.99]}},
        {"optimizer": {"betas": [0.9, 0.9]}},
        {"optimizer": {"weight_decay": 0.5}},
        {"optimizer": {"lr": 0.02}},
        {"schedule": {"lowest_momentum": 0.5}},
        {"schedule": {"warmup_fraction": 0.6}},
        {"schedule": {"initial_division": 5}},
        {"schedule": {"final_division": 2}},
        {"clip_norm": 0.1},
        {"accumulate": 2},
        {"ema_decay": 0.5},
        {"precision": "bf16"},
    ],
    ids=str,
)
def test_every_option_changes_the_weights(change, make_task, make_config, tmp_path):
    plain = run(make_task(), make_config(steps=8), tmp_path / "plain").last
    changed = run(make_task(), make_config(steps=8, **change), tmp_path / "changed").last
    assert not all(torch.equal(plain[name], changed[name]) for name in plain)


def test_the_average_follows_float_tensors_and_copies_counters(make_task, make_config, tmp_path):
    class Counting(make_task):
        def build(self):
            return torch.nn.Sequential(torch.nn.Linear(1, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))

    trained = run(Counting(), make_config(ema_decay=0.5, steps=6), tmp_path)
    assert int(trained.last["1.num_batches_tracked"]) == 6


def test_a_term_that_trains_nothing_is_refused(make_task, make_config, tmp_path):
    class Idle(make_task):
        def loss(self, model, batch, rng):
            return {**super().loss(model, batch, rng), "second": batch[1].square().mean()}

    with pytest.raises(ConfigError, match="term second reaches no trained parameter"):
        run(Idle(), make_config(), tmp_path)


def test_full_disk_while_saving_leaves_the_last_checkpoint(task, make_config, tmp_path, monkeypatch):
    saved = 0

    def fsync(descriptor: int) -> None:
        nonlocal saved
        saved += 1
        if saved > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("assay.files.os.fsync", fsync)
    with pytest.raises(DataError, match=r"No space left on device.*make room"):
        run(task, make_config(), tmp_path)
    _, document, _ = CheckpointFolder(tmp_path, "run").load()
    assert document["step"] == 3
    assert not list(tmp_path.glob(".*tmp"))


@pytest.mark.slow
def test_compiled_loss_gives_the_same_result(task, make_task, make_config, tmp_path):
    eager = run(task, make_config(steps=3), tmp_path / "eager")
    fast = run(make_task(), make_config(steps=3, compile="default"), tmp_path / "fast")
    for name, tensor in eager.last.items():
        torch.testing.assert_close(fast.last[name], tensor, rtol=1e-4, atol=1e-5)
