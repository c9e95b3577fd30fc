"""What needs no training: shapes, limits, and the errors that a learned model has to beat."""

import pytest
import torch

from assay.errors import ConfigError
from assay.studies.burgers.baselines import coarse_solver, constant_mean, persistence
from assay.studies.burgers.equation import average_cells, cell_centres, frame_times
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.metrics import mass_drift, nrmse_pooled
from assay.studies.burgers.solver import solve

PUBLISHED = {0.01: (0.046, 0.086, 0.176), 0.1: (0.022, 0.044, 0.099)}
"""Pooled error of persistence at strides 1, 2 and 5, from an independent implementation with 96 trajectories."""


@pytest.fixture(scope="module")
def solved():
    """240 trajectories on 128 cells at two viscosities, to t = 2."""
    u0 = initial_conditions(0, range(240)).sample(cell_centres(128))
    return {nu: solve(u0, frame_times(), nu, "spectral") for nu in PUBLISHED}


@pytest.mark.parametrize("nu", PUBLISHED)
def test_persistence_is_as_wrong_as_published(solved, nu):
    for stride, published in zip((1, 2, 5), PUBLISHED[nu], strict=True):
        frames = solved[nu][:, ::stride]
        assert float(nrmse_pooled(frames[:, :-1], frames[:, 1:])) == pytest.approx(published, rel=0.1)


def test_persistence_and_constant_mean_stay():
    u0 = torch.tensor([[1.0, 2.0, 6.0]])
    assert persistence(u0, 2).tolist() == [[[1.0, 2.0, 6.0]] * 2]
    assert constant_mean(u0, 2).tolist() == [[[3.0] * 3] * 2]


def test_the_solution_tends_to_its_mean(solved):
    u = solved[0.1]
    error = (u - constant_mean(u[:, 0], u.shape[1])).abs().amax(-1)
    assert error[:, -1].median() < 0.05 * error[:, 0].median()


def test_a_coarse_solver_beats_persistence_and_keeps_the_mass(solved):
    u = solved[0.1][:16]
    times = frame_times()[::20]
    coarse, true = coarse_solver(u[:, 0], times, 0.1), average_cells(u[:, ::20], 64)
    assert coarse.shape == (16, 11, 64)
    assert float(nrmse_pooled(coarse, true)) < 2e-3
    assert float(nrmse_pooled(persistence(true[:, 0], 11), true)) > 0.2
    assert float(mass_drift(coarse)) < 1e-12


def test_cells_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="cells: got 64, allowed are the divisors of 100"):
        coarse_solver(torch.zeros(1, 100), [0.0, 0.1], 0.1)
