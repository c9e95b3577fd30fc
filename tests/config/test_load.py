"""A parameter file becomes a typed config, or one line per mistake that says how to put it right."""

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.config import Bounds, Incidental, Problem, config_digest, json_schema, load, override, resolved
from assay.config.load import build, read
from assay.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network."""

    widths: Annotated[tuple[int, ...], Bounds(ge=1, items=1)]
    """Channels."""
    kind: Literal["plain", "fancy"]
    """Family."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)] | None
    """Probability; null for none."""

    def conflicts(self):
        if self.kind == "plain" and self.dropout is not None:
            yield Problem("dropout", str(self.dropout), "null with kind plain")


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study."""

    seed: Annotated[int, Bounds(ge=0)]
    """Replicate."""
    rate: Annotated[float, Bounds(gt=0)]
    """Learning rate."""
    span: tuple[float, float]
    """From, to."""
    folder: Annotated[str, Incidental()]
    """Where."""
    model: Model
    """The network."""


TEXT = """\
seed: 1
rate: 3e-3
span: [1, 2.5]
folder: here
model:
  widths: [8, 16]
  kind: plain
  dropout: null
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(TEXT)
    return path


def test_a_valid_file_becomes_a_frozen_typed_config(file):
    study = load(Study, file)
    assert study == Study(
        seed=1, rate=0.003, span=(1.0, 2.5), folder="here", model=Model(widths=(8, 16), kind="plain", dropout=None)
    )
    with pytest.raises(AttributeError):
        study.seed = 2


def test_the_resolved_config_has_every_field_and_loads_again(file):
    study = load(Study, file)
    plain = resolved(study)
    assert plain["model"] == {"widths": [8, 16], "kind": "plain", "dropout": None}
    assert build(Study, plain) == study


