"""The organelles study through DVC in its own folder, as its user types it, at a tiny size."""

import json
import re

import pytest
from tests.studies.organelles.conftest import TINY

pytestmark = pytest.mark.pipeline


WHERE = "studies/organelles"


@pytest.fixture(scope="module")
def project(make_project):
    """The project with tiny values in the study's params.yaml, run once."""
    project = make_project()
    settings = " ".join(f"-S '{override}'" for override in TINY)
    project.commit()
    said = project.give(f"dvc exp run {settings}", WHERE)
    assert ran(said) == ["simulate", "train", "validate"]
    project.give("git add -A && git commit -q -m tiny")
    return project


def ran(said: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", said)


def test_a_second_repro_does_nothing(project):
    assert ran(project.give("dvc repro", WHERE)) == []


def test_another_sign_of_the_prior_trains_again_on_the_same_crops_and_is_compared(project):
    said = project.give("dvc exp run -n subtract -S loss.adjust=subtract", WHERE)
    assert ran(said) == ["train", "validate"]
    (baseline,) = json.loads(project.give("dvc exp show --json", WHERE))[1:]
    (experiment,) = (item["revs"][0]["data"] for item in baseline["experiments"] if item["name"] == "subtract")
    assert experiment["params"][f"{WHERE}/params.yaml"]["data"]["loss"]["adjust"] == "subtract"
    assert "dice" in experiment["metrics"][f"{WHERE}/results/validate/metrics.json"]["data"]
