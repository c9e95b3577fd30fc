"""A made-up study with a hostile log, reported once for every test that reads; a small one for tests that change it."""

import json
import random
import shutil
from pathlib import Path

import pytest
from tests.reports.records import HOSTILE, make_run, make_study

from assay.reports.report import Written, write


@pytest.fixture(scope="session")
def study(tmp_path_factory) -> Path:
    """Six arms x three seeds. arm-0003 failed with seed 1; its log, the notes and the study file say hostile things."""
    file = make_study(tmp_path_factory.mktemp("study"), 6, 3)
    runs = file.parent / "runs/made"
    for arm in ("arm-0003", "arm-0005"):
        shutil.rmtree(runs / arm)
    for seed in range(3):
        make_run(runs / f"arm-0003/{seed}", 3, "failed" if seed == 1 else "complete", random.Random(seed), [HOSTILE])
    text = file.read_text()
    for said in ("Which ingredient matters?", "A higher rate helps", "Rate 3."):
        text = text.replace(said, json.dumps(HOSTILE))
    file.write_text(text)
    notes = file.parent / "reports/made/notes.md"
    notes.parent.mkdir(parents=True)
    notes.write_text(f"## arm-0003\n{HOSTILE}\n")
    return file


@pytest.fixture(scope="session")
def written(study) -> Written:
    """Its report."""
    return write(study)


@pytest.fixture
def small(tmp_path) -> Path:
    return make_study(tmp_path / "small", 3, 2)
