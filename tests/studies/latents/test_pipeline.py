"""The latents study through DVC in its own folder, as its user types it, at a tiny size; and its verification."""

import json
import re

import pytest
from tests.studies.latents.conftest import TINY

from assay.studies.latents.config import STAGES

pytestmark = pytest.mark.pipeline


WHERE = "studies/latents"


@pytest.fixture(scope="module")
def project(make_project):
    """The project with tiny values in the study's params.yaml, run once."""
    project = make_project()
    settings = " ".join(f"-S '{override}'" for override in TINY)
    project.commit()
    said = project.give(f"dvc exp run {settings}", WHERE)
    assert ran(said) == list(STAGES)
    project.give("git add -A && git commit -q -m tiny")
    return project


def ran(said: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", said)


def test_a_second_repro_does_nothing(project):
    assert ran(project.give("dvc repro", WHERE)) == []


def test_training_is_repeatable_and_continues_bit_for_bit(project):
    """The four steps of the budget: twice, and once more with an interruption."""
    said = project.give("assay verify latents train --steps 4 --json", WHERE)
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert found["identical"] and found["steps"] == 4 and found["tensors"] > 10
