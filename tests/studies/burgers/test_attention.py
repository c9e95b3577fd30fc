"""What attention promises: the textbook result from every back end, and groups that do not see each other."""

import importlib
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay.errors import ConfigError
from assay.studies.burgers.model import BlockOptions, attention_kernel, require_backend
from assay.studies.burgers.model.attention import Attention, ChannelSeparatedAttention, attend

STANDARD = BlockOptions(hidden_dim=24, heads=3, attention="standard")
SEPARATED = replace(STANDARD, attention="channel_separated", group_size=6, qk_norm=True)
TOKENS = 10
CPU = torch.device("cpu")


@given(
    size=st.tuples(*[st.integers(1, 9)] * 5), masked=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_back_ends_agree_with_each_other_in_values_and_gradients(size, masked, seed):
    batch, queries, tokens, heads, width = size
    rng = torch.Generator().manual_seed(seed)
    q, k, v, weight = (torch.randn(batch, n, heads, width, generator=rng) for n in (queries, tokens, tokens, queries))
    mask = torch.rand(batch, tokens, generator=rng) < 0.6 if masked else None
    if mask is not None:
        mask[:, 0] = True
    results = []
    for backend in ("naive", "sdpa"):
        inputs = [part.clone().requires_grad_() for part in (q, k, v)]
        out = attend(*inputs, backend, mask)
        results.append([out, *torch.autograd.grad((out * weight).sum(), inputs)])
    for naive, fused in zip(*results, strict=True):
        assert torch.allclose(naive, fused, atol=1e-5)


def test_naive_attention_is_the_textbook_formula():
    q, k, v = torch.randn(3, 1, 2, 1, 4)
    scores = torch.tensor([[float(q[0, i, 0] @ k[0, j, 0]) / 2 for j in range(2)] for i in range(2)]).exp()
    expected = scores / scores.sum(1, keepdim=True) @ v[0, :, 0]
    assert torch.allclose(attend(q, k, v, "naive")[0, :, 0], expected, atol=1e-6)


def test_standard_attention_equals_torch_multi_head_attention():
    torch.manual_seed(0)
    ours, theirs = Attention(STANDARD, TOKENS), nn.MultiheadAttention(24, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.qkv.weight)
        theirs.in_proj_bias.copy_(ours.qkv.bias)
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x = torch.randn(2, TOKENS, 24)
    mask = torch.ones(2, TOKENS, dtype=torch.bool)
    mask[:, 7:] = False
    assert torch.allclose(ours(x), theirs(x, x, x)[0], atol=1e-6)
    assert torch.allclose(ours(x, mask), theirs(x, x, x, key_padding_mask=~mask)[0], atol=1e-6)


@pytest.mark.parametrize("options", [STANDARD, SEPARATED])
def test_normalised_queries_and_keys_do_not_depend_on_the_size_of_the_tokens(options):
    torch.manual_seed(0)
    layer = (Attention if options.attention == "standard" else ChannelSeparatedAttention)(
        replace(options, qk_norm=True), TOKENS
    )
    for name, parameter in layer.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
    x = torch.randn(2, TOKENS, 24)
    assert torch.allclose(layer(100 * x), 100 * layer(x), rtol=1e-3, atol=1e-3)


@given(order=st.permutations(range(4)))
@settings(max_examples=10, deadline=None)
def test_permuting_the_groups_permutes_the_outputs(order):
    torch.manual_seed(0)
    layer = ChannelSeparatedAttention(SEPARATED, TOKENS)
    grouped = torch.randn(2, TOKENS, 4, 6)
    expected = layer(grouped.flatten(2)).view(2, TOKENS, 4, 6)[:, :, order]
    assert torch.allclose(layer(grouped[:, :, order].flatten(2)).view(2, TOKENS, 4, 6), expected, atol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("rotary", [True, False])
def test_a_channel_of_one_group_does_not_affect_another(shared, rotary):
    torch.manual_seed(0)
    options = replace(SEPARATED, shared_groups=shared, rotary=rotary)
    layer = ChannelSeparatedAttention(options, TOKENS)
    x = torch.randn(2, TOKENS, 24)
    changed = x.clone()
    changed[:, 3, 8] += 1.0  # of the second group
    difference = (layer(changed) - layer(x)).view(2, TOKENS, 4, 6).abs().amax((0, 1, 3))
    assert difference[1] > 1e-3
    assert not difference[[0, 2, 3]].any()


def test_groups_are_each_attended_to_as_by_the_definition():
    """RMS norms of a group's channels with their own gains, projections shared by groups, heads inside a group."""
    torch.manual_seed(0)
    layer = ChannelSeparatedAttention(SEPARATED, TOKENS)
    with torch.no_grad():
        layer.query_norm.uniform_(0.5, 2.0)
        layer.key_norm.uniform_(0.5, 2.0)
    x = torch.randn(1, TOKENS, 24)
    groups = []
    for group in x[0].split(6, dim=1):
        normed = group / (group.square().mean(1, keepdim=True) + 1e-6).sqrt()
        q = (normed * layer.query_norm[0]) @ layer.query.weight[0].T + layer.query.bias[0]
        k = (normed * layer.key_norm[0]) @ layer.key.weight[0].T + layer.key.bias[0]
        v = group @ layer.value.weight[0].T + layer.value.bias[0]
        heads = [
            (a @ b.T / math.sqrt(2)).softmax(1) @ c
            for a, b, c in zip(q.split(2, 1), k.split(2, 1), v.split(2, 1), strict=True)
        ]
        groups.append(torch.cat(heads, 1) @ layer.out.weight[0].T + layer.out.bias[0])
    assert torch.allclose(layer(x)[0], torch.cat(groups, 1), atol=1e-5)


def test_own_weights_of_the_groups_start_from_the_same_function_when_they_are_equal():
    torch.manual_seed(0)
    shared = ChannelSeparatedAttention(SEPARATED, TOKENS)
    own = ChannelSeparatedAttention(replace(SEPARATED, shared_groups=False), TOKENS)
    own.load_state_dict({name: t.expand(4, *t.shape[1:]) for name, t in shared.state_dict().items()})
    x = torch.randn(2, TOKENS, 24)
    assert torch.allclose(own(x), shared(x), atol=1e-5)


def test_the_kernel_in_use_is_named_for_the_record():
    assert attention_kernel(STANDARD, 16, 2, CPU, torch.float32) == "sdpa/flash_attention"
    assert attention_kernel(replace(STANDARD, backend="naive"), 16, 2, CPU, torch.float32) == "naive"
    assert attention_kernel(SEPARATED, 16, 2, CPU, torch.float32) == "sdpa/flash_attention"


def test_xformers_is_refused_in_words_where_it_is_not_installed(without_xformers):
    expected = (
        r"backend: got xformers, which cannot be imported \(.*\); allowed: sdpa, naive; .*install assay\[xformers\]"
    )
    with pytest.raises(ConfigError, match=expected):
        require_backend("xformers", CPU, torch.float32, 32)


@pytest.fixture
def without_xformers(monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", refuse)
    require_backend.cache_clear()
    yield
    require_backend.cache_clear()


def test_xformers_is_refused_in_words_where_it_has_no_kernel(monkeypatch):
    class Operators:
        @staticmethod
        def memory_efficient_attention(q, k, v):
            raise NotImplementedError("No operator found for this input:\n  device=cpu")

    monkeypatch.setattr(importlib, "import_module", lambda name: Operators)
    require_backend.cache_clear()
    expected = r"has no kernel for cpu, torch.float32, heads of 8 channels \(No operator found .* device=cpu\); allowed"
    with pytest.raises(ConfigError, match=expected):
        require_backend("xformers", CPU, torch.float32, 8)
    require_backend.cache_clear()


def test_xformers_gets_tokens_before_heads_and_refuses_a_mask(monkeypatch):
    class Operators:
        @staticmethod
        def memory_efficient_attention(q, k, v):
            return attend(q, k, v, "naive")  # the same layout: (B, T, heads, width)

    monkeypatch.setattr(importlib, "import_module", lambda name: Operators)
    require_backend.cache_clear()
    q, k, v = torch.randn(3, 2, 7, 3, 4)
    assert torch.allclose(attend(q, k, v, "xformers"), attend(q, k, v, "sdpa"), atol=1e-5)
    with pytest.raises(ConfigError, match="backend: got xformers with a mask; allowed: sdpa, naive; use sdpa"):
        attend(q, k, v, "xformers", torch.ones(2, 7, dtype=torch.bool))
    require_backend.cache_clear()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
@pytest.mark.parametrize("backend", ["sdpa", "xformers"])
def test_back_ends_agree_on_a_gpu(backend):
    if backend == "xformers":
        pytest.importorskip("xformers.ops")
    q, k, v = torch.randn(3, 4, 64, 8, 32, device="cuda")
    torch.set_float32_matmul_precision("highest")
    assert torch.allclose(attend(q, k, v, backend), attend(q, k, v, "naive"), atol=1e-5)
