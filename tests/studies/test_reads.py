"""Every leaf of a study's parameters is read, by the stages that declare it and by no other.

What is read and not declared leaves stale results; what is declared and not read runs a stage again for nothing.
"""

import importlib
from typing import NamedTuple

import pytest
from tests.contracts.reads import PLATEAU, SGD, Reads, incidental, not_below
from tests.contracts.test_pipeline import stages
from tests.studies.organelles.conftest import SLOTS
from tests.studies.scanlines.conftest import ARCHITECTURES, choose

from assay.config import load
from assay.config.fields import leaves
from assay.studies import study_config
from assay.studies.latents.sections import SPLITS

pytestmark = pytest.mark.pipeline

RARE = [*SGD, *PLATEAU, "steps=null", "epochs=1"]


class Case(NamedTuple):
    """Runs of a study that together read all."""

    runs: list[list[str]]
    """The overrides of each."""
    elsewhere: set[str]
    """Leaves that only data or a library from elsewhere needs: read where that is tested."""
    noted: frozenset[str] = frozenset()
    """Leaves that simulate only writes down, so that the other stages can refuse data of other parameters."""
    trained: tuple[str, ...] = ("train",)
    """Sections that say how to train."""


CASES = {
    "burgers": Case(
        runs=[[], ["loss.kind=relative"]],
        elsewhere={"data.old_version"},
        trained=("autoencoder.train", "train", "corrector.train", "distillation.train"),
    ),
    "latents": Case(
        runs=[[], ["loss.unconnected_weight=1", "loss.unconnected_neurons=3"]],
        elsewhere={"data.column"},
        noted=frozenset({"data.source", *(f"data.{split}" for split in SPLITS)}),
    ),
    "scanlines": Case(
        runs=[choose(architecture) for architecture in ARCHITECTURES],
        elsewhere={"data.file", "data.groups", "data.transpose", "model.library_name"},
        noted=frozenset({"data.merge"}),
    ),
    "organelles": Case(
        runs=[
            [],
            SLOTS["vit_2d"],
            ["loss.focal=1", "loss.class_weights=effective", "loss.effective_beta=0.9"],
            ["loss.class_weights=manual", "loss.manual_weights=[2,1,1,1,1,1,1,1,1,1,1,1,1,1]"],
        ],
        elsewhere={"data.context", "data.faulty", "data.largest", "data.voxel_nm"},
    ),
}


@pytest.mark.parametrize("study", CASES)
def test_every_leaf_is_read_by_the_stages_that_declare_it_and_by_no_other(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config, case = study_config(study), CASES[study]
    tiny = importlib.import_module(f"tests.studies.{study}.conftest")
    reads = Reads(config.Params, monkeypatch)
    declared = {stage: config.STAGES[stage] for stage in stages(study)}
    read_by: dict[str, set[str]] = {stage: set() for stage in declared}
    rare = [f"{section}.{each}" for section in case.trained for each in RARE]
    for overrides in (*case.runs, rare):
        params = load(config.Params, tiny.PARAMS, [*tiny.TINY, *overrides])
        for stage in declared:
            read = reads.of(stage, study, params)
            assert not_below(read - incidental(params), declared[stage]) == set(), f"{stage} with {overrides}"
            read_by[stage] |= read
    every_leaf = {key for key, _, _ in leaves(params)}
    for stage, read in read_by.items():
        unread = every_leaf - incidental(params) - case.elsewhere - read
        unread = unread - case.noted if stage == "simulate" else not_below(unread, ("data",))
        assert unread == not_below(unread, declared[stage]), f"{stage} would run again for nothing"
