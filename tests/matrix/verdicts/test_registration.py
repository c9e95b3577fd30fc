"""Hypotheses are frozen at the first submit; what changes later is told, and whether results existed by then."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from assay.errors import DataError
from assay.matrix.study import HypothesisConfig
from assay.matrix.submission import REGISTERED
from assay.matrix.verdicts.registration import read_registration, register, rules_of


def hypothesis(margin: float = 0.05, confidence: float = 0.95) -> HypothesisConfig:
    return HypothesisConfig(
        claim="a is as good as b",
        metric="validate/rmse",
        arm="a",
        versus="b",
        test="equivalent",
        margin=margin,
        confidence=confidence,
    )


@pytest.fixture
def with_results(tmp_path):
    def leave(arm: str, seed: int) -> None:
        (tmp_path / arm / str(seed)).mkdir(parents=True)
        (tmp_path / arm / str(seed) / "metrics.json").write_text("{}")

    return leave


def test_before_the_first_submit_nothing_is_registered(tmp_path):
    assert read_registration(tmp_path / "nowhere") is None


def test_the_first_submit_freezes_and_the_same_again_changes_nothing(tmp_path):
    first = register(tmp_path, {"H1": hypothesis()})
    content = (tmp_path / REGISTERED).read_bytes()
    assert register(tmp_path, {"H1": hypothesis()}) == first == read_registration(tmp_path)
    assert (tmp_path / REGISTERED).read_bytes() == content
    assert first.describe().endswith("not changed since") and first.entries[0].sha256[:12] in first.describe()
    assert first.amended("H1") is None


def test_the_hash_is_that_of_the_content(tmp_path):
    one = register(tmp_path / "one", {"H1": hypothesis()}).entries[0]
    other = register(tmp_path / "other", {"H1": hypothesis(margin=0.06)}).entries[0]
    assert len(one.sha256) == 64 and one.sha256 != other.sha256


def test_a_change_before_any_result_is_an_amendment_before_data(tmp_path):
    register(tmp_path, {"H1": hypothesis()})
    found = register(tmp_path, {"H1": hypothesis(margin=0.1)})
    assert "amended before data" in found.describe() and "H1.margin 0.05 -> 0.1" in found.describe()
    assert found.amended("H1") is None


def test_a_change_after_results_is_told_with_how_many_there_were(tmp_path, with_results):
    register(tmp_path, {"H1": hypothesis(), "H2": hypothesis()})
    with_results("a", 0)
    with_results("a", 1)
    found = register(tmp_path, {"H1": hypothesis(margin=0.1), "H3": hypothesis()})
    assert found.entries[1].changes == ("H1.margin 0.05 -> 0.1", "H2 removed", "H3 added")
    assert "amended after data" in found.describe() and "with results of 2 runs" in found.describe()
    assert "H1.margin 0.05 -> 0.1" in (found.amended("H1") or "")
    assert "added" in (found.amended("H3") or "") and found.amended("H4") is None


def test_a_changed_rule_amends_every_hypothesis(tmp_path, with_results):
    register(tmp_path, {"H1": hypothesis()}, {"correction": "holm"})
    with_results("a", 0)
    found = register(tmp_path, {"H1": hypothesis()}, {"correction": "none"})
    assert 'rules.correction "holm" -> "none"' in (found.amended("H1") or "")


@pytest.mark.parametrize(("correction", "concerned"), [("holm", True), ("none", False)])
def test_under_holm_to_drop_a_hypothesis_after_data_amends_the_others(tmp_path, with_results, correction, concerned):
    """With fewer beside it, a hypothesis passes more easily."""
    register(tmp_path, {"H1": hypothesis(), "H2": hypothesis()}, {"correction": correction})
    with_results("a", 0)
    found = register(tmp_path, {"H1": hypothesis()}, {"correction": correction})
    assert ("H2 removed" in (found.amended("H1") or "")) is concerned


def test_another_wording_of_a_claim_amends_no_other_hypothesis(tmp_path, with_results):
    register(tmp_path, {"H1": hypothesis(), "H2": hypothesis()}, {"correction": "holm"})
    with_results("a", 0)
    found = register(tmp_path, {"H1": hypothesis(), "H2": replace(hypothesis(), claim="x")}, {"correction": "holm"})
    assert found.amended("H1") is None and "H2.claim" in (found.amended("H2") or "")


def test_an_arm_that_becomes_another_after_data_amends_the_hypotheses_about_it(tmp_path, with_results):
    hypotheses = {"H1": hypothesis(), "H2": replace(hypothesis(), arm="c")}
    register(tmp_path, hypotheses, {"arms": {"a": {"train.lr": 0.001}, "b": {}, "c": {}}})
    with_results("a", 0)
    found = register(tmp_path, hypotheses, {"arms": {"a": {"train.lr": 0.1}, "b": {}, "c": {}}})
    assert "rules.arms.a.train.lr 0.001 -> 0.1" in (found.amended("H1") or "") and found.amended("H2") is None


def test_registered_only_after_the_runs_is_said(tmp_path, with_results):
    with_results("a", 0)
    found = register(tmp_path, {"H1": hypothesis()})
    assert "after results of 1 run," in found.describe()
    assert "registered after data" in (found.amended("H1") or "")


def test_changing_back_is_an_amendment_too(tmp_path):
    register(tmp_path, {"H1": hypothesis()})
    register(tmp_path, {"H1": hypothesis(margin=0.1)})
    assert len(register(tmp_path, {"H1": hypothesis()}).entries) == 3


@pytest.mark.parametrize(
    "edit",
    [
        lambda entries: entries[0]["hypotheses"]["H1"].update(margin=0.2),
        lambda entries: entries.pop(0),
        lambda entries: entries[1].update(results=0, time="2020-01-01T00:00:00Z"),
    ],
    ids=["content", "dropped entry", "date"],
)
def test_an_edited_registration_is_refused(edit, tmp_path):
    register(tmp_path, {"H1": hypothesis()})
    register(tmp_path, {"H1": hypothesis(margin=0.1)})
    data = json.loads((tmp_path / REGISTERED).read_text())
    edit(data["entries"])
    (tmp_path / REGISTERED).write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"registered\.json: entry \d does not match its hash, so it was edited"):
        register(tmp_path, {"H1": hypothesis()})


@pytest.mark.parametrize("text", ["{", "[]", '{"entries": []}', '{"entries": [{"time": 1}]}'])
def test_a_damaged_registration_is_refused(text, tmp_path):
    (tmp_path / REGISTERED).write_text(text)
    with pytest.raises(DataError, match=r"not a registration.*restore the file"):
        read_registration(tmp_path)


def test_what_an_arm_is_is_registered_without_secrets():
    config = SimpleNamespace(metrics={}, correction="holm", seeds=(0,), controls={}, baseline="a")
    compared = {"a": {"logger.api_key": "hunter2", "train.lr": 0.1}}
    found = rules_of(SimpleNamespace(config=config, compared=compared))
    assert found["arms"] == {"a": {"logger.api_key": "***", "train.lr": 0.1}}
