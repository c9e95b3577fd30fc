"""Which missing runs are trained in one pass, and where; that it is done right is seen in a whole pipeline."""

import json
import signal
import subprocess
import sys
import time

import pytest
from tests.matrix.records import DATA, attempt, write_run
from tests.matrix.toy import Commanded, Repository

from assay.__main__ import main
from assay.errors import DataError
from assay.matrix.cells import read_cells
from assay.matrix.stack import groups, train_stacks
from assay.matrix.submit import decide, open_study

PIPELINE = """\
stages:
  simulate: {cmd: python stage.py, params: [data], outs: ["${data.path}"]}
  train: {cmd: python stage.py, params: [train], deps: ["${data.path}"], outs: [results/train/model]}
  validate:
    cmd: python stage.py
    params: [evaluation]
    deps: [results/train/model]
    metrics: [results/validate/metrics.json: {cache: false}]
"""
STUDY = """\
name: toy
question: Which rate?
study: asl
pipeline: dvc.yaml
baseline: base
seeds: [0, 1]
arms:
  base: {reason: the reference}
  fast: {reason: a higher rate, set: {train.optimizer.lr: 0.01}}
  other_rule: {reason: another rule, set: {train.optimizer.name: adam}}
  clipped: {reason: small steps, set: {train.clip_norm: 0.1}}
  patient: {reason: ends early, set: {train.patience: 3}}
  later: {reason: judged on other phantoms, set: {evaluation.phantoms: 7}}
  wide: {reason: another network, set: {model.hidden_sizes: [8, 16]}}
  wide_fast: {reason: and a higher rate, set: {model.hidden_sizes: [8, 16], train.optimizer.lr: 0.01}}
  longer: {reason: more steps, set: {train.steps: 900}}
  blurred: {reason: other data, set: {data.blur_sigma: 2.0}}
metrics:
  validate/error: {direction: min}
"""


@pytest.fixture
def repository(tmp_path) -> Repository:
    made = Repository(tmp_path)
    for name, text in {"dvc.yaml": PIPELINE, "study.yaml": STUDY}.items():
        (tmp_path / name).write_text(text)
    made.commit()
    return made


def found(repository: Repository, only: str | None = None) -> list[tuple[tuple[str, ...], int]]:
    study = open_study(repository.study, only)
    return [(group.arms, group.seed) for group in groups(study, decide(study, Commanded()))]


def test_runs_that_differ_in_how_they_are_optimised_are_trained_together_seed_by_seed(repository):
    alike = ("base", "fast", "other_rule", "clipped", "patient")
    assert found(repository) == [(alike, 0), (("wide", "wide_fast"), 0), (alike, 1), (("wide", "wide_fast"), 1)]


def test_what_is_not_asked_for_is_not_trained(repository):
    assert found(repository, "*fast") == []
    assert found(repository, "wide*") == [(("wide", "wide_fast"), 0), (("wide", "wide_fast"), 1)]


def test_what_is_there_is_not_trained_again(repository):
    write_run(repository.run("wide", 0), {"model.hidden_sizes": [8, 16]})
    assert (("wide", "wide_fast"), 0) not in found(repository)


def test_a_dry_run_says_what_would_be_trained_together(repository, capsys):
    assert main(["submit", str(repository.study), "--stack", "--dry-run", "--only", "wide*"]) == 0
    said = capsys.readouterr().err
    assert said == "stack: would train wide, wide_fast at seed 0\nstack: would train wide, wide_fast at seed 1\n"
    assert not (repository.folder / "runs").exists()


