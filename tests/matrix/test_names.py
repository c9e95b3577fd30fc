"""Names of clones and experiments are one run's alone: studies that would share one are refused."""

import shutil
from pathlib import Path

import pytest
from tests.matrix.toy import Repository

from assay.errors import ConfigError
from assay.matrix.submit import open_study, submit


def renamed(repository: Repository, folder: str, name: str, **arms: str) -> Path:
    """A study of another name in a folder of its own, with arms of other names."""
    other = repository.folder / folder
    other.mkdir()
    for file in ("study.yaml", "dvc.yaml", "params.yaml", "stage.py"):
        shutil.copy(repository.folder / file, other)
    study = other / "study.yaml"
    text = study.read_text().replace("name: toy", f"name: {name}")
    for old, new in arms.items():
        text = text.replace(old, new)
    study.write_text(text)
    repository.commit()
    return study


@pytest.mark.parametrize("first", ["long", "short"])
def test_two_runs_of_one_name_are_refused_whichever_study_comes_first(repository, scheduler, first):
    studies = {
        "long": renamed(repository, "one", "net-big", fast="lr"),
        "short": renamed(repository, "two", "net", fast="big-lr"),
    }
    submit(open_study(studies.pop(first), None), scheduler)
    (second,) = studies.values()
    with pytest.raises(ConfigError, match=r"got the name net-big-lr-s0, which .*/0 has too; allowed: one for each run"):
        open_study(second, None)


def test_a_name_that_begins_like_another_is_free_while_no_run_has_it(repository, scheduler):
    submit(open_study(renamed(repository, "one", "net-big"), None), scheduler)
    assert len(submit(open_study(renamed(repository, "two", "net"), None), scheduler)) == 6
