"""An arm that is no better than an untrained network or a constant shows nothing."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from assay.matrix.cells import CellResult
from assay.matrix.verdicts.controls import failed_controls


def study(direction="min", null="null", constant=None) -> SimpleNamespace:
    return SimpleNamespace(
        metrics={"error": SimpleNamespace(direction=direction), "other": SimpleNamespace(direction="min")},
        controls=SimpleNamespace(null=null, constant=constant, classical="classical"),
    )


def cells(**values: float) -> list[CellResult]:
    """Two runs of one arm around the values given."""
    return [
        CellResult(
            arm="a", seed=s, folder=Path("x"), state="complete", metrics={k: v + s / 100 for k, v in values.items()}
        )
        for s in (0, 1)
    ]


@pytest.mark.parametrize(
    ("direction", "error", "null", "fails"),
    [("min", 1.0, 2.0, False), ("min", 2.0, 1.0, True), ("max", 1.0, 2.0, True), ("max", 2.0, 1.0, False)],
)
def test_an_arm_has_to_beat_its_untrained_network(direction, error, null, fails):
    found = failed_controls(study(direction), cells(error=error, null=null))
    assert found == ({"a": "no better than its own untrained network in error"} if fails else {})


def test_equal_to_the_control_is_not_better():
    assert "a" in failed_controls(study(), cells(error=1.0, null=1.0))


def test_a_constant_counts_too_and_a_classical_method_may_win():
    found = failed_controls(study(null=None, constant="constant"), cells(error=2.0, constant=1.0, classical=0.1))
    assert found == {"a": "no better than a constant in error"}
    assert failed_controls(study(null=None), cells(error=2.0, classical=0.1)) == {}


def test_a_seed_without_a_finite_number_says_nothing_of_the_others():
    diverged, *others = cells(error=1.0, null=2.0)
    found = [replace(diverged, metrics={"error": math.nan, "null": 2.0}), *others]
    assert failed_controls(study(), found) == {}


@pytest.mark.parametrize("null", [None, math.nan])
def test_a_control_that_is_named_and_not_there_is_an_objection(null):
    found = [
        replace(each, metrics={"error": 1.0} | ({} if null is None else {"null": null})) for each in cells(error=1.0)
    ]
    reason = failed_controls(study(), found)["a"]
    assert reason == "not compared with its own untrained network: complete runs have no number null, controls.null"


def test_without_numbers_nothing_is_said():
    assert failed_controls(study(), cells(other=1.0)) == {}
    assert failed_controls(SimpleNamespace(metrics={}), cells(error=1.0)) == {}
