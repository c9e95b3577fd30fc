"""The networks: local, typed, translation invariant, and stable whatever the gains."""

import numpy as np
import pytest
import torch

from assay.studies.latents.network import (
    MOST_FEEDBACK,
    REACH,
    build_network,
    feedback_factor,
    hexagon,
    positions,
    weights,
)
from assay.studies.latents.sizes import SIZES, Size


@pytest.mark.parametrize(("name", "neurons"), [("tiny", 304), ("small", 976), ("full", 14105)])
def test_presets_have_their_neurons(name, neurons):
    assert SIZES[name].neurons == neurons
    assert len(hexagon(SIZES[name].radius)) == SIZES[name].columns


def test_neighbouring_columns_are_one_unit_apart():
    places = positions(hexagon(1))
    middle = places[(np.abs(places) < 1e-9).all(1)][0]
    assert sorted(np.hypot(*(places - middle).T).round(9)) == [0.0, *[1.0] * 6]


def test_connections_are_local_enter_no_input_and_repeat_none():
    size = SIZES["small"]
    network = build_network(size, 0)
    sheet = hexagon(size.radius)
    offset = sheet[network.source % size.columns] - sheet[network.target % size.columns]
    assert np.abs([offset[:, 0], offset[:, 1], offset.sum(1)]).max() == REACH
    assert (network.target // size.columns >= size.input_types).all()
    assert len(set(zip(network.target, network.source, strict=True))) == len(network.target)
    assert 15 < len(network.target) / size.neurons < 25


def test_a_pair_of_types_has_one_sign_and_the_same_weights_in_every_column():
    size = SIZES["small"]
    network = build_network(size, 0)
    sheet = hexagon(size.radius)
    offset = sheet[network.source % size.columns] - sheet[network.target % size.columns]
    seen: dict[tuple[int, ...], set[float]] = {}
    signs: dict[tuple[int, int], set[float]] = {}
    kinds = zip(network.target // size.columns, network.source // size.columns, strict=True)
    for (target, source), place, weight in zip(kinds, offset.tolist(), network.weight, strict=True):
        seen.setdefault((target, source, *place), set()).add(float(weight))
        signs.setdefault((target, source), set()).add(float(np.sign(weight)))
    assert all(len(values) == 1 for values in [*seen.values(), *signs.values()])
    assert 0.5 < np.mean([next(iter(sign)) > 0 for sign in signs.values()]) < 0.75


def test_near_columns_are_connected_more_often_than_far_ones():
    """Offsets are drawn in proportion to exp(-distance), of which there are 7 up to one column away and 12 beyond."""
    counts = np.zeros(2)
    for seed in range(3):
        size = SIZES["small"]
        network = build_network(size, seed)
        sheet = hexagon(size.radius)
        middle = (sheet[network.target % size.columns] == 0).all(1)
        far = np.hypot(*positions(sheet[network.source[middle] % size.columns]).T) > 1.5
        counts += [np.sum(~far) / 7, np.sum(far) / 12]
    assert counts[0] > 1.5 * counts[1]


def test_seeds_give_networks_of_their_own():
    one, same, other = (build_network(SIZES["tiny"], seed) for seed in (0, 0, 1))
    assert np.array_equal(one.weight, same.weight) and np.array_equal(one.target, same.target)
    assert one.weight.shape != other.weight.shape or not np.array_equal(one.weight, other.weight)


@pytest.mark.parametrize("gain", [0.5, 1.0, 20.0])
def test_feedback_never_lets_rates_run_away(gain):
    """The bound that is taken from the types holds for the neurons: the Perron root of |W|, dense, on a small sheet."""
    size = Size(types=16, input_types=2, radius=2, sources=7.0)
    network = build_network(size, 3)
    gains = np.full(size.types, gain)
    matrix = torch.zeros(size.neurons, size.neurons, dtype=torch.float64)
    matrix[network.target, network.source] = torch.from_numpy(np.abs(weights(network, gains)))
    assert float(torch.linalg.eigvals(matrix).abs().max()) <= MOST_FEEDBACK + 1e-9
    assert 0 < feedback_factor(network, gains) <= 1
