"""What a parameter file of the organelles study may say, and what it is told when it contradicts itself."""

from math import prod

import pytest
from tests.studies.organelles.conftest import PARAMS, VOLUMES

from assay.config import load
from assay.errors import ConfigError
from assay.matrix.arms import resolve
from assay.studies.organelles.config import Params, describe
from assay.studies.organelles.slots import PATCHES, SLOTS

STUDY = PARAMS.parent
FILES = ("study", "laptop", "labels", "losses")

REFUSED = {
    "size of a network": (
        ["sampling.patch=[24,32]"],
        "sampling.patch: got [24, 32]; allowed: multiples of 16 with model.architecture unet",
    ),
    "one voxel left": (
        ["sampling.patch=[16,16]"],
        "sampling.patch: got [16, 16]; allowed: more than one 16 with model.architecture unet, which norms over space",
    ),
    "edges": (
        ["sampling.patch=[16,32,32]"],
        "sampling.patch: got [16, 32, 32]; allowed: 2 edges with model.dimensions 2",
    ),
    "patch larger than the volume": (
        [*VOLUMES, "sampling.patch=[32,32,32]"],
        "sampling.patch: got [32, 32, 32]; allowed: at most data.shape [16, 64, 64]",
    ),
    "transposed": (
        ["sampling.patch=[32,64]"],
        "augmentation.transpose: got true; allowed: false with a patch that is not square in x and y",
    ),
    "no class weighs anything": (
        ["loss.class_weights=manual", f"loss.manual_weights={[0] * 14}"],
        "loss.manual_weights: got zeros; allowed: one or more above 0",
    ),
    "ensemble": (["train.ensemble_size=2"], "train.ensemble_size: got 2; allowed: 1; train seeds instead"),
    "adjusted without an adjustment": (
        ["loss.adjust=none", "evaluation.logits=adjusted"],
        "evaluation.logits: got adjusted; allowed: raw with loss.adjust none; the loss sees no others",
    ),
    "slices of volumes": (
        ["model.dimensions=3", "sampling.patch=[16,32,32]", "evaluation.every=1"],
        "evaluation.monitor_every: got 8; allowed: 1 with model.dimensions 3; volumes are judged whole",
    ),
    "foreign option": (["model.heads=2"], "model.heads: got 2; allowed: null with architecture unet"),
    "missing option": (
        ["model.architecture=vit", "model.attention=sdpa", "model.heads=2"],
        "model.hidden: got null; allowed: a number with architecture vit",
    ),
    "heads": (
        ["model.architecture=vit", "model.attention=sdpa", "model.hidden=16", "model.heads=3"],
        "model.heads: got 3; allowed: divisors of hidden 16",
    ),
    "attention of a convolution": (
        ["model.attention=sdpa"],
        "model.attention: got sdpa; allowed: null with architecture unet; it has none",
    ),
    "xformers for windows": (
        ["model.architecture=swin", "model.features=12", "model.attention=xformers", "sampling.patch=[64,64]"],
        "model.attention: got xformers; allowed: naive or sdpa with architecture swin",
    ),
    "channels of windows": (
        ["model.architecture=swin", "model.features=8", "model.attention=sdpa", "sampling.patch=[64,64]"],
        "model.features: got 8; allowed: a multiple of 12 with architecture swin",
    ),
    "channels last": (
        ["model.channels_last=true"],
        "model.channels_last: got true; allowed: false with dimensions 2; 2-D weights always are in that order",
    ),
    "dropout that a network has not": (
        ["model.architecture=resnet_deep", "model.dropout=0.5"],
        "model.dropout: got 0.5; allowed: 0 with architecture resnet_deep; MONAI's has none",
    ),
    "precision of a GPU": (
        ["train.precision=fp16"],
        "train.precision: got fp16; allowed: fp32 or bf16 with device cpu",
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
    assert describe(params).startswith("unet 2-D, 16 features, labels masked, no adjustment: ")


def test_epochs_are_described_too(make_params):
    assert "3 epochs of patches of 32 x 32 voxels" in describe(make_params("train.steps=null", "train.epochs=3"))


@pytest.mark.parametrize("file", FILES)
def test_every_arm_differs_and_sees_as_many_voxels_as_the_others(file):
    arms = resolve(STUDY / f"{file}.yaml").arms
    assert not [name for name, arm in arms.items() if arm.same_as]
    every = [arm.params for arm in arms.values()]
    seen = {each.train.steps * each.train.samples_per_step * prod(each.sampling.patch) for each in every}
    assert len(seen) == 1
    assert all(len(arm.identities) >= 3 for arm in arms.values())
    assert all(each.train.patience is None for each in every)


def test_the_comparison_has_the_eight_networks_at_full_size():
    arms = resolve(STUDY / "study.yaml").arms
    assert list(arms) == list(SLOTS)
    for name, arm in arms.items():
        model, wanted = arm.params.model, SLOTS[name]
        assert (model.architecture, model.dimensions) == (wanted.architecture, wanted.dimensions)
        assert (model.features, model.hidden, model.heads) == (wanted.features, wanted.hidden, wanted.heads)
        assert arm.params.sampling.patch == PATCHES[model.dimensions]


def test_the_arms_about_labels_change_one_thing_each():
    arms = {name: arm.params for name, arm in resolve(STUDY / "labels.yaml").arms.items()}
    base = arms["none"]
    assert {arms[name].loss.adjust for name in ("none", "add", "subtract", "post_hoc")} == {
        "none",
        "add",
        "subtract",
        "post-hoc",
    }
    assert {arms[name].data.annotation for name in ("none", "absent", "full")} == {"masked", "absent", "full"}
    for name in ("add", "subtract", "post_hoc"):
        assert (arms[name].data, arms[name].model, arms[name].train) == (base.data, base.model, base.train)
