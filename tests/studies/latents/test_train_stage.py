"""The train stage: what it leaves, killed and continued runs, ensembles, compilation that fails, what it refuses."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.studies.latents.conftest import PLAIN

from assay.config.load import resolved
from assay.engine import precision
from assay.engine.checkpoint import read_tensors, write_tensors
from assay.engine.precision import Compiled
from assay.engine.task import Evaluation
from assay.errors import CheckpointError, DataError
from assay.studies.latents import train
from assay.studies.latents.dataset import Recording
from assay.studies.latents.task import LatentsTask
from assay.studies.latents.trained import load_trained, untrained

CPU = torch.device("cpu")
MODEL = Path("results/train/model")
LONG = ["train.steps=60", "train.checkpoint_every=5", "train.validate_every=20", "train.log_every=5"]
VARIANTS = {
    "permutations, warm-up, ensemble": [
        "sampling.replacement=false",
        "loss.reconstruction_warmup=1",
        "train.ensemble_size=2",
    ],
    "batch norm": [f"model.autoencoder={PLAIN}", "model.batch_norm=true"],
}


def metrics() -> dict[str, float]:
    found: dict[str, float] = json.loads(Path("results/train/metrics.json").read_text())
    return found


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "assay", "stage", "latents", "train", "--params", "params.json"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    paths = sorted((folder / MODEL).glob("*.safetensors"))
    return {f"{path.name}/{name}": t for path in paths for name, t in read_tensors(path)[0].items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(variant, with_data, tmp_path):
    params = with_data(*LONG, *VARIANTS[variant])
    train.run(params)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/params.json").write_text(json.dumps(resolved(params)))
    killed = start(tmp_path / "parts")
    deadline = time.monotonic() + 60
    while killed.poll() is None and time.monotonic() < deadline:
        if list((tmp_path / "parts/.assay/checkpoints").glob("*/step-*.safetensors")):
            break
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = start(tmp_path / "parts")
    _, said = again.communicate()
    assert again.returncode == 0 and "goes on from step" in said
    whole, parts = weights(tmp_path), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)


def test_metrics_have_the_budget_and_every_term_apart(with_data):
    train.run(with_data("loss.encoder_l1=0.1"))
    found = metrics()
    assert (found["steps"], found["samples"]) == (4, 64)
    assert found["epochs"] == pytest.approx(64 / 299)
    total = found["train_evolve"] + found["train_reconstruction"] + 0.1 * found["train_encoder_l1"]
    assert found["train_loss"] == pytest.approx(total, rel=1e-5)
    assert found["validation_mse"] > 0


def test_metrics_of_an_early_stop_do_not_depend_on_how_often_losses_are_logged(with_data, monkeypatch):
    monkeypatch.setattr(LatentsTask, "evaluate", lambda *_: Evaluation({"mse": 1.0}))
    found = []
    for log_every in (1, 1000):
        train.run(with_data("train.steps=8", "train.patience=1", f"train.log_every={log_every}"))
        found.append(metrics())
        shutil.rmtree(".assay")  # the second run is no continuation of the first
    assert found[0] == found[1] and found[0]["steps"] == 4 and found[0]["train_loss"] > 0


def test_members_of_an_ensemble_differ_and_are_all_kept(with_data):
    train.run(with_data("train.ensemble_size=3"))
    loaded = load_trained(MODEL, CPU)
    assert len(loaded.members) == 3 and (loaded.neurons, loaded.channels) == (304, 19)
    first, second = (next(iter(member.parameters())) for member in loaded.members[:2])
    assert not torch.equal(first, second)
    params = with_data()
    task = LatentsTask(params, Recording(params), CPU)
    with torch.no_grad():
        errors = [task.evaluate(member).metrics["mse"] for member in loaded.members]
    assert metrics()["validation_mse"] == pytest.approx(sum(errors) / 3, rel=1e-4)
    train.run(with_data())
    assert len(load_trained(MODEL, CPU).members) == 1


def test_a_member_of_an_ensemble_is_its_lone_run(with_data):
    train.run(with_data())
    alone = dict(load_trained(MODEL, CPU).members[0].named_parameters())
    train.run(with_data("train.ensemble_size=2"))
    for name, tensor in load_trained(MODEL, CPU).members[0].named_parameters():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-4, atol=1e-5)


def test_compilation_that_fails_is_recorded_and_training_goes_on(with_data, monkeypatch, capsys):
    def fails(function, mode):
        def broken(*inputs):
            raise RuntimeError("ptxas: not found\nmore")

        return broken

    train.run(with_data())
    eager = metrics()
    monkeypatch.setattr(precision.torch, "compile", fails)
    train.run(with_data("train.compile=max-autotune"))
    assert metrics() == eager
    found = json.loads(Path("results/train/compile.json").read_text())
    assert found == {"wanted": "max-autotune", "used": "none", "reason": "RuntimeError: ptxas: not found"}
    said = "train.compile: max-autotune failed (RuntimeError: ptxas: not found); goes on with none"
    assert capsys.readouterr().err.count(said) == 1


def test_an_error_of_the_loss_itself_is_not_hidden_by_the_fall_back():
    def wrong(x):
        raise ValueError("my own")

    with pytest.raises(ValueError, match="my own"):
        Compiled(wrong, "default")(torch.ones(1))


def test_training_without_a_recording_says_what_to_do(make_params):
    with pytest.raises(DataError, match=r"manifest\.json: no such file; run the simulate stage"):
        train.run(make_params())


def test_the_null_has_the_same_shape_and_other_weights(with_data):
    train.run(with_data())
    loaded = load_trained(MODEL, CPU)
    ours, theirs = (dict(model.named_parameters()) for model in (loaded.members[0], untrained(loaded, CPU)))
    assert ours.keys() == theirs.keys()
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)
    replicate = loaded._replace(params=dataclasses.replace(loaded.params, seed=1))
    other = dict(untrained(replicate, CPU).named_parameters())
    assert not all(torch.equal(other[name], theirs[name]) for name in ours)


def test_models_that_are_missing_damaged_or_of_another_kind_are_refused(with_data):
    with pytest.raises(
        CheckpointError, match=r"got no member-\*\.safetensors; allowed: a trained model; run the train"
    ):
        load_trained(MODEL, CPU)
    train.run(with_data("train.ensemble_size=2"))
    path = MODEL / "member-1.safetensors"
    tensors, document = read_tensors(path)
    write_tensors(path, tensors, document | {"identity": "other"})
    with pytest.raises(CheckpointError, match="holds members of different runs; remove it"):
        load_trained(MODEL, CPU)
    path.unlink()
    with pytest.raises(CheckpointError, match="got 1 members; allowed: 2; run the train stage again"):
        load_trained(MODEL, CPU)
    path = MODEL / "member-0.safetensors"
    write_tensors(path, {"x": torch.zeros(1)}, document)
    with pytest.raises(CheckpointError, match="does not fit its network"):
        load_trained(MODEL, CPU)
    write_tensors(path, tensors, document | {"schema": 9})
    with pytest.raises(CheckpointError, match="got schema 9; allowed: 2; train again"):
        load_trained(MODEL, CPU)
    write_tensors(path, tensors, {"schema": 2})
    with pytest.raises(CheckpointError, match="not a model of this study and version"):
        load_trained(MODEL, CPU)
