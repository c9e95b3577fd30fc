"""`assay verify`: sound training is identical, each kind of unsound training is found at its step and tensor."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.__main__ import main
from assay.engine.checkpoint import CheckpointFolder
from assay.engine.session import checkpoint_folder, run_training
from assay.engine.state import TrainState
from assay.engine.task import Evaluation
from assay.engine.verify import Report, processes, verify, verify_command
from assay.errors import AssayError, ConfigError, Unfinished, UserError

PARAMS = Path(__file__).parents[2] / "params.yaml"
STEPS, SEED = 8, 1
CUT = random.Random(SEED).randint(1, STEPS - 1)
TINY = [
    *("--data.source", "simulated", "--data.phantoms", "32", "--data.validation_phantoms", "4"),
    *("--data.image_size", "16"),
    *("--model.hidden_sizes", "[8,16]", "--train.batch_size", "4", "--train.device", "cpu"),
]


@pytest.fixture
def verified(make_config, tmp_path, monkeypatch) -> Callable[..., Report]:
    """Verify the training of what `make` makes, in this process; `changes` are to the training config."""

    def verified(make: Callable[[], Any], **changes: Any) -> Report:
        def run(variables: dict[str, str]) -> None:
            with monkeypatch.context() as context:
                for name, text in variables.items():
                    context.setenv(name, text)
                with pytest.raises(Unfinished):
                    run_training(make(), make_config(**changes), 0, checkpoint_folder("line", "run"), tmp_path / "log")

        (tmp_path / "traces").mkdir()
        report = verify(run, STEPS, SEED, tmp_path / "traces")
        assert not (tmp_path / "log").exists()
        return report

    return verified


def only(report: Report) -> tuple[str, int, str]:
    """Run, step and name of the one difference."""
    (difference,) = report.differences
    return difference.run, difference.step, difference.name


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema_decay": 0.9, "ensemble_size": 2}, {"steps": 5}, {"patience": 1, "validate_every": 1}],
    ids=str,
)
def test_sound_training_is_identical(changes, make_task, verified):
    report = verified(lambda: make_task(dropout=0.5), **changes)
    assert report.identical and report.tensors > 10
    assert str(report).startswith(f"identical: {report.steps} steps, 3 runs, {report.tensors} tensors (interrupted")


def test_noise_from_nowhere_is_found_at_its_step(make_task, verified):
    """From its fifth batch on this task is not a function of the seed."""

    class Noisy(make_task):
        def batches(self, cursor):
            for number, (x, y) in enumerate(super().batches(cursor), start=cursor):
                yield x, y + (int.from_bytes(os.urandom(2), "big") * 1e-6 if number >= 4 else 0)

    report = verified(Noisy)
    repeated, _ = report.differences
    assert (repeated.run, repeated.step, repeated.name) == ("repeated", 5, "model/0.weight")
    assert 0 < repeated.largest < 0.1 and repeated.dtype == "torch.float32" and repeated.others > 3


def test_a_metric_alone_that_differs_is_found_with_its_values(make_task, verified):
    class Fickle(make_task):
        def evaluate(self, model):
            return Evaluation({**super().evaluate(model).metrics, "fickle": float.fromhex(f"0x{os.urandom(4).hex()}")})

    repeated, interrupted = verified(Fickle).differences
    assert (repeated.step, repeated.name, repeated.largest) == (1, "rows/0/validate/fickle", None)
    assert float(repeated.first) != float(repeated.second)
    assert f"{repeated.first} against {repeated.second}" in str(repeated)
    assert interrupted.name == repeated.name


def test_random_numbers_by_history_are_lost_on_resumption(make_task, verified):
    """The published mistake: a generator of the task's own, which no checkpoint holds."""

    class ByHistory(make_task):
        def __init__(self):
            super().__init__()
            self.history = torch.Generator().manual_seed(0)

        def loss(self, model, batch, rng):
            return super().loss(model, (batch[0], batch[1] + torch.randn(1, generator=self.history)), rng)

    assert only(verified(ByHistory)) == ("interrupted", CUT + 1, "model/0.weight")


def test_a_data_cursor_that_is_ignored_is_found(make_task, verified):
    class FromTheStart(make_task):
        def batches(self, cursor):
            return super().batches(0)

    assert only(verified(FromTheStart)) == ("interrupted", CUT + 1, "model/0.weight")


def spoil(monkeypatch, change: Callable[[TrainState, dict[str, Any], dict[str, Any]], Any]) -> None:
    """Let the engine restore a state of which `change` has lost something."""
    restore = TrainState.restore

    def spoiled(self, tensors, document):
        change(self, tensors, document)
        restore(self, tensors, document)

    monkeypatch.setattr(TrainState, "restore", spoiled)


LOSSES = {
    "average": (lambda state, t, d: t.update({k: t[k] * 0 for k in t if k[:8] == "average/"}), "average/0.weight"),
    "best": (lambda state, t, d: t.update({"best/3.bias": t["best/3.bias"] + 1}), "best/3.bias"),
    "generator": (lambda state, t, d: t.update({"rng/cpu": torch.get_rng_state()}), "model/0.weight"),
    "momentum": (lambda state, t, d: t["optimizer/2/exp_avg"].zero_(), "model/3.weight"),
    "waiting": (lambda state, t, d: d.update(waited=[7]), "waited/0"),
}


