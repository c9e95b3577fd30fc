"""What a study file may say, and what it is told when it contradicts itself: everything at once, one line each."""

import shutil
from pathlib import Path

import pytest

from assay.errors import ConfigError
from assay.matrix.arms import resolve
from assay.matrix.study import BudgetConfig, ControlsConfig, MatrixConfig, MetricConfig, read_study

ROOT = Path(__file__).parents[2]
TEXT = """\
name: small
question: Does it matter?
study: asl
pipeline: dvc.yaml
baseline: plain
seeds: [0, 1]
base: {train.steps: 50}
arms:
  plain: {reason: the reference}
  wide: {reason: more channels, set: {model.hidden_sizes: [32, 64]}}
  wider: {reason: even more, extends: wide, set: {train.batch_size: 4}}
matrix: null
metrics:
  validate/cbf_mae: {direction: min, unit: ml/100 g/min}
  validate/cbf_win_rate: {direction: max}
hypotheses:
  H1: {claim: c, metric: validate/cbf_mae, arm: wide, versus: plain, test: superior, margin: 0.1}
"""


@pytest.fixture
def file(tmp_path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path / name)
    path = tmp_path / "study.yaml"
    path.write_text(TEXT)
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def refusals(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


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


MISTAKES = {
    "baseline": ("baseline: plain", "baseline: plian", "baseline: got plian; allowed: one of plain, wide, wider; did"),
    "study": ("study: asl", "study: als", "study: got als; allowed: one of asl, burgers"),
    "name": ("name: small", "name: very small", "name: got 'very small'; allowed: A-Z, a-z, digits and _ + ="),
    "letter": ("name: small", "name: größe", "name: got 'größe'; allowed: A-Z, a-z, digits and _ + = - . inside"),
    "pipeline": ("pipeline: dvc.yaml", "pipeline: none.yaml", "pipeline: got none.yaml; allowed: a dvc.yaml, relative"),
    "unknown key": (
        "reason: more",
        "reson: x, reason: more",
        "arms.wide.reson: got an unknown key; allowed: reason, extends,",
    ),
    "no reason": ("reason: more channels, ", "", "arms.wide.reason: got no such key; allowed: text; add"),
    "no arm": ("  plain: {reason: the reference}\n", "  plain: 3\n", "arms.plain: got 3; allowed: a section with"),
    "seeds": ("[0, 1]", "[0, 0]", "seeds: got [0, 0]; allowed: different numbers; drop repeats"),
    "no seeds": ("[0, 1]", "[]", "seeds: got []; allowed: a list of 1 or more whole numbers >= 0"),
    "machine": ("matrix: null", "machine: m.yaml", "machine: got m.yaml; allowed: a machine file, relative to the"),
    "budget": ("matrix: null", "budget: {hours: 0}", "budget.hours: got 0.0; allowed: a number > 0, or null"),
    "arm": (
        "arm: wide,",
        "arm: wode,",
        "hypotheses.H1.arm: got wode; allowed: one of plain, wide, wider; did you mean",
    ),
    "versus": (
        "versus: plain",
        "versus: plane",
        "hypotheses.H1.versus: got plane; allowed: a number, or one of plain,",
    ),
    "itself": ("versus: plain", "versus: wide", "hypotheses.H1.versus: got wide; allowed: another arm than `arm`, or"),
    "undeclared metric": (
        "metric: validate/cbf_mae",
        "metric: validate/cbf_mea",
        "hypotheses.H1.metric: got validate/cbf_mea; allowed: one of validate/cbf_mae, validate/cbf_win_rate; did you",
    ),
    "metric that nobody writes": (
        "validate/cbf_win_rate: {",
        "train/loss: {",
        "metrics.train/loss: got train/loss; allowed: metrics of dvc.yaml: sensitivity/KEY, validate/KEY",
    ),
    "control that nobody writes": (
        "matrix: null",
        "controls: {null: mae}",
        "controls.null: got mae; allowed: metrics of dvc.yaml: sensitivity/KEY, validate/KEY",
    ),
    "direction": ("direction: min", "direction: low", "metrics.validate/cbf_mae.direction: got 'low'; allowed: one of"),
    "test": (
        "test: superior",
        "test: better",
        "hypotheses.H1.test: got 'better'; allowed: one of superior, equivalent",
    ),
    "superior": (
        "margin: 0.1",
        "margin: -0.1",
        "hypotheses.H1.margin: got -0.1; allowed: >= 0 with test superior; how",
    ),
    "equivalent": (
        "test: superior, margin: 0.1",
        "test: equivalent, margin: 0",
        "hypotheses.H1.margin: got 0; allowed: > 0 with test equivalent; how large a difference counts as none",
    ),
    "non_inferior": (
        "test: superior, margin: 0.1",
        "test: non_inferior, margin: -5, margin_is: absolute",
        "hypotheses.H1.margin: got -5; allowed: > 0 with test non_inferior; how large a difference counts as none",
    ),
    "per cent": (
        "margin: 0.1",
        "margin: 10",
        "hypotheses.H1.margin: got 10; allowed: < 1 with margin_is relative; 5 %",
    ),
    "no number": ("margin: 0.1", "margin: .nan", "hypotheses.H1.margin: got nan; allowed: a number"),
    "share of nothing": (
        "versus: plain",
        "versus: 0",
        "hypotheses.H1.margin_is: got relative; allowed: absolute with versus 0; a margin is a share of something",
    ),
    "share of a negative number": (
        "versus: plain",
        "versus: -1",
        "hypotheses.H1.margin_is: got relative; allowed: absolute with versus -1; a margin is a share of something",
    ),
    "a number for a name": ("  H1:", "  1:", "hypotheses.1: got 1 as a name; allowed: text; put it in quotes"),
    "unknown parent": (
        "extends: wide",
        "extends: wode",
        "arms.wider.extends: got wode; allowed: one of plain, wide, wider; did you mean wide?",
    ),
    "cycle": (
        "reason: more channels,",
        "reason: more channels, extends: wider,",
        "arms.wide.extends: got wide -> wider -> wide; allowed: no cycle; take one extends out",
    ),
    "arm that is no folder": (
        "  wider: {",
        "  ../wide: {",
        "arms.../wide: got '../wide'; allowed: A-Z, a-z, digits and",
    ),
    "arm that is a number": (
        "  wider: {",
        "  7: {",
        "arms.7: got 7; allowed: A-Z, a-z, digits and _ + = - . inside, in",
    ),
    "missing key": (
        "model.hidden_sizes",
        "model.hiden_sizes",
        "arms.wide: model.hiden_sizes: got an unknown key; allowed: one of model.architecture,",
    ),
    "missing section": (
        "model.hidden_sizes",
        "modle.hidden_sizes",
        "arms.wide: modle.hidden_sizes: got an unknown key; allowed: one of augmentation, data,",
    ),
    "missing key of all": (
        "{train.steps",
        "{train.stesp",
        "base: train.stesp: got an unknown key; allowed: one of train.",
    ),
    "seed": (
        "set: {train.batch_size: 4}",
        "set: {seed: 4}",
        "arms.wider: seed: got 4; allowed: no seed; list it under",
    ),
    "value": (
        "train.batch_size: 4",
        "train.batch_size: 0",
        "arms.wider: train.batch_size: got 0; allowed: a whole number",
    ),
    "value of all": (
        "train.steps: 50",
        "train.steps: 0",
        "every arm: train.steps: got 0; allowed: a whole number >= 1",
    ),
    "type": ("train.batch_size: 4", "train.batch_size: x", "arms.wider: train.batch_size: got 'x'; allowed: a whole"),
    "conflict": (
        "set: {train.batch_size: 4}",
        "set: {model.first_norm: true}",
        "arms.wider: model.first_norm: got true; allowed: null with architecture homogeneous; it would not be read",
    ),
    "equal to the baseline": (
        "set: {model.hidden_sizes: [32, 64]}",
        "set: {train.log_every: 7}",
        "arms.wide: got the parameters of the baseline plain, as far as they can change a result (train.log_every);",
    ),
    "changes nothing": (
        "set: {model.hidden_sizes: [32, 64]}",
        "set: {}",
        "arms.wide: got the parameters of the baseline plain, as far as they can change a result (no difference);",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_refused_with_its_key(case, file):
    old, new, message = MISTAKES[case]
    edit(file, old, new)
    (line,) = refusals(file)
    assert line.startswith(message)


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
