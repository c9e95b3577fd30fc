"""Exact solutions: independent formulas for the same field agree, so that the solvers may be judged by them."""

import math

import numpy as np
import pytest
import torch

from assay.errors import ConfigError
from assay.studies.burgers.equation import average_cells, cell_centres, kappa
from assay.studies.burgers.exact import cole_hopf, sine_series, travelling_shock

PLACES = torch.tensor([0.05, 0.31, 0.49, 0.5, 0.66, 0.93], dtype=torch.float64)


def shifted_sine(x):
    return 0.3 + torch.sin(2 * math.pi * x)


@pytest.mark.parametrize(("nu", "t"), [(1.0, 0.05), (0.1, 0.5), (0.01, 0.2), (0.01, 2.0), (0.001, 0.3)])
def test_quadrature_agrees_with_the_bessel_series(nu, t):
    series = sine_series(0.3, 1.0, PLACES.tolist(), t, nu)
    assert (cole_hopf(shifted_sine, PLACES, t, nu) - series).abs().max() < 1e-9


def test_the_series_knows_a_negative_amplitude():
    series = sine_series(-0.2, -0.7, PLACES.tolist(), 0.4, 0.05)
    quadrature = cole_hopf(lambda x: -0.2 - 0.7 * torch.sin(2 * math.pi * x), PLACES, 0.4, 0.05)
    assert (series - quadrature).abs().max() < 1e-9


@pytest.mark.parametrize("cells", [63, 64])
def test_samples_and_their_function_give_the_same(cells):
    x = cell_centres(cells)
    sampled = cole_hopf(shifted_sine(x), PLACES, [0.0, 0.4], 0.01)
    assert (sampled - cole_hopf(shifted_sine, PLACES, [0.0, 0.4], 0.01)).abs().max() < 1e-9


def test_a_shock_travels_as_its_closed_form_says():
    x = torch.linspace(0.5, 0.7, 41, dtype=torch.float64)
    shock = {"left": 1.0, "right": 0.0, "start": 0.5}
    moved = cole_hopf(lambda y: travelling_shock(y, 0.0, 0.01, **shock), x, 0.2, 0.01)
    assert (moved - travelling_shock(x, 0.2, 0.01, **shock)).abs().max() < 1e-9


def test_mean_and_frame_of_reference():
    """v(x - m t) + m solves the equation if v does, and the mean of u stays."""
    x = cell_centres(256)
    resting = cole_hopf(lambda y: torch.sin(2 * math.pi * y), x - 0.3 * 0.5, 0.5, 0.02)
    moving = cole_hopf(shifted_sine, x, 0.5, 0.02)
    assert (moving - resting - 0.3).abs().max() < 1e-10
    assert abs(float(moving.mean()) - 0.3) < 1e-12


def test_numpy_in_one_time_or_several():
    x = np.linspace(0, 1, 5)
    several = cole_hopf(lambda y: np.sin(2 * np.pi * y), x, np.array([0.1, 0.2]), 0.1)
    assert several.shape == (2, 5) and several.dtype == torch.float64
    torch.testing.assert_close(several[1], cole_hopf(lambda y: np.sin(2 * np.pi * y), x, 0.2, 0.1))


def test_kappa_is_the_viscosity_over_pi():
    assert kappa(0.01) == 0.01 / math.pi


@pytest.mark.parametrize("nu", [0.0, -0.01, math.nan, math.inf])
def test_a_viscosity_that_is_not_positive_is_refused(nu):
    with pytest.raises(ConfigError, match=r"viscosity: got .*, allowed is a number > 0; use e.g. 0.01"):
        cole_hopf(shifted_sine, PLACES, 0.1, nu)


def test_times_before_the_start_are_refused():
    with pytest.raises(ConfigError, match=r"t: got -0.1, allowed are times >= 0"):
        cole_hopf(shifted_sine, PLACES, -0.1, 0.01)


def test_cells_are_averaged_in_equal_runs_or_not_at_all():
    assert average_cells(torch.tensor([[1.0, 3.0, 5.0, 9.0]]), 2).tolist() == [[2.0, 7.0]]
    with pytest.raises(ConfigError, match="cells: got 3, allowed are the divisors of 4"):
        average_cells(torch.zeros(4), 3)
