"""What a study will take, learnt from the runs that there are."""

import json
import time
from dataclasses import make_dataclass
from pathlib import Path
from typing import Annotated

import pytest
from tests.matrix.forecast.conftest import ARMS, HEAD, look, runs
from tests.matrix.records import true_seconds, write_run

from assay.__main__ import main
from assay.config import Before, Incidental
from assay.matrix.forecast.laws import GROWTH
from assay.matrix.forecast.scaling import Estimate
from assay.matrix.forecast.workload import read_recorded
from assay.studies.asl.config import Params


def within(found: Estimate | None, seconds: float) -> bool:
    return found is not None and found.low <= seconds <= found.high


def test_a_recorded_shape_takes_the_median_of_its_replicates(study):
    path = study()
    runs(path, "base", {})
    arm = look(path).arms["base"]
    train = arm.stages["train"]
    assert train is not None and train.basis == "replicates"
    assert arm.missing == () and within(arm.seconds, true_seconds({"train.steps": 100}) + 2)
    assert arm.memory is not None and arm.memory.value == pytest.approx(5.12e8)
    assert arm.disk is not None and arm.disk.value == pytest.approx(1e6)


def test_another_number_of_steps_is_scaled_by_what_a_step_and_a_validation_take(study):
    path = study()
    runs(path, "base", {})
    longer = look(path).arms["longer"].stages
    assert longer["train"] is not None and longer["train"].basis == "same shape"
    assert longer["train"].value == pytest.approx(
        true_seconds({"train.steps": 1000}) - true_seconds({"train.steps": 100}) + 40.2, rel=0.4
    )
    assert longer["simulate"] is not None and longer["simulate"].basis == "replicates"


def test_a_real_number_is_no_other_shape(study):
    path = study()
    runs(path, "base", {})
    arms = look(path).arms
    assert arms["rate"].seconds == arms["base"].seconds


def test_a_larger_network_takes_longer_to_judge_however_it_was_trained(study):
    wide = "  wide: {reason: more channels, set: {model.hidden_sizes: [48, 96, 192]}}\n"
    path = study(HEAD + ARMS + wide)
    runs(path, "base", {})
    runs(path, "narrow", {"model.hidden_sizes": [12, 24, 48]}, study="another")
    judged = {name: arm.stages["validate"] for name, arm in look(path).arms.items()}
    assert judged["wide"].basis == "other shapes" and judged["wide"].value > 1.2 * judged["base"].value
    assert judged["longer"] == judged["rate"] == judged["base"] and judged["base"].basis == "replicates"


def test_other_shapes_tell_with_a_wider_interval_that_holds_the_truth(study):
    wide = "  wide: {reason: more channels, set: {model.hidden_sizes: [40, 80, 160]}}\n"
    path = study(HEAD + ARMS + wide)
    for arm, widths in {"base": [24, 48, 96], "a": [8, 16, 32], "b": [12, 24, 48], "c": [32, 64, 128]}.items():
        runs(path, arm, {"model.hidden_sizes": widths}, study="small" if arm == "base" else "another")
    arms = look(path).arms
    truth = true_seconds({"train.steps": 100, "model.hidden_sizes": [40, 80, 160]})
    assert arms["wide"].stages["train"].basis == "other shapes"
    assert within(arms["wide"].seconds, truth) and arms["wide"].seconds.value == pytest.approx(truth, rel=0.2)
    assert _factor(arms["wide"].seconds) > _factor(arms["base"].seconds)


def _factor(found: Estimate) -> float:
    return found.high / found.value


def test_epochs_are_counted_by_what_runs_say_their_length_was(study):
    """A run of 100 steps that reached epoch 2.5: 10 epochs are 400 steps."""
    by_epochs = HEAD.replace("train.steps: 100", "train.steps: null, train.epochs: 10")
    path = study(by_epochs + "arms: {base: {reason: r}}\n")
    assert look(path).arms["base"].seconds is None
    runs(path, "base", {}, study="another")
    for record in (path.parent / "runs/another").glob("base/*/attempts/0001.json"):
        told = json.loads(record.read_text())
        told["stages"][1]["work"]["train"]["epoch"] = 2.5
        record.write_text(json.dumps(told))
    assert look(path).arms["base"].seconds.value == pytest.approx(true_seconds({"train.steps": 400}), rel=0.1)


