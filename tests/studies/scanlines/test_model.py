"""The networks: published sizes, masks, what a label after n lines may depend on, and streaming."""

import math
import sys

import pytest
import torch
from tests.studies.scanlines.conftest import ARCHITECTURES, NO_TOKENS, ONE_LABEL, choose

from assay.errors import ConfigError
from assay.studies.scanlines.model import CausalEncoder, build, parameter_count, read_out_lines
from assay.studies.scanlines.model.attention import (
    Block,
    BlockOptions,
    attend,
    causal_mask,
    padding_mask,
    rotate,
    sinusoidal,
)
from assay.studies.scanlines.model.lines import normalise
from assay.studies.scanlines.model.tokenizers import build_tokenizer

PUBLISHED = [
    "model.d_model=256",
    "model.layers=6",
    "model.heads=8",
    "model.ffn_dim=1024",
    "model.line_statistics=false",
    "data.lines=128",
    "evaluation.lines_seen=[8,128]",
]
TOKENIZERS = ("linear", "conv_pool", "conv_pool_planned", "conv_strided", "stem_2d")
SIZES = {
    "line encoder": (4, [], 4_806_404),
    "six outputs": (6, [], 4_806_918),
    "four layers": (4, ["model.layers=4"], 3_226_884),
    "tokenizer as coded": (4, ["model.tokenizer=conv_pool"], 5_069_572),
    "sinusoidal positions": (6, ["model.positions=sinusoidal"], 4_773_894),
}


def network(params, lines=16, points=24, classes=4):
    torch.manual_seed(0)
    return build(params.model, lines, points, classes).eval()


def scans(count=2, lines=16, points=24):
    return torch.randn(count, lines, points, generator=torch.Generator().manual_seed(1)) + 3


@pytest.mark.parametrize("case", SIZES)
def test_the_published_encoder_has_the_published_size(case, make_params):
    classes, overrides, wanted = SIZES[case]
    params = make_params(*choose("line_encoder"), *PUBLISHED, *overrides)
    assert parameter_count(build(params.model, 128, 128, classes)) == wanted


def test_the_tokenizers_have_the_published_sizes():
    sizes = {kind: parameter_count(build_tokenizer(kind, 128, 256, 0.1)) for kind in ("linear", "conv_pool")}
    assert sizes == {"linear": 33_024, "conv_pool": 296_192}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_there_is_a_label_at_every_read_out(architecture, make_params):
    params = make_params(*choose(architecture))
    read_outs = read_out_lines(params.model, 16)
    assert network(params)(scans(), None).shape == (2, len(read_outs), 4)
    assert read_outs[-1] == 16


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "learned"])
def test_a_later_line_changes_no_earlier_label(tokenizer, positions, make_params):
    model = network(make_params(f"model.tokenizer={tokenizer}", f"model.positions={positions}"))
    whole = scans()
    changed = whole.clone()
    changed[:, 9:] = -5 * changed[:, 9:].flip(2) + 1
    before, after = model(whole), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=1e-6)
    assert (before[:, 9:] - after[:, 9:]).abs().amax() > 1e-3


@pytest.mark.parametrize("architecture", ["lrcn", "single_line"])
def test_windows_and_single_lines_know_nothing_of_later_ones_either(architecture, make_params):
    params = make_params(*choose(architecture))
    model, whole = network(params), scans()
    changed = whole.clone()
    changed[:, 12:] += torch.randn(2, 4, 24)
    earlier = [n <= 12 for n in read_out_lines(params.model, 16)]
    torch.testing.assert_close(model(whole)[:, earlier], model(changed)[:, earlier], rtol=0, atol=1e-6)


def test_a_scan_of_n_lines_alone_is_as_good_as_padded_in_a_batch(make_params):
    model, whole = network(make_params()), scans()
    padded = torch.cat([whole[:1, :7], torch.zeros(1, 9, 24)], 1)
    batch = model(torch.cat([whole[1:], padded]))
    torch.testing.assert_close(model(whole[:1, :7])[0], batch[1, :7], rtol=0, atol=1e-5)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "learned"])
def test_streaming_gives_what_the_batch_gives(tokenizer, positions, make_params):
    overrides = [f"model.tokenizer={tokenizer}", f"model.positions={positions}", "model.layers=2"]
    model, whole = network(make_params(*overrides)), scans(1, lines=16)
    assert isinstance(model, CausalEncoder)
    state, streamed = model.start(), []
    for line in range(16):
        logits, state = model.step(whole[:, line : line + 1], state)
        streamed.append(logits)
    torch.testing.assert_close(torch.stack(streamed, 1), model(whole), rtol=0, atol=1e-5)


