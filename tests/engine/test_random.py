"""Draws by key: equal keys give equal numbers, the order of samples is a function of seed and position."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.engine.random import DataOrder, derive, generator

keys = st.lists(st.integers(0, 2**31) | st.text(max_size=5), min_size=1, max_size=4)


def test_a_key_gives_the_same_seed_on_every_machine():
    assert derive(0, "init", 0) == 4748787535007274709


@given(keys)
def test_equal_keys_give_equal_numbers(key):
    one, two = (torch.rand(3, generator=generator(*key)) for _ in range(2))
    assert torch.equal(one, two)


def test_neighbouring_keys_give_unrelated_numbers():
    draws = torch.stack([torch.randn(2000, generator=generator(0, "noise", 0, index)) for index in range(50)])
    correlation = torch.corrcoef(draws) - torch.eye(50)
    assert correlation.abs().max() < 5 / 2000**0.5


@given(st.integers(0, 99), st.integers(1, 40), st.integers(0, 200), st.integers(1, 60))
def test_any_way_of_cutting_the_order_gives_the_same_order(seed, samples, start, count):
    whole = DataOrder(seed, range(samples)).at(0, start + count)
    assert DataOrder(seed, range(samples)).at(start, count) == whole[start:]


@given(st.integers(0, 99), st.integers(1, 40), st.integers(0, 5))
def test_each_epoch_has_every_sample_once(seed, samples, epoch):
    keys = DataOrder(seed, range(samples)).at(epoch * samples, samples)
    assert {number for number, _ in keys} == {epoch}
    assert sorted(index for _, index in keys) == list(range(samples))


def test_epochs_and_seeds_are_shuffled_differently():
    order = [index for _, index in DataOrder(0, range(30)).at(0, 60)]
    other = [index for _, index in DataOrder(1, range(30)).at(0, 30)]
    assert order[:30] != order[30:] and order[:30] != other