def test_a_run_that_was_trained_in_a_stack_tells_nothing_of_its_training(study):
    path = study(
        HEAD.replace("train.steps: 100", "train.steps: null, train.epochs: 10") + "arms: {base: {reason: r}}\n"
    )
    runs(path, "base", {}, study="another")
    for run in (path.parent / "runs/another").glob("base/*"):
        (run / "stack.json").write_text("[]")
    found = look(path).arms["base"]
    assert found.seconds is None and found.memory is None and found.stages["validate"] is not None


@pytest.mark.parametrize(("lacking", "told"), [("simulate", True), ("train", False), ("validate", False)])
def test_a_pilot_that_found_its_data_made_tells_of_memory(lacking, told, study):
    path = study()
    pilot = path.parent / "runs/small/.pilot/base/0"
    write_run(pilot, {"train.steps": 100})
    record = pilot / "attempts/0001.json"
    attempt = json.loads(record.read_text())
    attempt["stages"] = [stage for stage in attempt["stages"] if stage["stage"] != lacking]
    record.write_text(json.dumps(attempt))
    memory = look(path).arms["base"].memory
    assert (memory is not None and memory.value == pytest.approx(GROWTH * 5.12e8)) if told else memory is None


def test_what_was_never_seen_is_unknown_and_the_command_that_measures_it_is_named(study, capsys):
    path = study()
    found = look(path)
    assert found.unknown == ("base", "longer", "rate") and found.seconds.value == 0
    assert main(["plan", str(path)]) == 0
    assert f"unknown: base, longer, rate; a pilot measures them: assay plan {path} --pilot" in capsys.readouterr().out


def test_runs_on_other_hardware_and_damaged_ones_are_left_out(study):
    path = study()
    runs(path, "base", {}, hardware={"cpu": "another", "cores": 64, "gpus": []})
    (path.parent / "runs/small/base/1/run.json").write_text("{")
    found = look(path)
    assert found.arms["base"].seconds is None
    assert found.learnt_from == {"runs": 0, "pilots": 0, "on other hardware": 2}


def test_runs_from_before_a_key_was_added_are_left_out_and_stay_complete(study):
    path = study()
    runs(path, "base", {})
    record = path.parent / "runs/small/base/0/run.json"
    told = json.loads(record.read_text())
    del told["params"]["train"]["patience"]
    record.write_text(json.dumps(told))
    found = look(path)
    assert found.learnt_from["runs"] == 2 and found.arms["base"].missing == ()


def test_runs_from_before_a_key_was_added_tell_where_it_says_what_they_did(study):
    path = study()
    runs(path, "base", {}, noises=(0.0,))
    for mark, leaves in ((Before(3), {"added": 3}), (Incidental(), {})):
        later = make_dataclass("Later", [("added", Annotated[int, mark])], bases=(Params,), frozen=True, kw_only=True)
        (found,) = read_recorded(path.parent / "runs", "small", "asl", later)
        assert found.parameters.leaves.items() >= leaves.items() and bool(found.parameters.leaves) == bool(leaves)


def test_runs_of_other_parameters_are_missing_and_are_named(study):
    """As submit leaves them alone: they are no result of what the study now says."""
    path = study()
    runs(path, "base", {})
    runs(path, "rate", {"train.optimizer.lr": 0.25}, noises=(0.0, 0.0))
    found = look(path)
    assert (found.arms["base"].missing, found.arms["rate"].missing, found.missing) == ((), (0, 1, 2), 6)
    assert found.changed[0] == "rate/0 with train.optimizer.lr=0.25 (now 0.5)" and len(found.changed) == 2
    assert found.learnt_from["runs"] == 5  # they tell what such runs take all the same