def test_padding_is_not_attended_to(make_params):
    masked = network(make_params(*choose("line_encoder")))
    published = network(make_params(*choose("line_encoder"), "model.mask_padding=false"))
    whole, lengths = scans(), torch.tensor([7, 16])
    other = whole.clone()
    other[0, 7:] = torch.randn(9, 24)
    torch.testing.assert_close(masked(whole, lengths), masked(other, lengths), rtol=0, atol=1e-6)
    assert (published(whole, lengths)[0] - published(other, lengths)[0]).abs().amax() > 1e-4


def test_masks_are_true_where_attention_is_allowed_and_block_no_row():
    causal = causal_mask(4)
    assert causal.tolist()[1] == [True, True, False, False]
    padding = padding_mask(torch.tensor([0, 2]), 4, leading=1)
    assert padding[:, 0, 0].tolist() == [[True, False, False, False], [True, True, True, False]]
    assert causal.any(1).all() and padding.any(-1).all()


def test_a_mask_has_the_polarity_of_torch():
    """nn.MultiheadAttention, which reads true as blocked, must agree with the mask turned round."""
    q, k, v = (torch.randn(1, 1, 4, 8) for _ in range(3))
    theirs = torch.nn.MultiheadAttention(8, 1, bias=False, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.eye(8).repeat(3, 1))
        theirs.out_proj.weight.copy_(torch.eye(8))
    wanted, _ = theirs(q[0], k[0], v[0], attn_mask=~causal_mask(4))
    torch.testing.assert_close(attend(q, k, v, causal_mask(4), 0.0, "sdpa")[0], wanted)


def test_a_leading_token_under_a_causal_mask_sees_no_line():
    """Why the causal encoder has none: the published model read out a token that could see only itself."""
    torch.manual_seed(0)
    block = Block(BlockOptions(8, 2, 8, 0.0, False, "sdpa")).eval()
    first = torch.randn(1, 1, 8)
    lines = torch.randn(2, 5, 8, requires_grad=True)
    out = block(torch.cat([first.expand(2, -1, -1), lines], 1), causal_mask(6))
    assert torch.equal(out[0, 0], out[1, 0])
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), lines)
    assert gradient.count_nonzero() == 0


@pytest.mark.parametrize("masked", [True, False])
def test_the_kernels_agree(masked):
    q, k, v = (torch.randn(2, 2, 5, 4) for _ in range(3))
    mask = causal_mask(5) if masked else None
    torch.testing.assert_close(attend(q, k, v, mask, 0.0, "sdpa"), attend(q, k, v, mask, 0.0, "naive"))


def test_xformers_that_is_not_installed_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "xformers.ops", None)
    q = torch.randn(1, 1, 2, 4)
    with pytest.raises(ConfigError, match=r"model\.backend: got xformers, which cannot be imported .*; allowed: sdpa"):
        attend(q, q, q, None, 0.0, "xformers")


def test_rotary_positions_leave_products_to_the_distance_alone():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)
    products = [float((rotate(q, first) * rotate(k, first + 3)).sum()) for first in (0, 5, 40)]
    assert products == pytest.approx([products[0]] * 3, abs=1e-5)


def test_sinusoidal_positions_are_those_of_the_paper():
    table = sinusoidal(3, 4)
    assert table[2].tolist() == pytest.approx([math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)])


def test_normalised_lines_have_mean_0_and_sd_1_and_a_lost_line_is_0():
    images = scans()
    images[0, 3] = 1234.5678
    lines = normalise(images, "line")
    assert lines[0, 3].tolist() == [0.0] * 24
    torch.testing.assert_close(lines[1].std(1), torch.ones(16))
    torch.testing.assert_close(lines[1].mean(1), torch.zeros(16), rtol=0, atol=1e-6)
    assert normalise(images, "none") is images
    assert float(normalise(images, "image")[1].std()) == pytest.approx(1)


def test_labels_do_not_depend_on_the_unit_of_height(make_params):
    for architecture in ARCHITECTURES:
        model = network(make_params(*choose(architecture)))
        torch.testing.assert_close(model(scans(), None), model(1e-9 * scans(), None), rtol=0, atol=1e-4)


def test_a_model_of_the_library_gives_one_label(make_params):
    pytest.importorskip("timm", reason="timm is not installed")
    library = [*NO_TOKENS, *ONE_LABEL, "model.architecture=library"]
    params = make_params(*library, "model.library_name=resnet18")
    assert network(params, 32, 32)(scans(lines=32, points=32)).shape == (2, 1, 4)
    with pytest.raises(ConfigError, match=r"model\.library_name: got resnet1; allowed: a model of timm, e\.g\."):
        network(make_params(*library, "model.library_name=resnet1"))
