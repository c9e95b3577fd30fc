"""A few steps of what no run tells about, in a temporary clone."""

import json

import pytest
from tests.matrix.toy import Repository

from assay.__main__ import main
from assay.errors import UserError
from assay.machine import MachineConfig
from assay.matrix.arms import resolve
from assay.matrix.forecast.forecast import forecast
from assay.matrix.forecast.pilot import STEPS, pilot
from assay.runs.status import collect

PIPELINE = """\
stages:
  simulate: {cmd: python stage.py simulate, params: [data], outs: ["${data.path}"]}
  train: {cmd: python stage.py train, params: [train], deps: ["${data.path}"], outs: [results/train/model]}
  validate: {cmd: python stage.py validate, params: [evaluation], deps: [results/train/model], outs: [results/validate]}
"""
STAGE = """\
import pathlib, sys, time
from assay import progress
from ruamel.yaml import YAML
params = YAML(typ="safe").load(open("params.yaml"))
progress.announce("asl", sys.argv[1])
if sys.argv[1] == "simulate":
    pathlib.Path(params["data"]["path"]).mkdir(parents=True)
    with progress.phase("simulate", total=params["data"]["phantoms"]) as p:
        p.advance(params["data"]["phantoms"])
elif sys.argv[1] == "validate":
    pathlib.Path("results/validate").mkdir(parents=True)
    with progress.phase("validate", total=2) as p:
        p.advance(2)
else:
    train = params["train"]
    with progress.phase("train", total=train["steps"]) as p:
        for step in range(train["steps"]):
            time.sleep(0.01)
            p.advance()
            if step % train["validate_every"] == 0:
                with progress.phase("validate"):
                    time.sleep(0.02)
    if params["train"]["optimizer"]["lr"] > 1:
        raise SystemExit(3)
    pathlib.Path("results/train").mkdir(parents=True)
    pathlib.Path("results/train/model").write_text("x" * 1000)
progress.verdict(0)
"""
STUDY = """\
name: toy
question: What does it take?
study: asl
pipeline: dvc.yaml
baseline: base
seeds: [0, 1]
base: {train.steps: 5000, train.validate_every: 100}
arms:
  base: {reason: the reference}
  rate: {reason: the same shape, set: {train.optimizer.lr: 0.5}}
  wide: {reason: another one, set: {model.hidden_sizes: [32, 64]}}
"""


@pytest.fixture
def repository(tmp_path) -> Repository:
    made = Repository(tmp_path)
    (tmp_path / "dvc.yaml").write_text(PIPELINE)
    (tmp_path / "stage.py").write_text(STAGE)
    made.study.write_text(STUDY)
    made.commit()
    return made


def test_a_pilot_makes_every_arm_known_and_leaves_nothing_but_its_record(repository, capsys):
    """`wide` is another network to train and to judge, and finds the data of the first one; `rate` is none."""
    before = repository.git("status", "--porcelain")
    assert main(["plan", str(repository.study), "--pilot", "2", "--json"]) == 0
    shown = capsys.readouterr()
    told = [line.rpartition(" in ")[0] for line in shown.err.splitlines()]
    assert told[1:] == ["pilot: base: simulate, train, validate", "pilot: wide: train, validate"]
    arms = {arm["name"]: arm["forecast"] for arm in json.loads(shown.out)["arms"]}
    for arm in arms.values():  # 5000 steps of 10 ms, 51 validations of 20 ms
        assert 40 < arm["stages"]["train"]["value"] < 150 and arm["seconds"]["high"] < 400
    assert arms["base"]["disk"]["value"] > 900
    runs = repository.folder / "runs/toy"
    assert [path.name for path in runs.iterdir()] == [".pilot"] and collect(runs) == []
    assert list((repository.folder / ".assay/clones").iterdir()) == []
    assert repository.git("status", "--porcelain") == before
    main(["plan", str(repository.study), "--pilot"])
    assert "pilot: nothing to measure: every shape is known" in capsys.readouterr().err


def test_a_pilot_that_fails_says_where_its_log_is_and_the_others_go_on(repository):
    repository.study.write_text(STUDY.replace("lr: 0.5", "lr: 2.0, model.hidden_sizes: [8, 8]"))
    repository.commit()
    said = run(repository)
    failed = next(line for line in said if line.startswith("pilot: rate:"))
    assert "it ended with 3: assay logs " in failed and str(repository.folder / "runs/toy/.pilot/rate/0") in failed
    assert any(line.startswith("pilot: wide: train, validate in") for line in said)


def test_the_time_is_a_bound_and_what_was_not_measured_is_named(repository):
    assert run(repository, minutes=0.1)[1:] == ["pilot: the time is over; not measured: base, wide"]


def test_a_stage_that_is_cut_off_still_tells_what_a_step_takes(repository, monkeypatch):
    monkeypatch.setattr("assay.matrix.forecast.pilot.LEAST_S", 1.0)
    slow = "sleep(1)\n            if progress.stop_requested(): progress.verdict(75); sys.exit(75)"
    (repository.folder / "stage.py").write_text(STAGE.replace("sleep(0.01)", slow))
    repository.commit()
    assert "; the time was over" in run(repository, minutes=0.15)[1]
    train = forecast(repository.study, resolve(repository.study), MachineConfig()).arms["base"].stages["train"]
    assert train is not None and 3000 < train.value < 15_000


def run(repository: Repository, minutes: float = 2.0) -> list[str]:
    said: list[str] = []
    pilot(repository.study, resolve(repository.study), MachineConfig(), minutes, said.append)
    return said


def test_a_pilot_here_says_nothing_about_a_cluster(repository, capsys):
    with pytest.raises(UserError, match=r"got a pilot here \(local\) for local, whose jobs run under slurm; allowed"):
        pilot(repository.study, resolve(repository.study), MachineConfig(scheduler="slurm"), 1.0, print)


def test_what_is_not_committed_is_refused(repository, capsys):
    (repository.folder / "stage.py").write_text("pass")
    assert main(["plan", str(repository.study), "--pilot"]) == 2
    assert "uncommitted changes in stage.py" in capsys.readouterr().err


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_a_time_that_is_none_is_refused(repository, minutes, capsys):
    assert main(["plan", str(repository.study), f"--pilot={minutes}"]) == 2
    assert "allowed: > 0 minutes" in capsys.readouterr().err


def test_every_training_is_cut(repository):
    from assay.matrix.forecast.pilot import shorter
    from assay.studies.burgers.config import Params

    train = {"steps": 7, "epochs": None}
    data = {
        "train": train,
        **{name: {"train": {"steps": None}} for name in ("autoencoder", "corrector", "distillation")},
    }
    changes = shorter(Params, data)
    assert (changes["train.steps"], changes["train.checkpoint_every"]) == (7, 3)
    assert (changes["corrector.train.steps"], changes["corrector.train.epochs"]) == (STEPS, None)
