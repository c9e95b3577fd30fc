"""What a study file may say, and what it is told when it contradicts itself: everything at once, one line each."""

import shutil

import pytest
from tests.matrix.study_file import ROOT, TEXT, edit, refusals

from assay.errors import ConfigError
from assay.matrix.arms import resolve
from assay.matrix.study import BudgetConfig, ControlsConfig, MatrixConfig, MetricConfig, read_study


def test_keys_that_may_be_left_out_have_defaults(file):
    study = read_study(file)
    assert study.matrix == MatrixConfig() and study.controls == ControlsConfig() and study.budget == BudgetConfig()
    assert (study.correction, study.machine) == ("holm", None)
    assert study.arms["plain"].set == {} and study.arms["plain"].extends is None
    assert study.metrics["validate/cbf_win_rate"] == MetricConfig(direction="max")
    assert (study.hypotheses["H1"].margin_is, study.hypotheses["H1"].confidence) == ("relative", 0.95)


def test_the_study_of_the_manual_is_valid(file):
    manual = (ROOT / "docs/how-to/a-study-file.md").read_text()
    file.write_text(manual.partition('title="study.yaml"\n')[2].partition("```")[0])
    names = ["w24_d1000", "w48_d1000", "w48_d4000", "plain", "plain_wide"]
    assert list(resolve(file).arms) == names


def test_the_control_called_null_is_a_key_like_any_other(file):
    """YAML takes the word for the value that is none."""
    file.write_text(TEXT + "controls: {null: validate/cbf_mae, classical: null}\n")
    assert read_study(file).controls == ControlsConfig(null="validate/cbf_mae")


def test_a_hypothesis_may_compare_with_a_number(file):
    edit(file, "versus: plain", "versus: 1")
    assert read_study(file).hypotheses["H1"].versus == 1.0


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file; give the path of a study file"):
        resolve(tmp_path / "none.yaml")


def test_a_folder_is_told_from_no_file_and_its_study_files_are_named(file):
    folder = file.parent / "above" / "study"
    folder.mkdir(parents=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(file.parent / name, folder)
    study = file.rename(folder / file.name)
    for given in (folder, folder.parent):
        with pytest.raises(ConfigError, match=f"^{given}: got a folder; allowed: a study file; give {study}$"):
            resolve(given)
    study.unlink()
    with pytest.raises(ConfigError, match=f"^{folder}: got a folder; allowed: a study file; there is none in it$"):
        read_study(folder)


def test_an_empty_study_file_is_said_to_be_empty(file):
    file.write_text("")
    with pytest.raises(ConfigError, match=r"study\.yaml: is empty; allowed: a mapping of sections; fill it"):
        resolve(file)


def test_a_study_without_arms_is_told_to_get_some(file):
    """Its baseline and its hypotheses, which name arms, are not refused as well."""
    text = file.read_text()
    file.write_text(text[: text.index("arms:")] + text[text.index("matrix:") :])
    assert refusals(file) == ["arms: got none; allowed: one or more arms; add arms or matrix"]


def test_a_nearest_key_is_named_wherever_it_lies(file):
    edit(file, "model.hidden_sizes", "loss.hidden_sizes")
    assert refusals(file)[0].endswith("; did you mean model.hidden_sizes?")


def test_everything_that_is_wrong_is_listed_at_once(file):
    edit(file, "baseline: plain", "baseline: plian")
    edit(file, "extends: wide", "extends: wode")
    edit(file, "versus: plain", "versus: plane")
    edit(file, "model.hidden_sizes: [32, 64]", "model.hiden_sizes: [32], train.patience: 0")
    assert [line.split(": got")[0] for line in refusals(file)] == [
        "arms.wider.extends",
        "baseline",
        "hypotheses.H1.versus",
        "arms.wide: model.hiden_sizes",
        "arms.wide: train.patience",
    ]


def test_unknown_keys_are_listed_with_all_the_rest(file):
    """What goes on is the study with the keys that were probably meant."""
    edit(file, "matrix: null", "budget: {hour: 3}")
    edit(file, "arm: wide,", "arm: wode,")
    edit(file, "extends: wide", "extend: wide")
    edit(file, "validate/cbf_win_rate: {", "train/loss: {")
    edit(file, "model.hidden_sizes", "model.hiden_sizes")
    assert [line.split(": got")[0] for line in refusals(file)] == [
        "arms.wider.extend",
        "budget.hour",
        "hypotheses.H1.arm",
        "metrics.train/loss",
        "arms.wide: model.hiden_sizes",
    ]


def test_a_key_that_was_misspelt_is_not_missed_as_well(file):
    """What hangs on it is not refused too: arms that the hypotheses name, overrides that the others need."""
    edit(file, "arms:", "arm:")
    (line,) = refusals(file)
    assert line.startswith("arm: got an unknown key") and line.endswith("did you mean arms?")


def test_unknown_keys_are_listed_with_values_of_the_wrong_kind(file):
    edit(file, "matrix: null", "budget: {hour: many}")
    edit(file, "margin: 0.1", "margins: 0.1")
    assert [line.split("; allowed")[0] for line in refusals(file)] == [
        "hypotheses.H1.margins: got an unknown key",
        "hypotheses.H1.margin: got no such key",
        "budget.hour: got an unknown key",
        "budget.hours: got 'many'",
    ]


@pytest.mark.parametrize("name", ["wide", "wide.2"])
def test_a_parameter_beside_set_is_told_where_it_belongs(file, name):
    edit(
        file,
        "wide: {reason: more channels, set: {model.hidden_sizes: [32, 64]}}",
        f"{name}: {{reason: more, model.hidden_sizes: [32]}}",
    )
    edit(file, "extends: wide", f"extends: {name}")
    edit(file, "arm: wide", f"arm: {name}")
    (line,) = refusals(file)
    place = f"arms.{name}"
    allowed = f"reason, extends, set; put it under {place}.set"
    assert line == f"{place}.model.hidden_sizes: got an unknown key; allowed: {allowed}"


@pytest.mark.parametrize("name", ["dvc.yaml", "params.yaml"])
def test_a_pipeline_whose_file_is_not_there_is_told_which(file, name):
    (file.parent / name).unlink()
    (line,) = refusals(file)
    assert line.startswith("pipeline: got dvc.yaml; allowed: a dvc.yaml, relative to the study file, with params.yaml")
    assert line.endswith(f"; there is no {file.parent / name}; write it, or correct the path")


def test_a_superiority_of_a_rate_may_be_more_than_its_double(file):
    """For a metric whose larger end is better, a relative margin has no upper end."""
    edit(file, "metric: validate/cbf_mae", "metric: validate/cbf_win_rate")
    edit(file, "margin: 0.1", "margin: 2")
    assert resolve(file).config.hypotheses["H1"].margin == 2
