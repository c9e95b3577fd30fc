"""What tests of studies begin with: a repository with a small one, a scheduler that only takes notes, a study file."""

from pathlib import Path

import pytest
from tests.matrix.study_file import placed
from tests.matrix.toy import Commanded, Repository


@pytest.fixture
def repository(tmp_path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def scheduler() -> Commanded:
    return Commanded()


@pytest.fixture
def file(tmp_path) -> Path:
    return placed(tmp_path)
