"""Arms that change nothing, and arms that were given more."""

import json
from types import SimpleNamespace

import pytest

from assay.matrix.cells import CellResult
from assay.matrix.verdicts.parity import budgets, inert, unequal, unreadable

TRACE = "step\tloss\n10\t0.5\n20\t{}\n"


def arm(*keys: str, same_as: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(differences=dict.fromkeys(keys, 1), same_as=same_as)


ARMS = {"base": arm(), "other": arm("model.width")}


@pytest.fixture
def make_cell(tmp_path):
    """A run of an arm, complete by default, with one training stage."""

    def make(name="base", seed=0, *, loss=0.25, metric=1.0, steps=100, **facts) -> CellResult:
        folder = tmp_path / name / str(seed)
        log = folder / "results/train/log/live/plots/metrics/train"
        log.mkdir(parents=True)
        (log / "loss.tsv").write_text(TRACE.format(loss))
        (folder / "results/train/metrics.json").write_text(json.dumps({"steps": steps, "samples": 4 * steps}))
        return CellResult(
            arm=name, seed=seed, folder=folder, metrics={"m": metric}, **{"state": "complete", "wall_s": 50.0} | facts
        )

    return make


def test_an_arm_with_the_losses_and_metrics_of_the_baseline_is_inert(make_cell):
    cells = [make_cell(name, seed, loss=0.25 + seed) for name in ARMS for seed in (0, 1)]
    found = inert(ARMS, "base", cells)
    assert found == {"other": "inert: losses and metrics equal those of base to the last digit at seed 0, 1"}


@pytest.mark.parametrize("changed", [{"loss": 0.2500001}, {"metric": 1.0000001}, {"state": "failed"}])
def test_one_digit_of_one_seed_is_a_difference_and_a_failed_run_says_nothing(make_cell, changed):
    """An arm about the evaluation alone has the same losses and other metrics."""
    cells = [make_cell("base", 0), make_cell("other", 0, **changed)]
    assert inert(ARMS, "base", cells) == {}


def test_seeds_that_only_one_of_them_has_are_not_compared(make_cell):
    assert inert(ARMS, "base", [make_cell("base", 0), make_cell("other", 1)]) == {}


def test_a_run_without_losses_is_not_called_inert(make_cell):
    cells = [make_cell(name) for name in ARMS]
    for cell in cells:
        next(cell.folder.rglob("loss.tsv")).unlink()
    assert inert(ARMS, "base", cells) == {}


def test_an_arm_known_to_repeat_another_is_not_named_again(make_cell):
    cells = [make_cell(name) for name in ARMS]
    assert inert({"base": arm(), "other": arm("model.width", same_as="base")}, "base", cells) == {}


def test_unequal_budgets_are_listed_unless_the_arm_is_about_that(make_cell):
    cells = [make_cell(), make_cell("other", steps=200, wall_s=90.0)]
    assert unequal(ARMS, "base", cells) == [
        "other: train/samples 800, of base 400; allowed: 5 % apart, unless the arm is about its budget",
        "other: train/steps 200, of base 100; allowed: 5 % apart, unless the arm is about its budget",
        "other: wall seconds 90, of base 50; allowed: 25 % apart, unless the arm is about its budget",
    ]
    assert unequal({"base": arm(), "other": arm("train.steps")}, "base", cells) == []


def test_small_differences_of_time_are_the_machines(make_cell):
    cells = [make_cell(), make_cell("other", steps=104, wall_s=60.0)]
    assert unequal(ARMS, "base", cells) == []


def test_a_run_whose_training_was_found_in_the_cache_has_spent_no_time_that_could_be_compared(make_cell):
    whole, cached = {"seconds": {"train": 40.0, "validate": 9.0}}, {"seconds": {"validate": 9.0}}
    cells = [make_cell("base", 0, **whole), make_cell("base", 1, **cached, wall_s=10.0)]
    assert unequal(ARMS, "base", [*cells, make_cell("other", 0, **cached, wall_s=10.0)]) == []
    (line,) = unequal(ARMS, "base", [*cells, make_cell("other", 1, **whole, wall_s=90.0)])
    assert line.startswith("other: wall seconds 90, of base 50;")


def test_means_are_over_complete_runs(make_cell):
    cells = [make_cell(), make_cell("other", 0, wall_s=40), make_cell("other", 1, wall_s=60)]
    assert unequal(ARMS, "base", [*cells, make_cell("other", 2, steps=1, state="failed")]) == []


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_a_metrics_file_that_says_nothing_is_named_and_its_budget_not_compared(make_cell, text):
    cell = make_cell()
    path = cell.folder / "results/train/metrics.json"
    path.write_text(text)
    assert budgets(cell).keys() == {"wall seconds"}
    assert unreadable([cell]) == [f"{path}: no JSON object, so that this run's budget is not compared"]