@pytest.fixture
def committed(monkeypatch):
    """A function that makes a run one of the last commit, so that its stages are in DVC's cache."""
    monkeypatch.setattr("assay.matrix.forecast.forecast._commit", lambda folder: "c0ffee")

    def commit(run: Path) -> None:
        told = json.loads((run / "run.json").read_text())
        (run / "run.json").write_text(json.dumps({**told, "commit": "c0ffee"}))

    return commit


def test_what_a_run_of_other_parameters_did_is_not_counted_as_done(study, committed):
    path = study(HEAD + "arms: {base: {reason: the reference}}\n")
    runs(path, "base", {"train.steps": 50}, noises=(0.0,))
    committed(path.parent / "runs/small/base/0")
    found = look(path)
    assert found.seconds.value == pytest.approx(3 * found.arms["base"].seconds.value)


def test_what_a_complete_run_left_for_others_is_what_it_ran_with(study, committed):
    """DVC's cache knows no key as incidental: data at another path are made anew."""
    path = study()
    runs(path, "base", {}, noises=(0.0,))
    committed(path.parent / "runs/small/base/0")
    known = look(path)
    path = study(HEAD.replace("train.steps: 100", "train.steps: 100, data.path: elsewhere") + ARMS)
    anew = look(path)
    assert known.missing == anew.missing == 8  # base/0 is complete
    simulate = anew.arms["base"].stages["simulate"].value
    assert anew.seconds.value == pytest.approx(known.seconds.value + simulate)


def test_a_run_that_was_moved_aside_is_none_of_the_study(study, committed):
    path = study()
    runs(path, "base", {}, noises=(0.0,))
    committed(path.parent / "runs/small/base/0")
    (path.parent / "runs/small/base/0").rename(path.parent / "runs/small/base/0.old")
    assert look(path).arms["base"].missing == (0, 1, 2)


def test_an_interrupted_run_tells_what_a_step_takes_and_not_what_the_stage_does(study):
    path = study()
    runs(path, "base", {}, noises=(0.0,))
    record = path.parent / "runs/small/base/0/attempts/0001.json"
    told = json.loads(record.read_text())
    told["code"], told["stages"] = 75, told["stages"][:2]
    told["stages"][1] |= {"code": 75}
    record.write_text(json.dumps(told))
    base = look(path).arms["base"]
    assert base.missing == (0, 1, 2) and base.stages["validate"] is None
    assert base.stages["simulate"].basis == "replicates" and base.stages["train"].basis == "same shape"


def test_a_stage_that_runs_share_is_counted_once(study):
    """Two arms of one seed have the same data; burgers' data do not even depend on the seed."""
    path = study()
    runs(path, "base", {}, noises=(0.0,))
    found = look(path)
    assert found.missing == 8  # base/0 is complete
    simulate = found.arms["base"].stages["simulate"].value
    separate = sum(len(arm.missing) * arm.seconds.value for arm in found.arms.values())
    # three data sets are made for eight runs; no commit is known, so that of the complete run is not counted upon
    assert found.seconds.value == pytest.approx(separate - 5 * simulate)


def test_the_plan_carries_it_all_as_json(study, capsys):
    path = study()
    runs(path, "base", {})
    assert main(["plan", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    base = found["arms"][0]["forecast"]
    assert base["stages"]["train"].keys() == {"value", "low", "high", "basis"} and base["jobs"] == 1
    assert found["forecast"]["learnt_from"]["runs"] == 3 and found["forecast"]["unknown"] == []


def test_hundreds_of_arms_with_records_are_forecast_in_time(study, capsys):
    rates = "".join(f"  arm{n}: {{reason: r, set: {{train.optimizer.lr: {1e-5 * (n + 1):g}}}}}\n" for n in range(200))
    path = study(HEAD + ARMS + rates)
    for n in range(40):
        runs(path, f"arm{n}", {"train.optimizer.lr": 1e-5 * (n + 1)})
    began = time.process_time()
    assert look(path).unknown == ()
    assert time.process_time() - began < 4  # benchmarks/forecast.py has the figures for a thousand
