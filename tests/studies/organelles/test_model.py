"""The eight networks: published sizes, what they take and refuse, attention kernels, recomputation, cost."""

import sys
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from assay.errors import ConfigError
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.model import build
from assay.studies.organelles.model.cost import Memory, operations, parameters
from assay.studies.organelles.model.library import head
from assay.studies.organelles.network_section import BACKENDS, RULES, ModelConfig

OFF = {"hidden": None, "heads": None, "attention": None, "dropout": 0.0}
FLAGS = {"recompute": False, "channels_last": False, "prior_bias": False}
FULL = {
    ("unet", 64): (31_112_910, 90_481_486),
    ("residual_unet", 32): (6_503_985, 19_242_873),
    ("resnet", 32): (6_298_926, 18_796_398),
    ("resnet_deep", 32): (29_065_454, 87_163_694),
    ("swin", 48): (28_663_688, 72_762_656),
    ("vit", 16): (87_334_030, 93_029_806),
}
"""Parameters of MONAI 1.6 at full size with 14 classes, 2-D and 3-D."""
EDGES = {2: (32, 64), 3: (16, 32, 32)}


def config(architecture, dimensions, features, **changed):
    own = {"hidden": 768, "heads": 12, "attention": "sdpa"} if architecture == "vit" else {}
    own |= {"attention": "sdpa"} if architecture == "swin" else {}
    return ModelConfig(
        architecture=architecture, dimensions=dimensions, features=features, **{**OFF, **FLAGS, **own, **changed}
    )


def small(architecture, dimensions, **changed):
    sizes = {"hidden": 24, "heads": 3} if architecture == "vit" else {}
    return config(architecture, dimensions, 12 if architecture == "swin" else 8, **sizes, **changed)


def edges_of(architecture, dimensions):
    return {2: (32, 64), 3: (32, 32, 64)}[dimensions] if architecture == "swin" else EDGES[dimensions]


def made(settings, edges, seed=0):
    torch.manual_seed(seed)
    return build(settings, len(CLASSES), edges)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(("name", "features"), FULL)
def test_at_full_size_the_slots_have_the_parameters_of_the_library(name, features, dimensions):
    edges = (256, 256) if dimensions == 2 else (32, 256, 256)
    model = build(config(name, dimensions, features), 14, edges)
    assert sum(each.numel() for each in model.parameters()) == FULL[name, features][dimensions - 2]
    untrained = FULL[name, features][dimensions - 2] - parameters(model)
    assert untrained == (12 * 2 * 768 if name == "vit" else 0)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", RULES)
def test_every_slot_gives_logits_and_a_gradient_to_every_trained_parameter(name, dimensions):
    edges = edges_of(name, dimensions)
    model = made(small(name, dimensions), edges)
    logits = model(torch.rand(1, 1, *edges))
    assert logits.shape == (1, 14, *edges)
    logits.square().mean().backward()
    assert not [key for key, each in model.named_parameters() if each.requires_grad and each.grad is None]


@pytest.mark.parametrize(("name", "edges", "allowed"), [
    ("unet", (64, 72), "multiples of 16 with model.architecture unet"),
    ("unet", (16, 16), "more than one 16 with model.architecture unet, which norms over space"),
    ("resnet", (12, 64), "multiples of 8 with model.architecture resnet"),
    ("swin", (64, 48), "multiples of 32 with model.architecture swin"),
    ("swin", (32, 32), "more than one 32 with model.architecture swin, which norms over space"),
    ("vit", (24, 32), "multiples of 16 with model.architecture vit"),
    ("vit", (16, 32, 32), "2 edges with model.dimensions 2"),
])  # fmt: skip
def test_a_patch_that_a_network_cannot_take_is_named(name, edges, allowed):
    assert small(name, 2).unfit(edges) == allowed


@pytest.mark.parametrize("name", RULES)
def test_the_smallest_patch_that_is_admitted_trains(name):
    rule = RULES[name]
    edges = (rule.stride, rule.stride * (2 if rule.normed else 1))
    settings = small(name, 2)
    assert settings.unfit(edges) is None
    made(settings, edges)(torch.rand(1, 1, *edges)).mean().backward()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", BACKENDS)
def test_torchs_attention_is_the_librarys(name, dimensions):
    edges = (64, 64) if dimensions == 2 else (32, 32, 64)
    image = torch.rand(2, 1, *edges, generator=torch.Generator().manual_seed(1))
    one, two = (made(small(name, dimensions, attention=kernel), edges) for kernel in ("naive", "sdpa"))
    torch.testing.assert_close(one(image), two(image), rtol=1e-4, atol=1e-4)
    assert one.state_dict().keys() == two.state_dict().keys()


