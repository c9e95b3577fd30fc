"""Arms become overrides, overrides become parameters: what extends, what a matrix makes, who equals whom."""

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from assay.config import config_digest
from assay.config.load import assign, build, read
from assay.errors import ConfigError
from assay.matrix.arms import Resolved, resolve
from assay.matrix.grammar import as_dvc
from assay.studies import study_config

ROOT = Path(__file__).parents[2]
HEAD: dict[str, Any] = {
    "name": "small",
    "question": "Does it matter?",
    "study": "asl",
    "pipeline": "dvc.yaml",
    "baseline": "plain",
    "seeds": [0, 1],
}
AXES = {
    "width": {"narrow": {"model.hidden_sizes": [8, 16]}, "wide": {"model.hidden_sizes": [32, 64]}},
    "batch": {"4": {"train.batch_size": 4}, "12": {}, "20": {"train.batch_size": 20}},
}
MATRIX = {"reason": "{width} at {batch}", "name": "{width}_{batch}", "axes": AXES}


@pytest.fixture
def make(tmp_path):
    """Resolve a study with these keys."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)

    def make(only: str | None = None, **keys: Any) -> Resolved:
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**HEAD, "arms": {"plain": {"reason": "r"}}, **keys}, sort_keys=False))
        return resolve(path, only)

    return make


def arm(reason: str = "r", extends: str | None = None, **changes: Any) -> dict[str, Any]:
    return {"reason": reason, "extends": extends, "set": {key.replace("__", "."): changes[key] for key in changes}}


def test_an_arm_has_the_overrides_of_the_study_of_those_it_extends_and_its_own_the_last_one_winning(make):
    arms = {
        "grandchild": arm(extends="child", train__steps=30),
        "child": arm(extends="plain", train__steps=20, train__batch_size=4),
        "plain": arm(train__batch_size=8),
    }
    found = make(base={"train.steps": 10, "loss.kind": "l2"}, arms=arms).arms
    assert list(found) == ["grandchild", "child", "plain"]
    assert found["grandchild"].overrides == {"train.steps": 30, "train.batch_size": 4, "loss.kind": "l2"}
    assert found["plain"].overrides == {"train.steps": 10, "train.batch_size": 8, "loss.kind": "l2"}
    assert (found["grandchild"].params.train.steps, found["grandchild"].params.train.batch_size) == (30, 4)


def test_a_mapping_replaces_what_lies_below_it_and_a_key_below_changes_it(make):
    optimizer = {"name": "sgd", "lr": 0.1, "weight_decay": 0, "betas": None, "momentum": 0.9}
    arms = {
        "plain": arm(**{"train.optimizer.lr": 0.5}),
        "sgd": arm(extends="plain", **{"train.optimizer": optimizer}),
        "slow": arm(extends="sgd", **{"train.optimizer.lr": 0.01}),
    }
    found = make(arms=arms).arms
    assert found["sgd"].params.train.optimizer.lr == 0.1
    assert found["slow"].params.train.optimizer.lr == 0.01 and found["slow"].params.train.optimizer.name == "sgd"


def test_differences_are_the_leaves_in_which_an_arm_leaves_the_baseline(make):
    found = make(arms={"plain": arm(train__steps=10), "other": arm(train__batch_size=4)}).arms
    assert found["plain"].differences == {}
    assert found["other"].differences == {"train.steps": 700, "train.batch_size": 4}


def test_an_identity_is_the_digest_of_the_parameters_of_its_seed(make):
    found = make().arms["plain"]
    keys = sorted({key for stage in study_config("asl").STAGES.values() for key in stage} - {"predict"})
    for seed in (0, 1):
        assert found.identities[seed] == config_digest(dataclasses.replace(found.params, seed=seed), keys)
    assert found.identities[0] != found.identities[1]


def test_an_arm_that_repeats_an_earlier_one_is_merged_with_it(make):
    arms = {"plain": arm(), "a": arm(train__steps=9), "b": arm(train__steps=9, train__log_every=3)}
    found = make(arms=arms)
    assert {name: each.same_as for name, each in found.arms.items()} == {"plain": None, "a": None, "b": "a"}
    assert len(found.identities) == 4


def test_a_matrix_makes_an_arm_of_each_combination_before_the_named_ones(make):
    found = make(matrix=MATRIX, baseline="wide_12", arms={"long": arm(extends="wide_20", train__steps=999)})
    names = [f"{width}_{batch}" for width in ("narrow", "wide") for batch in ("4", "12", "20")]
    assert list(found.arms) == [*names, "long"]
    assert found.arms["narrow_20"].reason == "narrow at 20"
    assert found.arms["narrow_20"].overrides == {"model.hidden_sizes": [8, 16], "train.batch_size": 20}
    assert found.arms["long"].params.train.batch_size == 20 and found.arms["long"].params.train.steps == 999


def test_combinations_can_be_left_out(make):
    matrix = {**MATRIX, "exclude": [{"width": "narrow", "batch": "4"}, {"batch": "20"}]}
    assert list(make(matrix=matrix, baseline="wide_4", arms={}).arms) == ["narrow_12", "wide_4", "wide_12"]


MATRICES = {
    "one name twice": ({"name": "{width}"}, "matrix.name: got {width}; allowed: a name for each; it makes narrow more"),
    "no axis of that name": (
        {"name": "{width}_{size}"},
        "matrix.name: got {width}_{size}; allowed: text with {width},",
    ),
    "format": (
        {"name": "{width:>9}_{batch}"},
        "matrix.name: got {width:>9}_{batch}; allowed: text with {width}, {batch}",
    ),
    "brace": ({"name": "{width"}, "matrix.name: got {width; allowed: text with {width}, {batch}; write {{ and }}"),
    "no reason": ({"reason": ""}, "matrix.reason: got no text; allowed: text with {width}, {batch}"),
    "excludes nothing": (
        {"exclude": [{"batch": "5"}]},
        "matrix.exclude.0: got batch: 5; allowed: a combination that is there; it leaves nothing out; drop it",
    ),
    "excludes again": (
        {"exclude": [{"batch": "4"}, {"width": "wide", "batch": "4"}]},
        "matrix.exclude.1: got width: wide, batch: 4; allowed: a combination that is there; it leaves nothing out",
    ),
    "excludes all": (
        {"exclude": [{"width": "wide"}, {"width": "narrow"}]},
        "matrix.exclude: got every combination; allowed: some that stay",
    ),
    "unknown axis": (
        {"exclude": [{"bach": "4"}]},
        "matrix.exclude.0.bach: got an unknown axis; allowed: one of width, batch; did you mean batch?",
    ),
    "two axes, one key": (
        {"axes": {**AXES, "batch": {"4": {"model.hidden_sizes": [8, 8]}}}},
        "matrix.axes.batch: got model.hidden_sizes; allowed: keys that axis width leaves alone; set it on one axis",
    ),
    "number for a name": (
        {"axes": {**AXES, "batch": {4: {"train.batch_size": 4}}}},
        "matrix.axes: got batch.4; allowed: text as the name of a value; put the name in quotes",
    ),
    "number for an axis": (
        {"axes": {0: {"4": {"train.batch_size": 4}, "12": {}}}, "name": "{0}", "reason": "r"},
        "matrix.axes: got 0; allowed: text without {}[]:! as the name of an axis; rename it, or put a number in quotes",
    ),
    "axis that no template can name": (
        {"axes": {"a:b": {"4": {"train.batch_size": 4}, "12": {}}}, "name": "{a:b}", "reason": "r"},
        "matrix.axes: got a:b; allowed: text without {}[]:! as the name of an axis; rename it, or",
    ),
    "axis without values": ({"axes": {**AXES, "batch": {}}}, "matrix.axes.batch: got no values; allowed: one or more"),
    "no axes": ({"axes": {}}, "matrix.axes: got none; allowed: one or more axes; write matrix: null for no matrix"),
    "missing key": (
        {"axes": {**AXES, "batch": {"4": {"train.bach_size": 4}}}},
        "matrix.axes.batch.4: train.bach_size: got an unknown key; allowed: one of train.",
    ),
    "name of an arm": ({"name": "plain{width}{batch}"}, "arms.plainwide4: got a name that the matrix makes too"),
}


def test_the_name_of_an_axis_may_be_a_dotted_key_or_a_number_in_quotes(make):
    axes = {"train.batch_size": {"4": {"train.batch_size": 4}, "12": {}}, "0": {"short": {"train.steps": 9}}}
    matrix = {"reason": "{0} {{in}} {train.batch_size}s", "name": "b{train.batch_size}_{0}", "axes": axes}
    found = make(matrix=matrix, baseline="b12_short", arms={}).arms
    assert {name: each.reason for name, each in found.items()} == {
        "b4_short": "short {in} 4s",
        "b12_short": "short {in} 12s",
    }


@pytest.mark.parametrize("case", MATRICES)
def test_a_matrix_that_contradicts_itself_is_refused(case, make):
    changes, message = MATRICES[case]
    arms = {"plain": arm(), **({"plainwide4": arm()} if case == "name of an arm" else {})}
    with pytest.raises(ConfigError) as caught:
        make(matrix={**MATRIX, **changes}, arms=arms)
    assert message in str(caught.value)


def test_only_arms_whose_names_match_are_kept(make):
    found = make("narrow_*", matrix=MATRIX)
    assert list(found.arms) == ["narrow_4", "narrow_12", "narrow_20"]
    with pytest.raises(
        ConfigError, match=r"--only: got norrow; allowed: a pattern that matches one of narrow_4, .*did"
    ):
        make("norrow", matrix=MATRIX)


def test_what_is_wrong_with_an_arm_that_is_not_asked_for_is_refused_too(make):
    with pytest.raises(ConfigError, match=r"arms\.other: train\.steps: got 0"):
        make("plain", arms={"plain": arm(), "other": arm(train__steps=0)})


def test_a_thousand_arms_of_five_seeds_take_less_than_three_seconds(make):
    widths = {str(n): {"model.hidden_sizes": [8, 8 * n]} for n in range(1, 26)}
    rates = {str(n): {"train.optimizer.lr": 1e-4 * n} for n in range(1, 41)}
    matrix = {"reason": "{width} {rate}", "name": "w{width}_r{rate}", "axes": {"width": widths, "rate": rates}}
    begun = time.process_time()
    found = make(seeds=[0, 1, 2, 3, 4], matrix=matrix)
    assert time.process_time() - begun < 3
    assert len(found.arms) == 1001 and len(found.identities) == 5005


VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**9), 10**9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text("ab1.-' \\\"#:,{}[]()=~%@e$\n", max_size=8),
        st.sampled_from(["null", "1e-3", "yes", "${data.path}", "ä"]),
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@example(value=["${data.path}", "\\${a}$'"], weights={})
@given(value=VALUES, weights=st.dictionaries(st.sampled_from(["mass", "energy"]), st.integers(0, 9), max_size=2))
def test_dvc_understands_the_overrides_as_they_are_meant(value, weights, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: 0\nloss:\n  kind: l1\n  reward:\n    residual: 1\n")
    overrides = {"loss.kind": value, "loss.reward": weights, "seed": 3}
    apply_overrides(path, as_dvc(overrides))
    assert read(path) == {"seed": 3, "loss": {"kind": value, "reward": weights}}


@pytest.mark.parametrize(
    ("folder", "name"),
    [(".", "20_combination"), (".", "00_baseline"), ("studies/burgers", "search_invariants")],
)
def test_dvc_makes_of_a_committed_arm_the_parameters_that_were_checked(folder, name, tmp_path):
    found, params = resolve(ROOT / folder / "study.yaml").arms[name], tmp_path / "params.yaml"
    shutil.copy(ROOT / folder / "params.yaml", params)
    apply_overrides(params, as_dvc({**found.overrides, "seed": 4}))
    assert build(type(found.params), read(params)) == dataclasses.replace(found.params, seed=4)
    data = assign(read(ROOT / folder / "params.yaml"), {**found.overrides, "seed": 4})
    assert read(params) == data
