"""What the Fourier neural operator baseline promises, and what is said where its package is missing."""

import importlib
from dataclasses import replace

import pytest
import torch

from assay.errors import ConfigError
from assay.studies.burgers.model import FNOBaseline, FNOOptions

OPTIONS = FNOOptions(cells=32, modes=6, width=8, layers=2, mean=0.2, std=0.6, viscosity=True)
DT, NU = torch.full((3,), 0.02), torch.full((3,), 0.01)


@pytest.fixture
def network() -> FNOBaseline:
    torch.manual_seed(0)
    return FNOBaseline(OPTIONS)


def test_without_its_package_the_baseline_is_refused_in_words(monkeypatch):
    def refuse(name):
        raise ModuleNotFoundError(f"No module named '{name}'")

    monkeypatch.setattr(importlib, "import_module", refuse)
    expected = r"baseline: got fno, which needs the package neuraloperator \(.*\); .*; make env has it"
    with pytest.raises(ConfigError, match=expected):
        FNOBaseline(OPTIONS)


@pytest.mark.parametrize("modes", [0, 17])
def test_more_modes_than_the_grid_has_are_refused(modes):
    with pytest.raises(ConfigError, match=rf"modes: got {modes}; allowed: 1 to 16, half of cells"):
        FNOBaseline(replace(OPTIONS, modes=modes))


def test_it_steps_fields_and_is_equivariant_to_shifts(network):
    u = torch.randn(3, 32)
    assert torch.allclose(network(u.roll(5, -1), DT, NU), network(u, DT, NU).roll(5, -1), atol=1e-5)
    with pytest.raises(ConfigError, match="viscosity: got true, but no viscosity"):
        network(u, DT)


def test_autocast_does_not_reach_its_fourier_transforms(network, monkeypatch):
    """A GPU has none in bfloat16; a CPU hides it, so the test looks at what they are given."""
    given, transform = [], torch.fft.rfftn
    monkeypatch.setattr(torch.fft, "rfftn", lambda u, **options: given.append(u.dtype) or transform(u, **options))
    u = torch.randn(3, 32)
    exact = network(u, DT, NU)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(u, DT, NU), exact)
    assert given and set(given) == {torch.float32}


def test_its_layers_mix_as_many_wave_numbers_as_asked(network):
    assert [layer.weight.parts.shape for layer in network.network.fno_blocks.convs] == [(8, 8, 6, 2)] * 2


def test_it_is_trained_and_saved_as_real_tensors(network):
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    network(torch.randn(3, 32), DT, NU).square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())
    optimizer.step()


def test_its_weights_come_back(network):
    torch.manual_seed(1)
    other = FNOBaseline(OPTIONS)
    u = torch.randn(3, 32)
    assert not torch.allclose(other(u, DT, NU), network(u, DT, NU))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(u, DT, NU), network(u, DT, NU))


def test_it_can_predict_the_change_or_the_field(network):
    whole = FNOBaseline(replace(OPTIONS, residual=False))
    whole.load_state_dict(network.state_dict())
    u = torch.randn(3, 32)
    assert torch.allclose(whole(u, DT, NU) - OPTIONS.mean, network(u, DT, NU) - u, atol=1e-5)


def test_it_can_keep_the_mean_of_the_field():
    torch.manual_seed(0)
    u = torch.randn(3, 32)
    for keeps in (True, False):
        network = FNOBaseline(
            FNOOptions(cells=32, modes=4, width=8, layers=1, mean=0.5, std=2.0, residual=False, conserve_mass=keeps)
        )
        drift = (network(u, torch.full((3,), 0.05)) - u).mean(-1).abs()
        assert bool((drift < 1e-6).all()) is keeps
