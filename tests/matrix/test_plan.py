"""A study file: every arm resolved and validated at once, differences and duplicates shown."""

import json
from pathlib import Path

import pytest

from assay.__main__ import main
from assay.errors import ConfigError
from assay.matrix.plan import plan

ROOT = Path(__file__).parents[2]


@pytest.fixture
def study(tmp_path) -> Path:
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    path = tmp_path / "study.yaml"
    path.write_text(
        """\
name: small
question: Does it matter?
study: asl
params: params.yaml
baseline: base
seeds: [0, 1]
base: {train.steps: 50}
hypotheses: {}
arms:
  base: {reason: the reference, set: {}}
  wide: {reason: more channels, set: {model.hidden_sizes: [32, 64]}}
  same: {reason: nothing new, set: {train.log_every: 7}}
"""
    )
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_arms_show_their_differences_from_the_baseline(study):
    arms = {arm.name: arm for arm in plan(study)}
    assert arms["base"].differences == {}
    assert arms["wide"].differences == {"model.hidden_sizes": [32, 64]}
    assert "50 steps" in arms["wide"].runs
    assert list(arms["wide"].identities) == [0, 1] and len(set(arms["wide"].identities.values())) == 2


def test_an_arm_that_changes_nothing_that_matters_is_named(study):
    arms = {arm.name: arm for arm in plan(study)}
    assert arms["same"].same_as == "base" and arms["wide"].same_as is None


def test_every_wrong_value_of_every_arm_is_listed_at_once(study):
    edit(study, "more channels, set: {model.hidden_sizes: [32, 64]}", "more channels, set: {model.hiden_sizes: [32]}")
    edit(study, "nothing new, set: {train.log_every: 7}", "nothing new, set: {train.log_every: 0}")
    with pytest.raises(ConfigError) as caught:
        plan(study)
    lines = str(caught.value).splitlines()
    assert "arms.wide: model.hiden_sizes: got an unknown key" in lines[0] and "did you mean" in lines[0]
    assert "arms.same: train.log_every: got 0; allowed: a whole number >= 1" in lines[1]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("baseline: base", "baseline: bass", r"baseline: got bass; allowed: one of base, wide, same"),
        ("study: asl", "study: als", r"study: got als; allowed: one of asl"),
        ("reason: more", "raeson: more", r"arms\.wide\.raeson: got an unknown key.*did you mean arms\.wide\.reason\?"),
        ("seeds: [0, 1]", "seeds: [0, 0]", r"seeds: got \[0, 0\]; allowed: different numbers"),
        ("set: {}}", "set: {seed: 7}}", r"arms\.base\.set\.seed: got 7; allowed: no seed; list it under seeds"),
        ("seeds: [0, 1]", "seeds: []", r"seeds: got \[\]; allowed: a list of 1 or more whole numbers >= 0"),
        ("  base: {reason: the reference, set: {}}\n", "  base: 3\n", r"arms\.base: got 3; allowed: a section with"),
    ],
)
def test_a_wrong_study_file_is_refused_with_the_key(old, new, message, study):
    edit(study, old, new)
    with pytest.raises(ConfigError, match=message):
        plan(study)


def test_the_committed_study_is_valid_and_its_duplicate_is_found(capsys):
    assert main(["plan", str(ROOT / "study.yaml"), "--json"]) == 0
    arms = {arm["name"]: arm for arm in json.loads(capsys.readouterr().out)}
    assert len(arms) == 21
    assert arms["09_randomised_again"]["same_as"] == "08_randomised"
    assert arms["17_larger"]["differences"] == {"model.hidden_sizes": [64, 128, 256, 512]}
    assert [name for name, arm in arms.items() if arm["same_as"]] == ["09_randomised_again"]


def test_the_plan_as_a_table(study, capsys):
    assert main(["plan", str(study)]) == 0
    shown = capsys.readouterr().out
    assert "same as base" in shown and "3 arms x 2 seeds: 4 distinct runs" in shown
