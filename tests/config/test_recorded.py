"""What another version recorded, with the keys of now: an added one had a value, an incidental one decides nothing."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from assay.config import Before, Bounds, Incidental, json_schema
from assay.config.fields import describe, fields_of
from assay.config.load import build
from assay.config.recorded import completed, deciding_part
from assay.config.schema import key_help
from assay.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Later:
    """A section that a later version added, whose entries it has elsewhere, too."""

    rate: Annotated[float, Bounds(ge=0), Before(0.5)] | None
    """Rate."""
    sizes: Annotated[tuple[int, ...], Before((1, 2))]
    """Sizes."""
    folder: Annotated[str, Incidental()]
    """Where."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters."""

    steps: int
    """Steps."""
    limit: Annotated[int, Before(None)] | None
    """Limit."""
    later: Later
    """A section."""
    named: dict[str, Later]
    """Sections by name."""


def test_a_key_that_a_record_lacks_has_the_value_that_runs_had_before_it():
    found = completed(Params, {"named": {"a": {"rate": 2.0}}})
    assert found == {
        "limit": None,
        "later": {"rate": 0.5, "sizes": (1, 2)},
        "named": {"a": {"rate": 2.0, "sizes": (1, 2)}},
    }


@pytest.mark.parametrize(
    "told", [{"later": None}, {"later": {"rate": None, "sizes": [3]}}, {"named": None}, {"named": {"a": 3}}]
)
def test_what_a_record_says_stays_null_and_what_is_no_section_too(told):
    assert completed(Params, told).items() >= told.items()


def test_what_the_config_does_not_know_stays_and_what_is_given_is_not_changed():
    given = {"gone": {"a": 1}, "later": {"gone": 2}}
    found = completed(Params, given)
    assert (found["gone"], found["later"]["gone"]) == ({"a": 1}, 2)
    assert given == {"gone": {"a": 1}, "later": {"gone": 2}}


def test_incidental_keys_are_no_part_of_what_decides_wherever_they_stand():
    given = {"steps": 1, "later": {"rate": 1.0, "folder": "x"}, "named": {"a": {"folder": "x"}}, "folder": "unknown"}
    assert deciding_part(Params, given) == {
        "steps": 1,
        "later": {"rate": 1.0},
        "named": {"a": {}},
        "folder": "unknown",
    }


def test_a_parameter_file_has_to_have_the_key_all_the_same():
    given: dict[str, Any] = {"steps": 1, "later": {"rate": 1.0, "sizes": [1], "folder": "x"}, "named": {}}
    with pytest.raises(ConfigError, match=r"^limit: got no such key; allowed: a whole number, or null; add limit$"):
        build(Params, given)


def test_the_schema_and_the_words_about_a_key_are_the_same_with_and_without_the_mark():
    rate = json_schema(Params, "params")["properties"]["later"]["properties"]["rate"]
    assert rate == {"description": "Rate.", "anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]}
    assert describe(fields_of(Later)["rate"]) == "a number >= 0, or null"
    assert next(key_help(Later)) == ("rate", "a number >= 0, or null", "Rate.")