@pytest.mark.parametrize("name", RULES)
def test_recomputed_blocks_give_the_same_gradients_of_the_same_parameters(name):
    edges, image = (32, 64), torch.rand(2, 1, 32, 64, generator=torch.Generator().manual_seed(1))
    gradients = []
    for recompute in (False, True):
        model = made(small(name, 2, recompute=recompute), edges)
        model(image).square().mean().backward()
        gradients.append({key: each.grad for key, each in model.named_parameters() if each.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        assert torch.equal(gradient, gradients[1][key]), key


@pytest.mark.parametrize("name", RULES)
def test_dropout_acts_in_training_where_the_library_has_it_and_is_refused_elsewhere(name):
    settings = small(name, 2, dropout=0.5)
    refused = [each.key for each in settings.conflicts()]
    model, image = made(settings, (32, 64)), torch.rand(1, 1, 32, 64)
    torch.manual_seed(1)
    differs = not torch.equal(model(image), model(image))
    assert differs == (refused == []) and refused in ([], ["dropout"])
    model.eval()
    assert torch.equal(model(image), model(image))


def test_volumes_in_channels_last_order_give_the_same_logits():
    image = torch.rand(1, 1, 16, 32, 32)
    one, two = (made(small("unet", 3, channels_last=order), (16, 32, 32)) for order in (False, True))
    torch.testing.assert_close(one(image), two(image), rtol=1e-4, atol=1e-5)
    assert two.conv_0.conv_0.conv.weight.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("name", RULES)
def test_the_head_is_the_layer_whose_bias_shifts_the_logits_of_a_class(name):
    model = made(small(name, 2), (32, 64)).eval()
    image = torch.rand(1, 1, 32, 64)
    before = model(image)
    with torch.no_grad():
        head(model, 14).bias[3] += 2
    shift = functional.one_hot(torch.tensor(3), 14).view(1, 14, 1, 1) * 2.0
    torch.testing.assert_close(model(image) - before, shift.expand_as(before), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_xformers_is_refused_on_a_cpu_with_a_reason():
    with pytest.raises(
        ConfigError, match=r"model\.attention: got xformers, which has no kernel for a CPU; allowed: sd"
    ):
        made(small("vit", 2, attention="xformers"), (32, 64))


def test_without_the_library_the_message_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ConfigError, match=r"model\.architecture: wants MONAI, .* install assay\[organelles\]"):
        made(small("unet", 2), (32, 64))


def test_operations_are_counted_of_a_layer_that_can_be_counted_by_hand():
    convolution = torch.nn.Conv2d(1, 14, 3, padding=1, bias=False)
    assert operations(lambda: convolution, (32, 64)) == 2 * 9 * 14 * 32 * 64


def test_memory_of_a_training_step_is_that_of_tensors_counted_by_hand():
    """A 1x1 convolution: weight, two moments, gradient; image, logits and what the loss holds of their shape."""
    wide = Memory(lambda: torch.nn.Conv2d(1, 14, 1, bias=False), (32, 64), bf16=False)
    voxels = 32 * 64
    logits = 14 * voxels * 4
    per_sample = wide.of(3) - wide.of(2)
    assert 4 * logits < per_sample < 10 * logits + 4 * voxels
    assert 0 <= wide.of(2) - 2 * per_sample < 64 * 14 * 4


def test_the_largest_batch_fits_and_one_more_does_not():
    memory = Memory(lambda: torch.nn.Conv2d(1, 14, 3), (64, 64), bf16=True)
    for available in (5e6, 1e8):
        most = memory.largest_batch(available)
        assert memory.of(most) <= available < memory.of(most + 1)
    assert memory.largest_batch(1e5) == 0


def test_recomputing_needs_less_memory():
    keep, again = (
        Memory(lambda flag=flag: made(small("vit", 2, recompute=flag), (64, 64)), (64, 64), bf16=False)
        for flag in (False, True)
    )
    assert again.of(8) < 0.8 * keep.of(8)


def test_an_option_is_part_of_the_section_or_null():
    problems = list(replace(small("unet", 2), hidden=8).conflicts())
    assert [(each.key, each.allowed) for each in problems] == [("hidden", "null with architecture unet")]