def test_where_nothing_can_be_stacked_that_is_said(repository):
    said: list[str] = []
    study = open_study(repository.study, "blurred")
    train_stacks(study, decide(study, Commanded()), said.append)
    assert said == ["stack: no two of the missing runs differ in their optimisation alone"]


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        ("scheduler: slurm", "--stack: got training here (local) for place, whose jobs run under slurm; allowed"),
        (
            "resources: {processes: 2}",
            "--stack: got place, whose jobs share a training among several processes",
        ),
        ("container: {kind: docker, image: x}", "--stack: got place, whose jobs run in a container; allowed: none"),
    ],
)
def test_jobs_that_run_elsewhere_are_refused(machine, message, repository, capsys):
    place = repository.folder / "place.yaml"
    place.write_text(f"name: place\n{machine}\n")
    repository.commit()
    for more in ([], ["--dry-run"]):
        assert main(["submit", str(repository.study), "--stack", "--machine", str(place), *more]) == 2
        assert message in capsys.readouterr().err
    assert not (repository.folder / "runs").exists()


def test_a_stack_that_fails_names_its_log_and_nothing_is_submitted(repository, capsys):
    (repository.folder / "stage.py").write_text("raise SystemExit(3)\n")
    repository.commit()
    assert main(["submit", str(repository.study), "--stack", "--only", "wide*"]) == 1
    record = repository.folder / "runs/toy/.stack/wide/0"
    said = capsys.readouterr().err
    assert f"assay: stack: wide, wide_fast at seed 0 were not trained, it ended with 255: assay logs {record}" in said
    assert not repository.run("wide", 0).exists()


@pytest.mark.parametrize("chosen", [True, False])
def test_checkpoints_go_where_the_jobs_will_look_for_them(chosen, repository, monkeypatch):
    own = repository.run("wide_fast", 0) / "checkpoints"
    if chosen:
        own = repository.folder / "elsewhere"
        monkeypatch.setenv("ASSAY_CHECKPOINTS", str(own))
    (repository.folder / "stage.py").write_text("raise SystemExit(3)\n")
    repository.commit()
    main(["submit", str(repository.study), "--stack", "--only", "wide*"])
    plan = json.loads((repository.folder / "runs/toy/.stack/wide/0/plan.json").read_text())
    assert plan["wide_fast"]["checkpoints"] == str(own)
    assert plan["wide_fast"]["params"]["train"]["optimizer"]["lr"] == 0.01


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_stop_ends_it_and_nothing_is_submitted(number, repository):
    (repository.folder / "stage.py").write_text("import time\nopen('begun', 'w')\ntime.sleep(60)\n")
    repository.commit()
    command = [sys.executable, "-m", "assay", "submit", str(repository.study), "--stack", "--only", "wide*"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    clones, until = repository.folder / ".assay/clones", time.monotonic() + 60
    while not list(clones.glob(".stack-*/begun")) and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 75, said
    assert "stack: stopped while wide, wide_fast at seed 0 were trained; the same command goes on from there" in said
    assert not list(clones.glob(".stack-*")) and not repository.run("wide", 0).exists()


def test_each_run_bears_its_share_of_the_cost(repository):
    for arm in ("wide", "wide_fast"):
        write_run(repository.run(arm, 0), {})
        shares = [{"record": "../../.stack/wide/0", "attempt": 1, "runs": runs} for runs in (2, 4)]
        (repository.run(arm, 0) / "stack.json").write_text(json.dumps(shares))
    write_run(repository.folder / "runs/toy/.stack/wide/0", {})
    own = attempt(DATA)
    (cell,) = read_cells(repository.folder / "runs/toy", ["wide"], [0])
    assert cell.wall_s == pytest.approx(1.75 * (own.ended - own.started))
    train = next(stage for stage in own.stages if stage.stage == "train")
    assert cell.seconds["train"] == pytest.approx(1.75 * (train.ended - train.started))


@pytest.mark.parametrize("text", ["[", '{"a": 1}', '[{"record": "../../.stack/wide/0", "attempt": 7, "runs": 2}]'])
def test_a_share_that_cannot_be_read_is_refused_in_words(text, repository):
    write_run(repository.run("wide", 0), {})
    write_run(repository.folder / "runs/toy/.stack/wide/0", {})
    (repository.run("wide", 0) / "stack.json").write_text(text)
    with pytest.raises(DataError, match=r"stack.json: damaged, or its record was moved .*; remove it: the cost"):
        read_cells(repository.folder / "runs/toy", ["wide"], [0])
