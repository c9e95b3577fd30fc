"""Initial conditions: the odds of every draw, and a sample that is a function of its number alone."""

import math

import pytest
import torch

from assay.studies.burgers.equation import cell_centres
from assay.studies.burgers.initial import BLOCK, InitialConditions, draw_initial, initial_conditions

N = 20_000


@pytest.fixture(scope="module")
def drawn() -> InitialConditions:
    return draw_initial(N, torch.Generator().manual_seed(0))


def near(share: torch.Tensor, probability: float) -> bool:
    """Within four standard errors."""
    return abs(float(share.double().mean()) - probability) < 4 * math.sqrt(probability * (1 - probability) / N)


def test_two_of_four_wave_numbers_are_drawn_with_replacement(drawn):
    assert (drawn.waves.sum(1) == 2).all()
    for wave in range(4):
        assert near(drawn.waves[:, wave] == 1, 2 * 1 / 4 * 3 / 4)
        assert near(drawn.waves[:, wave] == 2, 1 / 16)


def test_amplitudes_and_phases_are_uniform(drawn):
    for values, top in ((drawn.amplitude, 1.0), (drawn.phase, 2 * math.pi)):
        assert values.min() >= 0 and values.max() < top
        for quarter in (0.25, 0.5, 0.75):
            assert near(values[:, 2] < quarter * top, quarter)


def test_one_in_ten_is_an_absolute_value_one_in_ten_a_window_one_in_two_flipped(drawn):
    windowed = drawn.left.isfinite()
    assert near(drawn.absolute, 0.1) and near(windowed, 0.1) and near(drawn.sign < 0, 0.5)
    assert (windowed == drawn.right.isfinite()).all()
    assert drawn.left[windowed].min() >= 0.1 and drawn.left[windowed].max() < 0.45
    assert drawn.right[windowed].min() >= 0.55 and drawn.right[windowed].max() < 0.9
    both = (windowed & drawn.absolute).double().mean()
    assert both == pytest.approx(0.01, abs=0.003)


def one(**changes) -> InitialConditions:
    values = {
        "waves": torch.tensor([[0, 2, 0, 0]]),
        "amplitude": torch.tensor([[0.5, 0.8, 0.0, 0.3]], dtype=torch.float64),
        "phase": torch.tensor([[1.0, 2.0, 0.0, 3.0]], dtype=torch.float64),
        "absolute": torch.tensor([False]),
        "sign": torch.tensor([1.0], dtype=torch.float64),
        "left": torch.tensor([-math.inf], dtype=torch.float64),
        "right": torch.tensor([math.inf], dtype=torch.float64),
    }
    return InitialConditions(**values | changes)


def test_a_wave_drawn_twice_counts_double_and_one_not_drawn_is_a_constant():
    x = cell_centres(64)
    constant = 0.5 * math.sin(1.0) + 0.3 * math.sin(3.0)
    expected = constant + 0.8 * torch.sin(2 * math.pi * 4 * x + 2.0)
    torch.testing.assert_close(one().sample(x)[0], expected)


def test_absolute_value_comes_before_the_sign_and_both_before_the_window():
    x = cell_centres(200)
    negative = one(absolute=torch.tensor([True]), sign=torch.tensor([-1.0], dtype=torch.float64))
    torch.testing.assert_close(negative.sample(x), -one().sample(x).abs())
    edges = {"left": torch.tensor([0.3], dtype=torch.float64), "right": torch.tensor([0.7], dtype=torch.float64)}
    windowed, plain = one(**edges).sample(x)[0], one().sample(x)[0]
    torch.testing.assert_close(windowed[80:120], plain[80:120], rtol=1e-5, atol=0)
    assert windowed[:40].abs().max() < 1e-8 and windowed[60] == pytest.approx(plain[60].item() / 2, rel=0.3)


def test_without_an_exact_period_the_waves_are_one_cell_short():
    x = cell_centres(1024)
    exact, short = one().sample(x)[0], one().sample(x, exact_period=False)[0]
    assert short[0] != exact[0]
    torch.testing.assert_close(short[-1] - short[0], torch.tensor(0.0, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_sample_is_a_function_of_seed_and_number():
    x = cell_centres(32)
    many = initial_conditions(3, range(BLOCK + 5)).sample(x)
    few = initial_conditions(3, [BLOCK + 2, 7]).sample(x)
    assert torch.equal(few, many[[BLOCK + 2, 7]])
    assert not torch.equal(initial_conditions(4, [7]).sample(x), many[[7]])
    assert many.unique(dim=0).shape[0] == BLOCK + 5
