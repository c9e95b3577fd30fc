"""The train stage as a process: killed, stopped, started again; and what it refuses."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from assay.config.load import resolved
from assay.engine.checkpoint import read_tensors, write_tensors
from assay.errors import CheckpointError, DataError
from assay.studies.asl import simulate, train
from assay.studies.asl.trained import _total_std, load_trained, untrained

LONG = ["train.steps=100", "train.checkpoint_every=5", "train.validate_every=20", "train.log_every=5"]
VARIANTS = {
    "plain": [],
    "all at once": ["train.ensemble_size=2", "train.ema_decay=0.9", "train.accumulate=2", "data.source=simulated"],
}
"""Each option alone is stopped and resumed within one process in tests/engine/test_train.py."""


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "assay", "stage", "asl", "train", "--params", "params.json"]
    return subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], number: signal.Signals | None = None) -> tuple[int, str]:
    """Exit code and what was said, after sending a signal if one is given."""
    if number is not None:
        process.send_signal(number)
    _, said = process.communicate()
    return process.returncode, said


def prepare(folder: Path, params) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(resolved(params)))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    paths = sorted((folder / "results" / "train" / "model").glob("*.safetensors"))
    return {f"{path.name}/{name}": t for path in paths for name, t in read_tensors(path)[0].items()}


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[str], step: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(int(path.stem[5:]) >= step for path in folder.glob(".assay/checkpoints/*/step-*.safetensors")):
            return
        time.sleep(0.005)
    raise AssertionError(f"no checkpoint of step {step}: {process.communicate()[1]}")


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_killed_and_a_stopped_run_end_with_the_weights_of_an_undisturbed_one(variant, make_params, tmp_path):
    params = make_params(*LONG, *VARIANTS[variant])
    simulate.run(params)
    for name in ("whole", "parts"):
        prepare(tmp_path / name, params)
    assert finish(start(tmp_path / "whole"))[0] == 0

    killed = start(tmp_path / "parts")
    wait_for_checkpoint(tmp_path / "parts", killed, 5)
    assert finish(killed, signal.SIGKILL)[0] == -signal.SIGKILL
    stopped = start(tmp_path / "parts")
    wait_for_checkpoint(tmp_path / "parts", stopped, 15)
    code, said = finish(stopped, signal.SIGTERM)
    assert code == 75, said
    assert "stopped at step" in said and "the same command goes on from there" in said
    code, said = finish(start(tmp_path / "parts"))
    assert code == 0 and "goes on from step" in said

    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys() and len(whole) > 10
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_checkpoints_outlive_the_stage_until_another_run_begins(make_params, tmp_path, monkeypatch, capsys):
    """A pipeline that is killed before it has taken note of the model runs the stage again: nothing is repeated."""
    monkeypatch.chdir(tmp_path)
    params = make_params("data.source=simulated", "train.steps=4", "train.checkpoint_every=2")
    train.run(params)
    model = weights(tmp_path)
    train.run(params)
    assert "goes on from step 4" in capsys.readouterr().err
    assert all(torch.equal(model[name], tensor) for name, tensor in weights(tmp_path).items())
    (kept,) = (tmp_path / ".assay/checkpoints").iterdir()
    train.run(make_params("data.source=simulated", "train.steps=4", "train.optimizer.lr=0.001"))
    assert kept not in list((tmp_path / ".assay/checkpoints").iterdir())


def test_another_parameter_never_meets_an_old_checkpoint(make_params, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    params = make_params("data.source=simulated", *LONG)
    prepare(tmp_path, params)
    killed = start(tmp_path)
    wait_for_checkpoint(tmp_path, killed, 5)
    finish(killed, signal.SIGKILL)
    train.run(make_params("data.source=simulated", "train.optimizer.lr=0.001"))
    assert "goes on" not in capsys.readouterr().err


def test_metrics_report_steps_samples_and_epochs(make_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = make_params("train.accumulate=2")
    simulate.run(params)
    train.run(params)
    metrics = json.loads((tmp_path / "results/train/metrics.json").read_text())
    assert (metrics["steps"], metrics["samples"]) == (4, 32)
    assert metrics["epochs"] == pytest.approx(32 / 28)


def test_training_without_data_says_what_to_do(make_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"run the simulate stage, or set data\.source: simulated"):
        train.run(make_params())


@pytest.fixture
def model_folder(make_params, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    train.run(make_params("data.source=simulated", "train.ensemble_size=2"))
    return tmp_path / "results/train/model"


CPU = torch.device("cpu")


def test_a_model_is_rebuilt_from_its_file_alone(model_folder):
    model = load_trained(model_folder, CPU)
    signal_, sigma = torch.rand(3, 12, 16, 16) * 0.01, torch.full((3, 1, 1, 1), 1e-4)
    maps = model.estimate(signal_, sigma)
    assert model.members == 2 and maps.cbf.shape == (3, 16, 16)
    each = [module(signal_, sigma).clamped().cbf.squeeze(1) for module in model.modules]
    torch.testing.assert_close(maps.cbf, torch.stack(each).mean(0).detach())


def test_the_sd_of_an_ensemble_holds_the_spread_of_its_members():
    """Means 1 and 3 and variances 4 and 8: mean variance 6 and variance of the means 1."""
    total = _total_std(torch.tensor([[1.0], [3.0]]), torch.tensor([[4.0], [8.0]]))
    torch.testing.assert_close(total, torch.tensor([7.0]).sqrt())


def test_the_null_has_the_same_architecture_and_other_weights(model_folder):
    trained, null = load_trained(model_folder, CPU), untrained(model_folder, 0, CPU)
    ours, theirs = (dict(model.modules[0].named_parameters()) for model in (trained, null))
    assert ours.keys() == theirs.keys()
    assert not all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_missing_model_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"got no member-\*\.safetensors.*run the train stage"):
        load_trained(tmp_path, CPU)


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_damaged_model_is_refused(damage, model_folder):
    path = model_folder / "member-0.safetensors"
    content = bytearray(path.read_bytes())
    content = content[:-8] if damage == "truncate" else content[:-3] + bytes([content[-3] ^ 1]) + content[-2:]
    path.write_bytes(bytes(content))
    with pytest.raises(CheckpointError, match=r"member-0\.safetensors: (damaged|its checksum does not match)"):
        load_trained(model_folder, CPU)


def test_a_model_of_another_kind_is_refused(model_folder):
    write_tensors(model_folder / "member-0.safetensors", {"x": torch.zeros(1)}, {"schema": 1})
    with pytest.raises(CheckpointError, match="not a model of this study and version"):
        load_trained(model_folder, CPU)


def test_an_incomplete_ensemble_is_refused(model_folder):
    (model_folder / "member-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match="got 1 members; allowed: 2; run the train stage again"):
        load_trained(model_folder, CPU)


def test_a_smaller_ensemble_replaces_a_larger_one(model_folder, make_params):
    train.run(make_params("data.source=simulated"))
    assert load_trained(model_folder, CPU).members == 1


def test_members_of_different_runs_are_refused(model_folder, make_params, tmp_path):
    train.run(make_params("data.source=simulated", "seed=5"), tmp_path / "other")
    (tmp_path / "other/model/member-0.safetensors").replace(model_folder / "member-0.safetensors")
    with pytest.raises(CheckpointError, match="holds members of different runs"):
        load_trained(model_folder, CPU)


def test_same_seed_gives_the_same_model_and_another_seed_another(make_params, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = {"a": "seed=0", "b": "seed=0", "c": "seed=1"}
    for name, seed in runs.items():
        train.run(make_params("data.source=simulated", seed), tmp_path / name)
    a, b, c = (read_tensors(tmp_path / name / "model" / "member-0.safetensors")[0] for name in runs)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)
