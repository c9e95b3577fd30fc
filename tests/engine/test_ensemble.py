"""Several networks in one pass: each is what it would be alone, whatever its layers are."""

import pytest
import torch
from tests.engine.conftest import run
from torch import nn

from assay.engine.ensemble import Ensemble
from assay.engine.state import build_members


@pytest.mark.parametrize("member", [0, 1, 2])
def test_a_member_equals_its_lone_run(member, make_task, make_config, tmp_path):
    together = run(make_task(), make_config(ensemble_size=3), tmp_path / "ensemble")
    lone = make_task()
    starts = build_members(lone, 0, 3, torch.device("cpu"))
    lone.build = lambda: starts[member]
    alone = run(lone, make_config(), tmp_path / "lone")
    for name, tensor in alone.last.items():
        torch.testing.assert_close(together.last[name][member], tensor[0], rtol=1e-5, atol=1e-6)


def test_members_differ_and_member_0_is_the_single_run(make_task, make_config, tmp_path):
    together = run(make_task(), make_config(ensemble_size=2), tmp_path / "ensemble")
    alone = run(make_task(), make_config(), tmp_path / "lone")
    weight = together.last["0.weight"]
    assert not torch.allclose(weight[0], weight[1])
    torch.testing.assert_close(weight[0], alone.last["0.weight"][0], rtol=1e-5, atol=1e-6)


def test_dropout_of_member_0_is_that_of_the_single_run(make_task, make_config, tmp_path):
    together = run(make_task(dropout=0.5), make_config(ensemble_size=3), tmp_path / "ensemble")
    alone = run(make_task(dropout=0.5), make_config(), tmp_path / "lone")
    for name, tensor in alone.last.items():
        torch.testing.assert_close(together.last[name][0], tensor[0], rtol=1e-5, atol=1e-6)


class Scaled(nn.Module):
    """A layer with one number for its scale."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(1, 2), nn.Parameter(torch.tensor(1.5))

    def forward(self, x):
        return self.layer(x) * self.scale


class Tied(nn.Module):
    """The same weights twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.again, self.leave = nn.Linear(1, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.leave.weight = self.again.weight

    def forward(self, x):
        return self.leave(self.again(self.enter(x)).tanh())[:, :2]


class Marked(nn.Module):
    """A layer with a constant that is not kept in files."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 2)
        self.register_buffer("unit", torch.tensor([1.0, 2.0]), persistent=False)

    def forward(self, x):
        return self.layer(x) * self.unit


def frozen() -> nn.Module:
    """A random layer that is not trained below one that is."""
    network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 2))
    network[0].requires_grad_(False)
    return network


NETWORKS = {"frozen": frozen, "scalar": Scaled, "tied": Tied, "constant": Marked}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("member", [0, 1])
def test_a_member_equals_its_lone_run_with_any_parameters(network, member, make_task, make_config, tmp_path):
    task, config = make_task(), {"ema_decay": 0.5}
    task.build = NETWORKS[network]
    together = run(task, make_config(ensemble_size=2, **config), tmp_path / "ensemble")
    start = build_members(task, 0, 2, torch.device("cpu"))[member]
    task.build = lambda: start
    alone = run(task, make_config(**config), tmp_path / "lone")
    assert together.best_value[member] == pytest.approx(alone.best_value[0], rel=1e-5)
    assert together.last.keys() == alone.last.keys() == start.state_dict().keys()
    for name, tensor in alone.last.items():
        torch.testing.assert_close(together.last[name][member], tensor[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_members_weights_fit_its_network_and_give_the_same_outputs(network, size):
    members = [NETWORKS[network]() for _ in range(size)]
    ensemble = Ensemble(members)
    x = torch.linspace(-1, 1, 5)[:, None]
    for index, member in enumerate(members):
        wanted = member(x)
        fresh = NETWORKS[network]()
        fresh.load_state_dict({name: tensor[index] for name, tensor in ensemble.state().items()}, strict=True)
        assert torch.equal(fresh(x), wanted)
        assert torch.equal(ensemble.member(index)(x), wanted)
