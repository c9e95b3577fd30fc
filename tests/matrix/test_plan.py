"""`assay plan`: what a study would run, as a table and as JSON."""

import dataclasses
import json
from pathlib import Path

import pytest
from tests.matrix.records import write_run
from tests.matrix.study_file import placed

from assay.__main__ import main
from assay.runs.record import Attempt, Holder, Run
from assay.runs.store import RunFolder

ROOT = Path(__file__).parents[2]
TEXT = """\
name: small
question: Does it matter?
study: asl
pipeline: dvc.yaml
baseline: base
seeds: [0, 1]
base: {train.steps: 50}
arms:
  base: {reason: the reference}
  wide: {reason: more channels, set: {model.hidden_sizes: [32, 64]}}
  same: {reason: nothing new, extends: wide, set: {train.log_every: 7}}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    return placed(tmp_path, TEXT)


def test_the_table_shows_differences_duplicates_and_the_number_of_runs(file, capsys):
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "model.hidden_sizes=[32, 64]" in shown and "same as wide" in shown
    assert "base runs homogeneous [24, 48, 96] x 1: 50 steps" in " ".join(shown.split())
    assert "3 arms x 2 seeds = 6 runs, 4 of them distinct" in shown


def test_the_same_as_json(file, capsys):
    assert main(["plan", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["runs"], found["distinct_runs"], found["seeds"]) == (6, 4, [0, 1])
    base, wide, same = found["arms"]
    assert (base["name"], base["differences"]) == ("base", {})
    assert wide["overrides"] == {"train.steps": 50, "model.hidden_sizes": [32, 64]}
    assert wide["differences"] == {"model.hidden_sizes": [32, 64]} and list(wide["identities"]) == ["0", "1"]
    assert same["same_as"] == "wide" and same["identities"] == wide["identities"]


def test_only_the_arms_that_match(file, capsys):
    assert main(["plan", str(file), "--only", "w*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [arm["name"] for arm in found["arms"]] == ["wide"] and found["runs"] == 2


def test_a_wrong_study_ends_with_code_2_and_a_line_for_each_mistake(file, capsys):
    file.write_text(TEXT.replace("baseline: base", "baseline: bass").replace("extends: wide", "extends: wode"))
    assert main(["plan", str(file)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "did you mean wide?" in lines[0] and "did you mean base?" in lines[1]


def test_the_committed_study_is_valid_and_its_duplicate_is_found(capsys):
    assert main(["plan", str(ROOT / "study.yaml"), "--json"]) == 0
    arms = {arm["name"]: arm for arm in json.loads(capsys.readouterr().out)["arms"]}
    assert [int(name[:2]) for name in arms] == list(range(25))
    assert arms["17_larger"]["differences"] == {"model.hidden_sizes": [64, 128, 256, 512]}
    assert {name: arm["same_as"] for name, arm in arms.items() if arm["same_as"]} == {
        "09_randomised_again": "08_randomised"
    }


def test_runs_of_other_parameters_are_not_counted_as_complete(file, capsys):
    params = file.parent / "params.yaml"
    for arm, changes in (("base", {}), ("wide", {"model.hidden_sizes": [32, 64]})):
        for seed in (0, 1):
            write_run(file.parent / f"runs/small/{arm}/{seed}", {"train.steps": 50, **changes})
    params.write_text(params.read_text().replace("batch_size: ", "batch_size: 1"))
    assert main(["plan", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "0 of 6 runs are complete" in shown and "the missing 6 take " in shown
    assert "not among them, with other parameters than the study now: 4, e.g. base/0 with train.batch_size=" in shown
    assert "move their folders away, or give the arms other names" in shown


CLAIM = """\
metrics: {validate/cbf_mae: {direction: min}}
hypotheses:
  wider: {claim: Wider is better., metric: validate/cbf_mae, arm: wide, versus: base, test: superior, margin: 0}
"""


def test_it_says_what_the_seeds_can_show_from_the_runs_there_are(file, capsys):
    file.write_text(TEXT.replace("arms:\n", f"{CLAIM}arms:\n").replace("[0, 1]", "[0, 1, 2]"))
    assert main(["plan", str(file)]) == 0
    assert "wider: 3 seeds: no replicates have been seen yet" in " ".join(capsys.readouterr().out.split())
    for seed, (wide, base) in enumerate([(1.0, 1.2), (1.1, 1.25), (0.9, 1.15)]):
        for arm, value in (("wide", wide), ("base", base)):
            complete(file.parent / "runs/small" / arm / str(seed), {"validate/cbf_mae": value})
    assert main(["plan", str(file), "--json"]) == 0
    answered = json.loads(capsys.readouterr().out)["answers"]["wider"]
    assert answered["can"] is True and 0.0 < answered["detectable"] < 1.0


def complete(folder: Path, metrics: dict[str, float]) -> None:
    """The record of a run that has ended well and left metrics."""
    run = RunFolder(folder)
    here = Holder(host="here", pid=1, start_ticks=1, boot_id="0")
    attempt = run.begin(Attempt(number=0, holder=here, command=["dvc"], started=0.0, heartbeat=1.0))
    run.write_run(Run(study="small", arm=folder.parent.name, seed=folder.name))
    run.update(dataclasses.replace(attempt, ended=2.0, code=0))
    (folder / "metrics.json").write_text(json.dumps(metrics))
