"""Values that need no parser: the config is the one that the parser would make, and so is every refusal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from assay.config import Bounds, Incidental, load
from assay.config.direct import construct
from assay.config.fields import leaves
from assay.config.load import assign, build, read
from assay.errors import ConfigError
from assay.studies import study_config, study_names

ROOT = Path(__file__).parents[2]
FILES = {path.parent.name: path for path in (ROOT / "studies").glob("*/params.yaml")} | {"asl": ROOT / "params.yaml"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One of several."""

    weight: float
    """Weight."""
    of: str | None
    """Parent."""


@dataclass(frozen=True, kw_only=True)
class Every:
    """A field of each kind that a config may have."""

    count: Annotated[int, Bounds(ge=1)]
    """Whole."""
    rate: Annotated[float, Bounds(gt=0)]
    """Number."""
    least: Annotated[float, Bounds(ge=0, lt=1)] | None
    """Number or null."""
    flag: bool | None
    """Switch or null."""
    kind: Literal["plain", "fancy"]
    """Choice."""
    place: Annotated[str, Incidental()] | None
    """Text or null."""
    versus: str | float
    """Text or number."""
    sizes: Annotated[tuple[int, ...], Bounds(ge=8, items=2)] | None
    """Whole numbers."""
    span: Annotated[tuple[float, float], Bounds(ge=0)]
    """Two numbers."""
    kinds: tuple[Literal["a", "b"], ...]
    """Choices."""
    weights: dict[str, float]
    """Numbers by name."""
    changes: dict[str, Any]
    """Anything by name."""
    patterns: tuple[dict[str, str], ...]
    """Texts by name."""
    axes: dict[str, dict[str, dict[str, Any]]]
    """Anything by names."""
    entries: dict[str, Entry]
    """Sections by name."""


VALID: dict[str, Any] = {
    "count": 1,
    "rate": 0.5,
    "least": None,
    "flag": True,
    "kind": "plain",
    "place": "here",
    "versus": "arm",
    "sizes": [8, 16],
    "span": [0, 1.5],
    "kinds": ["a"],
    "weights": {"x": 1},
    "changes": {"a.b": [1, "x"], "c": {"d": None}},
    "patterns": [{"x": "1"}],
    "axes": {"x": {"1": {"a.b": 2}}},
    "entries": {"one": {"weight": 1, "of": None}},
}
NUMERALS = ["1", "0.5", "1e-3", "null", "true", "[1, 2]", "{}", "07"]
ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 20),
    st.sampled_from([2**53, 2**53 + 1, 10**20, -(2**60)]),
    st.floats(-2, 2),
    st.sampled_from([float("nan"), float("inf"), 1e300, -0.0]),
    st.sampled_from(["plain", "a", "b", "x", "auto", *NUMERALS]),
)
VALUES = st.one_of(
    ATOMS,
    st.lists(ATOMS, max_size=3),
    st.dictionaries(st.sampled_from(["x", "y", "weight"]), ATOMS, max_size=2),
    st.lists(st.dictionaries(st.just("x"), ATOMS, max_size=1), max_size=2),
)
SLOW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


def verdict(config_class: type, data: dict[str, Any]) -> str:
    """The config with the types of its values, or the refusal."""
    try:
        return repr(build(config_class, data))
    except ConfigError as error:
        return f"refused: {error}"


def is_text_for_anything(changes: dict[str, Any]) -> bool:
    """A text that looks like something else, in a field that takes anything: there it stays a text."""
    return any(
        text in repr(changes[key]) for key in ("changes", "axes") if key in changes for text in map(repr, NUMERALS)
    )


def verdict_of_the_parser(config_class: type, data: dict[str, Any]) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(build.__globals__, "construct", lambda *_: None)
        return verdict(config_class, data)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(changes=st.dictionaries(st.sampled_from(sorted(VALID)), VALUES, min_size=1, max_size=2))
def test_the_verdict_on_any_values_is_the_parsers(changes):
    assume(not is_text_for_anything(changes))
    data = {**VALID, **changes}
    assert verdict(Every, data) == verdict_of_the_parser(Every, data)


@pytest.mark.parametrize("study", study_names())
def test_the_verdict_on_a_studys_parameters_is_the_parsers(study):
    params, data = study_config(study).Params, read(FILES[study])
    keys = [key for key, _, _ in leaves(load(params, FILES[study]))]

    @SLOW
    @given(changes=st.dictionaries(st.sampled_from(keys), VALUES, min_size=1, max_size=2))
    def check(changes):
        changed = assign(data, changes)
        assert verdict(params, changed) == verdict_of_the_parser(params, changed)

    check()


def test_plain_values_need_no_parser():
    assert construct(Every, VALID) is not None
    for study in study_names():
        assert construct(study_config(study).Params, read(FILES[study])) is not None


@pytest.mark.parametrize("change", [{"count": 1.0}, {"rate": "1"}, {"kind": "odd"}, {"span": [1]}, {"count": True}])
def test_the_parser_decides_about_any_other_value(change):
    assert construct(Every, {**VALID, **change}) is None


@pytest.mark.parametrize("rate", [0.5, "0.5"])
def test_a_text_stays_a_text_where_anything_is_allowed_whether_or_not_the_parser_is_needed(rate):
    found = build(Every, {**VALID, "rate": rate, "changes": {"a": "07", "b": "null"}})
    assert (found.rate, found.changes) == (0.5, {"a": "07", "b": "null"})
