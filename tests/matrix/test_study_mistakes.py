"""Each mistake in a study file is refused with its key, what it got, what is allowed and what to do."""

import pytest
from tests.matrix.study_file import edit, refusals

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