@pytest.mark.parametrize("what", LOSSES)
def test_whatever_a_checkpoint_loses_is_named(what, make_task, verified, monkeypatch):
    change, name = LOSSES[what]
    spoil(monkeypatch, change)
    report = verified(lambda: make_task(dropout=0.5), ema_decay=0.9, validate_every=100, clip_norm=None)
    assert only(report) == ("interrupted", CUT + 1, name)


def test_a_run_that_starts_anew_is_no_resumption_even_if_it_ends_the_same(task, verified, monkeypatch):
    monkeypatch.setattr(CheckpointFolder, "load", lambda self: None)
    report = verified(lambda: task)
    assert only(report) == ("interrupted", CUT + 1, "first step after the interruption")
    assert f"{CUT + 1} against 1" in str(report)


def test_one_step_cannot_be_interrupted(task, verified):
    with pytest.raises(ConfigError, match=r"training ended after step 1; allowed: >= 2 steps; give a larger"):
        verified(lambda: task, steps=1)


@pytest.mark.parametrize("steps", [-1, 1])
def test_too_few_steps_are_refused(steps, tmp_path):
    with pytest.raises(ConfigError, match=f"--steps: got {steps}; allowed: >= 2"):
        verify(lambda variables: None, steps, SEED, tmp_path)


@pytest.mark.parametrize(("code", "kind"), [(0, AssayError), (1, AssayError), (2, UserError), (-9, AssayError)])
def test_a_run_that_ends_otherwise_is_told_with_its_last_words(code, kind):
    end = f"os.kill(os.getpid(), {-code})" if code < 0 else f"sys.exit({code})"
    command = [sys.executable, "-c", f"import os, sys; print('a'); print('assay: no data', flush=True); {end}"]
    with pytest.raises(kind, match=f"verify: the first run ended with exit code {code}: no data"):
        verify_command(command, STEPS)


def test_a_run_is_no_part_of_a_supervised_one_and_ends_with_its_verifier(tmp_path, monkeypatch):
    """A verdict of a traced run would be taken for the stage's."""
    monkeypatch.setenv("ASSAY_PROGRESS", "/nowhere")

    pid = tmp_path / "pid"

    class Stopped:
        def end_if_asked(self):
            if pid.is_symlink():
                raise Unfinished("stopped")

        def advance(self, count):
            pass

    (tmp_path / "child.py").write_text(
        "import os, time\nassert 'ASSAY_PROGRESS' not in os.environ\n"
        "os.symlink(str(os.getpid()), 'pid.new')\nos.rename('pid.new', 'pid')\ntime.sleep(99)\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Unfinished):
        processes([sys.executable, "child.py"], Stopped())({"ASSAY_TRACE": str(tmp_path / "trace")})
    with pytest.raises(ProcessLookupError):
        os.kill(int(os.readlink(pid)), 0)


@pytest.mark.slow
def test_the_verb_says_identical_and_leaves_nothing_behind(tmp_path, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("torch")))  # torch makes it when imported
    arguments = ["verify", "asl", "train", "--params", str(PARAMS), "--steps", "4", "--json", "--seed", "3", *TINY]
    assert main([*arguments, "--seed-of-interruption", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["identical"] and found["differences"] == []
    assert (found["steps"], found["runs"], found["seed"]) == (4, 3, 5) and found["tensors"] > 50
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_difference_ends_the_verb_with_1(tmp_path):
    (tmp_path / "fickle.py").write_text(
        "import os, sys\nfrom assay.__main__ import main\nfrom assay.studies.asl import task\n"
        "weights = task.loss_weights\n"
        "task.loss_weights = lambda p: {k: v * (1 + os.getpid() % 1000 / 1000) for k, v in weights(p).items()}\n"
        "sys.exit(main())\n"
    )
    wrapped = f"sys.executable = {str(tmp_path / 'python')!r}"
    (tmp_path / "python").write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} {tmp_path / "fickle.py"} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    code = f"import sys; {wrapped}; from assay.__main__ import main; sys.exit(main())"
    arguments = ["verify", "asl", "train", "--params", str(PARAMS), "--steps", "2", *TINY]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith("different: 2 steps, 3 runs") and "repeated: step 1: model/" in done.stdout


@pytest.mark.parametrize("stage", ["validate", "trian"])
def test_a_stage_that_does_not_train_is_refused_before_it_can_write(stage, capsys):
    assert main(["verify", "asl", stage, "--params", str(PARAMS)]) == 2
    assert f"stage: got {stage}; allowed to verify of asl: train" in capsys.readouterr().err


def test_a_wrong_key_is_refused_at_once(capsys):
    assert main(["verify", "asl", "train", "--params", str(PARAMS), "--train.stepz", "3"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "did you mean train.steps?" in error
