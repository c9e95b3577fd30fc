"""Arms that change nothing are found before anything is submitted, and others are not taken for such."""

import json

import pytest
from tests.matrix.toy import Repository

from assay.__main__ import main
from assay.matrix.arms import resolve
from assay.matrix.forecast.probe import probe, smaller

PIPELINE = """\
stages:
  simulate: {cmd: python stage.py simulate, params: [seed, data, physics], outs: ["${data.path}"]}
  train:
    cmd: python stage.py train
    params: [seed, data, physics, model, loss, train]
    deps: ["${data.path}"]
    outs: [results/train/model, results/train/log/live]
  validate:
    cmd: python stage.py validate
    params: [data, physics, evaluation]
    deps: [results/train/model]
    outs: [results/validate]
"""
STAGE = """\
import json, pathlib, shutil, sys
from ruamel.yaml import YAML
p = YAML(typ="safe").load(open("params.yaml"))
def write(name, text):
    pathlib.Path(name).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(name).write_text(text)
if sys.argv[1] == "simulate":
    with open("made", "a") as made:
        made.write("x")
    write(p["data"]["path"] + "/data", str(p["seed"] + p["data"]["phantoms"]))
elif sys.argv[1] == "train":
    assert p["train"]["device"] == "cpu" and p["train"]["log_every"] == 1
    if p["train"]["optimizer"]["lr"] > 1:
        sys.exit(3)
    data = open(p["data"]["path"] + "/data").read()
    losses = [f"{step}\\t{p['train']['optimizer']['lr'] * step}{data}" for step in range(p["train"]["steps"])]
    write("results/train/log/live/plots/metrics/train/loss.tsv", "\\n".join(losses))
    write("results/train/model", data)
else:
    found = {"error": p["evaluation"]["smoothing_sigma"], "lesions": p["data"]["lesions"]}
    write("results/validate/metrics.json", json.dumps(found))
"""
STUDY = """\
name: toy
question: Does it change anything?
study: asl
pipeline: dvc.yaml
baseline: base
seeds: [0, 1]
arms:
  base: {reason: the reference}
  rate: {reason: another rate, set: {train.optimizer.lr: 0.5}}
  inert: {reason: nothing here reads it, set: {physics.alpha_bs: 0.9}}
  evaluation: {reason: evaluated otherwise, set: {evaluation.smoothing_sigma: 1.0}}
  later: {reason: only the evaluation acts on it, set: {data.lesions: false}}
  longer: {reason: about its budget, set: {train.steps: 1400, train.patience: 5}}
  data: {reason: more of it, set: {data.phantoms: 2000}}
  crashes: {reason: cannot be rehearsed, set: {train.optimizer.lr: 2.0}}
"""


@pytest.fixture
def repository(tmp_path) -> Repository:
    made = Repository(tmp_path)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "stage.py").write_text(STAGE)
    made.study.write_text(STUDY)
    made.commit()
    return made


def test_every_arm_is_told_apart(repository):
    said: list[str] = []
    found = probe(repository.study, resolve(repository.study), said.append)
    assert found == {
        "inert": "inert: same first 3 steps as base, to the last bit; nothing acts on physics.alpha_bs",
        "evaluation": "trains as base does; it changes validate",
        "later": "same first 3 steps as base; validate differs",
        "longer": "not judged: train.steps, train.patience cannot show in 3 steps on a CPU",
        "crashes": "not judged: train: exit code 3",
    }
    assert said[0] == "probe: 7 arms beside base, 3 steps each, on the CPU" and len(said) == 8
    assert list((repository.folder / ".assay/clones").iterdir()) == []
    assert not (repository.folder / "results").exists() and not (repository.folder / "runs").exists()


def test_arms_of_a_pattern_are_compared_with_the_baseline_all_the_same(repository, capsys):
    assert main(["plan", str(repository.study), "--only", "in*", "--probe", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["probe"].keys() == {"inert"}


def test_submit_leaves_arms_alone_that_change_nothing(repository, capsys):
    command = ["submit", str(repository.study), "--probe", "--dry-run", "--json"]
    assert main(command) == 0
    decided = {(each["arm"], each["seed"]): each for each in json.loads(capsys.readouterr().out)}
    left = {run for run, each in decided.items() if each["what"] != "submit"}
    assert left == {("inert", 0), ("inert", 1)}
    assert decided["inert", 0]["what"] == "left alone"
    assert decided["inert", 0]["note"] == (
        "inert: same first 3 steps as base, to the last bit; nothing acts on physics.alpha_bs; "
        "--probe leaves it alone, without it the run is submitted"
    )


def test_a_baseline_that_does_not_run_judges_nobody(repository):
    repository.change_study("lr: 0.5", "lr: 0.25")
    (repository.folder / "stage.py").write_text(STAGE.replace("> 1:", "> 0:"))
    repository.commit()
    found = probe(repository.study, resolve(repository.study, "[ri]*"), print)
    assert found == dict.fromkeys(("rate", "inert"), "not judged: train: exit code 3")


def test_a_training_without_a_trace_is_not_called_inert(repository):
    (repository.folder / "stage.py").write_text(STAGE.replace("loss.tsv", "loss.txt"))
    repository.commit()
    found = probe(repository.study, resolve(repository.study, "inert"), print)
    assert found["inert"].startswith("not judged: train writes nothing like results/train/log")


def test_an_amount_keeps_its_ratio_where_an_arm_changes_it():
    small = {"data.phantoms": 10, "data.image_size": 16, "snr": [10.0], "gone": 3}
    base = {"data.phantoms": 1000, "data.image_size": 64, "snr": [1.0, 2.0]}
    assert dict(smaller(small, base, base)) == {"data.phantoms": 10, "data.image_size": 16, "snr": [10.0]}
    arm = {"data.phantoms": 2500, "data.image_size": 65, "snr": [3.0]}
    assert dict(smaller(small, arm, base)) == {"data.phantoms": 25, "data.image_size": 17}
