"""The default study through DVC, as its user types it, at a tiny size."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TINY = {
    "data.phantoms": "24",
    "data.validation_phantoms": "8",
    "data.image_size": "16",
    "model.hidden_sizes": "[8,16]",
    "train.steps": "4",
    "train.batch_size": "4",
    "train.validate_every": "2",
    "train.checkpoint_every": "2",
    "train.log_every": "1",
    "evaluation.phantoms": "2",
    "evaluation.snr": "[10]",
    "evaluation.bootstrap": "100",
    "evaluation.families": "[voronoi]",
    "evaluation.images": "1",
    "sensitivity.phantoms": "2",
    "sensitivity.null_seeds": "1",
}
STAGES = ("simulate", "train", "validate", "sensitivity")


@pytest.fixture(scope="module")
def project(make_project):
    """The project with tiny values in params.yaml, run once."""
    project = make_project()
    text = (project.folder / "params.yaml").read_text()
    for key, value in TINY.items():
        section, name = key.split(".")
        text, found = re.subn(rf"(?ms)^({section}:.*?^  {name}:)[^\n]*", rf"\1 {value}", text, count=1)
        assert found, key
    project.write("params.yaml", text)
    project.commit()
    said = project.give("dvc repro")
    assert all(f"Running stage '{stage}'" in said for stage in STAGES)
    return project


def ran(said: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", said)


def test_a_second_repro_does_nothing(project):
    said = project.give("dvc repro")
    assert ran(said) == []
    assert "Data and pipelines are up to date." in said


def test_declared_outputs_are_what_the_stages_write(project):
    for name in ("validate/metrics.json", "validate/cbf_error_by_snr.csv", "sensitivity/response.png"):
        assert (project.folder / "results" / name).is_file()


def test_a_changed_learning_rate_trains_again_and_does_not_simulate(project):
    said = project.give("dvc exp run -S train.optimizer.lr=0.001")
    assert ran(said)[0] == "train" and sorted(ran(said)[1:]) == ["sensitivity", "validate"]


def test_a_changed_evaluation_does_not_train_again(project):
    project.give("dvc exp run -S train.optimizer.lr=0.001")
    said = project.give("dvc exp run -S train.optimizer.lr=0.001 -S evaluation.bootstrap=120")
    assert ran(said) == ["validate"]


def test_the_users_own_line_and_the_comparison(project):
    said = project.give("dvc exp run -n wide -S 'model.hidden_sizes=[64,128,256,512]'")
    assert ran(said)[0] == "train" and sorted(ran(said)[1:]) == ["sensitivity", "validate"]
    (baseline,) = json.loads(project.give("dvc exp show --json"))[1:]
    experiments = {item["name"]: item["revs"][0]["data"] for item in baseline["experiments"]}
    wide = experiments["wide"]
    assert wide["params"]["params.yaml"]["data"]["model"]["hidden_sizes"] == [64, 128, 256, 512]
    metrics = {name: file["data"] for name, file in wide["metrics"].items() if not name.startswith("studies/")}
    assert 5 <= sum(len(values) for values in metrics.values()) <= 15
    assert {"cbf_mae", "att_mae"} <= metrics["results/validate/metrics.json"].keys()
    assert {"slope", "slope_null"} <= metrics["results/sensitivity/metrics.json"].keys()


def test_plots_show_losses_and_errors(project):
    project.give("dvc plots show -o plots")
    page = (project.folder / "plots" / "index.html").read_text()
    assert all(title in page for title in ("Loss", "CBF error by SNR", "ATT error by SNR"))


def test_a_wrong_type_given_to_dvc_ends_in_one_line(project):
    process = project.start("dvc exp run -S train.optimizer.lr=fast")
    said, _ = process.communicate()
    assert process.returncode != 0
    assert "assay: params.yaml: train.optimizer.lr: got 'fast'; allowed: a number > 0" in said
    assert "Traceback" not in said
    project.give("git checkout -q params.yaml dvc.lock || git checkout -q params.yaml")


def wait_for_checkpoint(folder: Path) -> None:
    deadline = time.monotonic() + 120
    while not any(
        not (path.parent / "complete").exists() for path in folder.glob(".assay/checkpoints/*/step-*.safetensors")
    ):
        assert time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)


def test_a_killed_experiment_given_again_goes_on_where_it_was(project):
    command = "dvc exp run -S train.steps=400 -S seed=7"
    process = project.start(f"exec {command}")  # dvc is then our own child: once waited for, its locks are void
    wait_for_checkpoint(project.folder)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    said = project.give(command)
    assert re.search(r"train: goes on from step \d+", said)
    assert json.loads((project.folder / "results/train/metrics.json").read_text())["steps"] == 400
