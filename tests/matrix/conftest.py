"""What tests of submitting begin with: a repository with a small study, and a scheduler that only takes notes."""

import pytest
from tests.matrix.toy import Commanded, Repository


@pytest.fixture
def repository(tmp_path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def scheduler() -> Commanded:
    return Commanded()
