"""The burgers study through DVC in its own folder, as its user types it, at a tiny size."""

import json
import re

import pytest
from tests.studies.burgers.conftest import TINY

from assay.studies.burgers.config import STAGES

pytestmark = pytest.mark.pipeline


WHERE = "studies/burgers"
AFTER_A_NEW_MODEL = [name for name in STAGES if name not in ("simulate", "fno")]


@pytest.fixture(scope="module")
def project(make_project):
    """The project with tiny values in the study's params.yaml, run once."""
    project = make_project()
    settings = " ".join(f"-S '{override}'" for override in TINY)
    project.commit()
    said = project.give(f"dvc exp run {settings}", WHERE)
    assert sorted(ran(said)) == sorted(STAGES)  # DVC may take independent stages in any order
    project.give("git add -A && git commit -q -m tiny")
    return project


def ran(said: str) -> list[str]:
    return re.findall(r"Running stage '(\w+)'", said)


def test_a_second_repro_does_nothing(project):
    assert ran(project.give("dvc repro", WHERE)) == []


def test_the_users_own_line_and_the_comparison(project):
    """Other tokens need another autoencoder, but neither other data nor another baseline."""
    said = project.give("dvc exp run -n coarse -S model.tokens=4", WHERE)
    assert sorted(ran(said)) == sorted(AFTER_A_NEW_MODEL)
    (baseline,) = json.loads(project.give("dvc exp show --json", WHERE))[1:]
    (experiment,) = (item["revs"][0]["data"] for item in baseline["experiments"] or [] if item["name"] == "coarse")
    assert experiment["params"][f"{WHERE}/params.yaml"]["data"]["model"]["tokens"] == 4
    metrics = experiment["metrics"]
    for stage in ("validate", "search"):
        assert metrics[f"{WHERE}/results/{stage}/metrics.json"]["data"][
            "rollout_nrmse" if stage == "validate" else "reward"
        ]


def test_another_reward_searches_again_and_trains_nothing(project):
    assert ran(project.give("dvc exp run -S search.reward.residual=2", WHERE)) == ["search"]
