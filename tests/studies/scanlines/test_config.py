"""What a parameter file of the scanlines study may say, and what it is told when it contradicts itself."""

import pytest
from tests.studies.scanlines.conftest import ARCHIVE, NO_TOKENS, ONE_LABEL, PARAMS, choose

from assay.config import load
from assay.errors import ConfigError
from assay.matrix.arms import resolve
from assay.studies.scanlines.config import Params, describe

STUDY = PARAMS.parent

REFUSED = {
    "file of simulated images": (
        ["data.file=own.npz"],
        "data.file: got own.npz; allowed: null with source simulated; it would not be read",
    ),
    "archive without a file": (["data.source=archive"], "data.file: got null; allowed: a value with source archive"),
    "parts": (
        ["data.test_fraction=0.9"],
        "data.test_fraction: got 0.9; allowed: less than 1 together with validation_fraction; nothing would be left",
    ),
    "gap in the classes": (
        ["data.merge=[0,1,1,2,4,4]"],
        "data.merge: got [0, 1, 1, 2, 4, 4]; allowed: every number from 0 to the largest; leave no class empty",
    ),
    "other classes than the generator's": (
        ["data.merge=[0,1]"],
        "data.merge: got 2 labels; allowed: 6 with source simulated; give [0, 1, 1, 2, 3, 3]",
    ),
    "copies": (["data.copies=3"], "data.copies: got 3; allowed: divisors of images 64"),
    "one class": (
        ["data.merge=[0,0,0,0,0,0]", "evaluation.merge=[0,1]"],
        "data.merge: got [0, 0, 0, 0, 0, 0]; allowed: two classes or more; of one alone every answer is right",
    ),
    "gap in the judged classes": (
        ["evaluation.merge=[0,1,2,4]"],
        "evaluation.merge: got [0, 1, 2, 4]; allowed: every number from 0 to the largest; leave no class empty",
    ),
    "one judged class": (
        ["evaluation.merge=[0,0,0,0]"],
        "evaluation.merge: got [0, 0, 0, 0]; allowed: two classes or more; of one alone every answer is right",
    ),
    "parents that are their own images": (
        ["data.split=image"],
        "data.split: got image; allowed: group with copies 1; each image is a parent of its own",
    ),
    "weights of nothing": (
        ["legacy.weights_from_all=true", "loss.class_weights=false"],
        "legacy.weights_from_all: got true; allowed: false without loss.class_weights and loss.logit_adjustment; nothi",
    ),
    "a change after the end": (
        ["evaluation.change_from=17"],
        "evaluation.change_from: got 17; allowed: <= 16, data.lines",
    ),
    "tip changes of a file": (
        [*ARCHIVE, "loss.line_targets=switch"],
        "loss.line_targets: got switch; allowed: image with data.source archive; its files do not say where a tip cha",
    ),
    "judged classes": (
        ["evaluation.merge=[0,1]"],
        "evaluation.merge: got 2 classes; allowed: 4, those of data.merge; give the judged class of each",
    ),
    "heads": (["model.heads=3"], "model.heads: got 3; allowed: divisors of d_model 8"),
    "rotary heads": (
        ["model.heads=8"],
        "model.heads: got 8; allowed: heads with an even number of channels",
    ),
    "foreign option": (
        ["model.widths=[4,8]"],
        "model.widths: got (4, 8); allowed: null with architecture causal; it would not be read",
    ),
    "missing option": (
        ["model.tokenizer=null"],
        "model.tokenizer: got null; allowed: a value with architecture causal",
    ),
    "whole image": (
        ["model.normalisation=image"],
        "model.normalisation: got image; allowed: line or none with architecture causal; an image is known at its end",
    ),
    "stem of an encoder of lines": (
        [*choose("line_encoder"), "model.tokenizer=stem_2d"],
        "model.tokenizer: got stem_2d; allowed: linear, conv_* with architecture line_encoder; use causal",
    ),
    "groups of a norm": ([*choose("cnn"), "model.widths=[6,8]"], "model.widths: got [6, 8]; allowed: multiples of 4"),
    "window": ([*choose("lrcn"), "model.window=17"], "model.window: got 17; allowed: <= 16, data.lines"),
    "reversed lines": (
        ["augmentation.flip_vertical=true"],
        "augmentation.flip_vertical: got true; allowed: false with model.architecture causal; it reads lines in order",
    ),
    "new images of a file": (
        [*ARCHIVE, "augmentation.redraw=true"],
        "augmentation.redraw: got true; allowed: false with data.source archive; nothing draws them",
    ),
    "truncated lines": (
        ["augmentation.truncate=4"],
        "augmentation.truncate: got 4; allowed: null with model.architecture causal; it reads lines in order",
    ),
    "truncation beyond the image": (
        [*choose("cnn"), "augmentation.truncate=17"],
        "augmentation.truncate: got 17; allowed: <= 16, data.lines",
    ),
    "lines of one label": (
        [*choose("cnn"), "loss.first_line=4"],
        "loss.first_line: got 4; allowed: null with model.architecture cnn; it has one read-out",
    ),
    "no lines": (
        ["loss.line_targets=null"],
        "loss.line_targets: got null; allowed: a value with model.architecture causal; it reads out each line",
    ),
    "first line": (["loss.first_line=17"], "loss.first_line: got 17; allowed: <= 16, the last line that is read out"),
    "first line of windows": (
        [*choose("lrcn"), "model.window=4", "model.window_stride=8", "loss.first_line=13"],
        "loss.first_line: got 13; allowed: <= 12, the last line that is read out",
    ),
    "two corrections": (
        ["loss.logit_adjustment=1"],
        "loss.logit_adjustment: got 1; allowed: 0 with class_weights true; they correct the same imbalance",
    ),
    "members": (
        [*choose("lrcn"), "train.ensemble_size=2"],
        "train.ensemble_size: got 2; allowed: 1 with model.architecture lrcn; members are stacked of line_encoder",
    ),
    "members by xformers": (
        ["train.ensemble_size=2", "model.backend=xformers"],
        "model.backend: got xformers; allowed: sdpa, naive with train.ensemble_size 2; its kernels cannot be stacked",
    ),
    "curve": (
        ["evaluation.lines_seen=[8,2,16]"],
        "evaluation.lines_seen: got [8, 2, 16]; allowed: numbers that increase",
    ),
    "end of the curve": (["evaluation.lines_seen=[8]"], "evaluation.lines_seen: got 8; allowed: data.lines 16 at last"),
    "early point": (
        ["evaluation.reference_lines=3"],
        "evaluation.reference_lines: got 3; allowed: one of lines_seen [2, 8, 16]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_contradictions_are_refused_in_words(case, make_params):
    overrides, message = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        make_params(*overrides)
    assert message in str(caught.value)


def test_the_committed_parameters_are_valid_and_described():
    params = load(Params, PARAMS)
    assert describe(params).startswith("causal on stem_2d tokens, 4 classes: ")


def test_a_file_of_unknown_length_is_described_by_its_epochs(make_params):
    archive = ["source=archive", "file=own.npz", "groups=g", "transpose=false"]
    nulls = ["images=null", "copies=null", "label_noise=null", "points=null"]
    given = [*(f"data.{each}" for each in archive + nulls), "loss.line_targets=image"]
    params = make_params(*given, "train.steps=null", "train.epochs=3")
    assert describe(params) == "causal on stem_2d tokens, 4 classes: 3 epochs of own.npz, seed 0"


@pytest.mark.parametrize("file", ["study.yaml", "laptop.yaml"])
def test_every_arm_differs_and_has_the_budget_of_the_others(file):
    arms = resolve(STUDY / file).arms
    assert not [name for name, arm in arms.items() if arm.same_as]
    budgets = {(arm.params.train.steps, arm.params.train.batch_size, arm.params.data.images) for arm in arms.values()}
    assert len(budgets) == 1
    assert all(len(arm.identities) >= 3 for arm in arms.values())


def test_each_fix_of_the_report_is_an_arm_that_changes_one_thing():
    arms = resolve(STUDY / "study.yaml").arms
    before, after = arms["pre_fix"].params, arms["run1"].params
    assert (before.data.classes, before.model.layers, before.model.normalisation) == (6, 4, "none")
    assert (after.data.classes, after.model.layers, after.model.normalisation) == (4, 6, "line")
    fixes = [name for name in arms if name.startswith("fix_")]
    assert len(fixes) == 5
    for name in fixes:
        fixed, sections = arms[name].params, ("data", "model", "loss", "train")
        changed = [section for section in sections if getattr(fixed, section) != getattr(before, section)]
        assert len(changed) == 1, name


@pytest.mark.parametrize(("file", "other"), [("study.yaml", "augmented"), ("laptop.yaml", "line_encoder")])
def test_the_encoder_that_the_image_network_is_compared_with_has_its_augmentation(file, other):
    study = resolve(STUDY / file)
    image = study.config.hypotheses["image"]
    assert (image.arm, image.versus) == ("cnn", other)
    assert study.arms["cnn"].params.augmentation == study.arms[other].params.augmentation
    assert not study.arms["causal_stem"].params.augmentation.flip_vertical


def test_the_sweep_of_the_report_is_complete():
    arms = resolve(STUDY / "study.yaml").arms
    sweep = [arm for name, arm in arms.items() if name.startswith("wd") or name == "run1"]
    found = {(arm.params.train.optimizer.weight_decay, arm.params.model.dropout) for arm in sweep}
    wanted = {(0, 0.1), (0.01, 0.1), (0.05, 0.1), (0.1, 0.15), (0.01, 0.15), (0.05, 0.15), (0.01, 0.2), (0.05, 0.2)}
    assert found == wanted


def test_an_option_of_no_architecture_is_refused(make_params):
    with pytest.raises(ConfigError, match=r"model\.library_name: got null; allowed: a value with architecture library"):
        make_params(*NO_TOKENS, *ONE_LABEL, "model.architecture=library")
