"""The summary of the study's runs: one record per run folder, never joined by position.

A published summary sorted its configurations, but not their metrics, and pasted the two side by side.
"""

import csv
import json
import random
import shutil
from pathlib import Path

import pytest
from tests.reports.records import make_run
from tests.studies.latents.conftest import PARAMS

from assay.reports.report import write

SIZES, SEEDS = (64, 128, 256, 512), (0, 1, 2)
STUDY = """\
name: made
question: Which latent size?
study: latents
pipeline: dvc.yaml
baseline: latent_64
seeds: [0, 1, 2]
metrics:
  validate/mse: {direction: min}
  validate/mse_validation: {direction: min}
arms:
"""
FAILED, UNFINISHED = ("latent_128", 1), ("latent_512", 2)


def error(arm: str, seed: int) -> float:
    """A validation error that tells arm and seed, in another order than their names."""
    return {"latent_64": 0.03, "latent_128": 0.01, "latent_256": 0.04, "latent_512": 0.02}[arm] + seed / 1000


@pytest.fixture
def found(tmp_path) -> Path:
    """The folder of a report on runs whose folders were made in any order."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(PARAMS.parent / name, tmp_path / name)
    arms = "".join(f"  latent_{n}: {{reason: Size., set: {{model.latent_dim: {n}}}}}\n" for n in SIZES)
    (tmp_path / "study.yaml").write_text(STUDY + arms)
    runs = [(f"latent_{size}", seed) for size in SIZES for seed in SEEDS]
    chance = random.Random(1)
    chance.shuffle(runs)
    for arm, seed in runs:
        outcome = {FAILED: "failed", UNFINISHED: "partial"}.get((arm, seed), "complete")
        folder = tmp_path / f"runs/made/{arm}/{seed}"
        make_run(folder, 0, outcome, chance)
        if outcome == "complete":
            values = {"validate/mse": 2 * error(arm, seed), "validate/mse_validation": error(arm, seed)}
            (folder / "metrics.json").write_text(json.dumps(values))
    return write(tmp_path / "study.yaml").folder


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_every_run_has_its_own_numbers_and_those_without_have_none(found):
    table = rows(found / "runs.csv")
    assert len(table) == len(SIZES) * len(SEEDS)
    for row in table:
        place = (row["arm"], int(row["seed"]))
        assert row["run"].endswith(f"{row['arm']}/{row['seed']}")
        if place in (FAILED, UNFINISHED):
            assert row["state"] != "complete" and row["validate/mse"] == row["validate/mse_validation"] == ""
        else:
            assert float(row["validate/mse_validation"]) == error(*place)
            assert float(row["validate/mse"]) == 2 * error(*place)


def test_arms_show_what_was_swept_and_a_missing_seed_shifts_nothing(found):
    for row in rows(found / "arms.csv"):
        size = row["arm"].removeprefix("latent_")
        assert row["differences"] == ("" if size == "64" else f"model.latent_dim={size}")
        own = [error(row["arm"], seed) for seed in SEEDS if (row["arm"], seed) not in (FAILED, UNFINISHED)]
        assert float(row["validate/mse_validation"]) == pytest.approx(sum(own) / len(own))
        assert int(row["validate/mse_validation:n"]) == len(own)


def test_the_leaderboard_is_sorted_by_validation_error(found):
    board = [row for row in rows(found.parent / "leaderboard.csv") if row["metric"] == "validate/mse_validation"]
    assert [row["arm"] for row in board] == ["latent_128", "latent_512", "latent_64", "latent_256"]