MISTAKES = {
    "model.widhts=[8]": r"widhts: got an unknown key; allowed: widths, kind, dropout; did you mean model\.widths\?",
    "zzz=1": r"zzz: got an unknown key; allowed: seed, rate, span, folder, model; remove zzz$",
    "seed=-1": r"seed: got -1; allowed: a whole number >= 0$",
    "seed=1.5": r"seed: got 1\.5; allowed: a whole number >= 0$",
    "seed=true": r"seed: got true; allowed: a whole number >= 0$",
    "seed=null": r"seed: got null; allowed: a whole number >= 0",
    "rate=fast": r"rate: got 'fast'; allowed: a number > 0$",
    "rate=.nan": r"rate: got nan; allowed: a number > 0$",
    "rate=.inf": r"rate: got inf; allowed: a number > 0$",
    "span=[1,2,3]": r"span: got \[1, 2, 3\]; allowed: a list of 2 numbers$",
    "model.widths=[]": r"model\.widths: got \[\]; allowed: a list of 1 or more whole numbers >= 1$",
    "model.widths=[8,0]": r"model\.widths: got \[8, 0\]; allowed: a list of 1 or more whole numbers >= 1$",
    "model.widths=[8,x]": r"model\.widths: got \[8, 'x'\]; allowed: a list of 1 or more whole numbers >= 1$",
    "model.kind=odd": r"model\.kind: got 'odd'; allowed: one of plain, fancy$",
    "model.dropout=maybe": r"model\.dropout: got 'maybe'; allowed: a number >= 0, < 1, or null$",
    "model.dropout=0.5": r"model\.dropout: got 0\.5; allowed: null with kind plain$",
    f"seed={10**400}": r"seed: got a whole number of 1329 bits; allowed: 63 bits at most; write more as 1e20$",
    f"seed={2**63}": r"seed: got a whole number of 64 bits; allowed: 63 bits at most; write more as 1e20$",
    f"seed='{10**40}'": r"seed: got 10+; allowed: a whole number >= 0$",
    f"rate={10**400}": r"rate: got a whole number of 1329 bits; allowed: 63 bits at most",
    f"rate='{10**400}'": r"got a number as text that is too large; write it as a number, with an exponent$",
    f"model.widths=[8,-{10**400}]": r"model\.widths\.1: got a whole number of 1329 bits; allowed: 63 bits at most",
    f"folder=0x{'f' * 6000}": r"folder: got a whole number of 24000 bits; allowed: 63 bits at most",
    "model=3": r"model: got 3; allowed: a section with widths, kind, dropout; indent its keys below it$",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_names_file_key_value_and_what_is_allowed(mistake, file):
    with pytest.raises(ConfigError, match=MISTAKES[mistake]) as caught:
        load(Study, file, [mistake])
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_key_is_named_with_what_it_may_hold(file):
    file.write_text(TEXT.replace("  kind: plain\n", "").replace("seed: 1\n", ""))
    with pytest.raises(ConfigError) as caught:
        load(Study, file)
    assert str(caught.value).splitlines() == [
        f"{file}: seed: got no such key; allowed: a whole number >= 0; add seed",
        f"{file}: model.kind: got no such key; allowed: one of plain, fancy; add model.kind",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("seed: [1", "not valid YAML"),
        (
            "seed: 1\nseed: 2\n",
            r'not valid YAML \(line 2: found duplicate key "seed"\); allowed: each key once; drop one$',
        ),
        ("- 1\n", "got list; allowed: a mapping of sections"),
        ("", "is empty; allowed: a mapping of sections; fill it, or give another file$"),
        ("# to do\n", "is empty; allowed: a mapping of sections"),
        ("seed: " + "[" * 2000, "not valid YAML"),
        ("model: &m {loop: *m}\n", r"model\.loop: got an alias of what it stands in; allowed: one of another value"),
        ("span: &s [1, *s]\n", r"span\.1: got an alias of what it stands in; .* write it out$"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(content, message, file):
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load(Study, file)


def test_a_missing_file_is_refused(tmp_path):
    missing = tmp_path / "none.yaml"
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file; give the path of a parameter file, .* --params$"):
        load(Study, missing)
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file; give the path of an existing file$"):
        read(missing)
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file; say which$"):
        read(missing, "say which")


def test_overrides_replace_leaves_and_leave_the_original_alone():
    data = {"a": {"b": 1, "c": 2}}
    assert override(data, ["a.b=3"]) == {"a": {"b": 3, "c": 2}}
    assert data == {"a": {"b": 1, "c": 2}}


def test_an_override_without_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"a\.b: got no value; allowed: dotted\.key=value"):
        override({}, ["a.b"])


@pytest.mark.parametrize("text", ["{a", "[" * 2000, "!!python/object:os.system a"])
def test_an_override_that_is_no_yaml_is_refused_with_its_key(text):
    with pytest.raises(ConfigError, match=r"^train\.steps: got '.*'; allowed: a YAML value; quote it$"):
        override({}, [f"train.steps={text}"])


def test_an_override_that_contains_itself_is_refused_with_its_key():
    with pytest.raises(ConfigError, match=r"^model\.loop: got an alias of what it stands in"):
        override({}, ["model=&m {loop: *m}"])


def test_one_anchor_may_stand_in_several_places():
    assert override({}, ["a=[&x [1, 2], *x, {b: *x}]"]) == {"a": [[1, 2], [1, 2], {"b": [1, 2]}]}


def test_an_override_below_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"seed\.x: got a key below a value"):
        override({"seed": 1}, ["seed.x=1"])


@given(seed=st.integers(0, 10**9), rate=st.floats(1e-9, 1e9), widths=st.lists(st.integers(1, 999), min_size=1))
def test_any_value_in_range_survives_a_round_trip(seed, rate, widths):
    model = {"widths": widths, "kind": "fancy", "dropout": 0.5}
    data = {"seed": seed, "rate": rate, "span": [0, 1], "folder": "x", "model": model}
    assert build(Study, resolved(build(Study, data))) == build(Study, data)


def test_identity_follows_what_matters_and_nothing_else(file):
    keys = ("seed", "rate", "folder", "model.widths")
    base = config_digest(load(Study, file), keys)
    assert config_digest(load(Study, file), keys) == base
    assert config_digest(load(Study, file, ["folder=elsewhere"]), keys) == base
    assert config_digest(load(Study, file, ["model.kind=fancy"]), keys) == base
    assert config_digest(load(Study, file, ["seed=2"]), keys) != base
    assert config_digest(load(Study, file, ["model.widths=[8]"]), keys) != base
    assert config_digest(load(Study, file), keys, data="other") != base


def test_identity_over_an_unknown_key_is_a_programming_error(file):
    with pytest.raises(KeyError, match="sed"):
        config_digest(load(Study, file), ("sed",))


def test_json_schema_carries_types_bounds_and_help():
    schema = json_schema(Study, "study")
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["seed", "rate", "span", "folder", "model"]
    assert schema["properties"]["rate"] == {"description": "Learning rate.", "type": "number", "exclusiveMinimum": 0}
    widths = schema["properties"]["model"]["properties"]["widths"]
    assert widths["items"] == {"type": "integer", "minimum": 1} and widths["minItems"] == 1
    dropout = schema["properties"]["model"]["properties"]["dropout"]["anyOf"]
    assert {"type": "null"} in dropout


@pytest.mark.parametrize("name", ["size", "nfiles"])
def test_a_parameter_that_dvcs_run_cache_does_not_see_is_refused(name):
    """It leaves such keys out when it looks for an earlier result, so a run of another size would get the wrong one."""
    from dvc.stage.cache import _get_cache_hash

    first, second = ({"cmd": "x", "params": {"params.yaml": {"data": {name: value}}}} for value in (16, 32))
    assert _get_cache_hash(first) == _get_cache_hash(second)
    config_class = make_dataclass("Params", [(name, int)], frozen=True, kw_only=True)
    with pytest.raises(ConfigError, match=rf"Params\.{name}: DVC's run cache sees no key of this name; .* rename it"):
        build(config_class, {name: 16})
