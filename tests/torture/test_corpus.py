"""Failures that really happened are diagnosed as a person who saw them would."""

import pytest
from tests.torture.corpus import FAILURES, Failure

pytestmark = pytest.mark.torture


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.name)
def test_the_diagnosis_is_the_label(supervised, failure: Failure):
    found = failure.make(supervised)
    assert (found.state, found.cause) == (failure.state, failure.cause), found
    assert found.evidence
    assert found.action.startswith(("assay exec --run ", "assay check "))


def test_there_are_enough_and_none_twice():
    assert len({failure.name for failure in FAILURES}) == len(FAILURES) >= 40
