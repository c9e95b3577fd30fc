"""The solvers: order, error, invariants, and independence of what else is in the batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.errors import ConfigError, DataError
from assay.studies.burgers.equation import cell_centres, energy, mass
from assay.studies.burgers.exact import cole_hopf
from assay.studies.burgers.finite_volume import FiniteVolume
from assay.studies.burgers.initial import draw_initial, initial_conditions
from assay.studies.burgers.solver import frames, scheme, solve
from assay.studies.burgers.spectral import Spectral

TIMES = (0.0, 0.2, 0.5, 1.0, 2.0)
PUBLISHED = {
    ("muscl", 256, 0.001): 3.1e-2,
    ("muscl", 512, 0.001): 1.1e-2,
    ("muscl", 256, 0.01): 1.9e-3,
    ("spectral", 256, 0.001): 7.9e-2,
    ("spectral", 512, 0.001): 3.0e-2,
    ("spectral", 1024, 0.001): 6.3e-3,
    ("spectral", 256, 0.01): 2.4e-4,
    ("spectral", 512, 0.01): 3.0e-7,
    ("spectral", 256, 0.1): 2.2e-9,
}
"""Relative L2 error of an independent implementation, worst of the four times."""


def shifted_sine(x):
    return 0.3 + torch.sin(2 * math.pi * x)


def worst_error(name, cells, nu, times=TIMES):
    x = cell_centres(cells)
    exact = cole_hopf(shifted_sine, x, times, nu)
    error = solve(shifted_sine(x)[None], times, nu, name)[0] - exact
    return float((error.norm(dim=1) / exact.norm(dim=1)).max())


@pytest.mark.parametrize(("case", "published"), PUBLISHED.items(), ids=str)
def test_error_is_the_published_one_within_a_factor_of_one_and_a_half(case, published):
    error = worst_error(*case)
    assert error <= 1.5 * published
    assert error >= published / 1.5 or case[0] == "spectral"


def test_finite_volumes_are_of_second_order():
    coarse, fine = (worst_error("muscl", cells, 0.01, (0.0, 0.5)) for cells in (128, 256))
    assert 1.7 < math.log2(coarse / fine) < 2.1


def test_the_time_step_of_the_spectral_scheme_is_of_fourth_order():
    solver, x = Spectral(64, 0.1), cell_centres(64)
    state, exact = solver.start(shifted_sine(x)[None]), cole_hopf(shifted_sine, x, 0.1, 0.1)
    errors = [(solver.field(solver.advance(state, 0.1 / n, n))[0] - exact).abs().max() for n in (8, 16)]
    assert 3.7 < math.log2(errors[0] / errors[1]) < 4.6


def test_one_step_of_finite_volumes_by_hand():
    """u = 0, 1, 3, 4 on four cells, kappa 0.25 / 4, dt 0.01: slopes 0, 1.5, 1.5, 0 everywhere where they differ."""
    solver = FiniteVolume(4, 0.0625 * math.pi)
    u = [0.0, 1.0, 3.0, 4.0]

    def outflow(v):
        slope = []
        for i in range(4):
            a, b = v[i] - v[i - 1], v[(i + 1) % 4] - v[i]
            c = (a + b) / 2
            slope.append(math.copysign(min(2 * abs(a), 2 * abs(b), abs(c)), c) if a * b > 0 else 0.0)
        flux = []
        for i in range(4):
            j = (i + 1) % 4
            left, right = v[i] + slope[i] / 2, v[j] - slope[j] / 2
            advection = (left**2 / 2 + right**2 / 2 - abs(left + right) / 2 * (right - left)) / 2
            flux.append(advection - 0.0625 * (v[j] - v[i]) * 4)
        return [flux[i] - flux[i - 1] for i in range(4)]

    middle = [v - 0.01 * 4 / 2 * f for v, f in zip(u, outflow(u), strict=True)]
    after = [v - 0.01 * 4 * f for v, f in zip(u, outflow(middle), strict=True)]
    assert after != u
    result = solver.advance(torch.tensor([u], dtype=torch.float64), 0.01, 1)
    torch.testing.assert_close(result[0], torch.tensor(after, dtype=torch.float64), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("name", "nu"), [("muscl", 0.001), ("muscl", 0.02), ("spectral", 0.05)])
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_mass_stays_energy_falls_and_extremes_shrink(name, nu, seed):
    u0 = draw_initial(4, torch.Generator().manual_seed(seed)).sample(cell_centres(128))
    u = solve(u0, [0.0, 0.02, 0.05, 0.3], nu, name)
    assert (mass(u) - mass(u0)[:, None]).abs().max() < 1e-12
    assert (energy(u).diff(dim=1) <= 1e-12).all()
    if name == "muscl":
        assert (u.amax(-1) <= u0.amax(-1)[:, None] + 1e-12).all()
        assert (u.amin(-1) >= u0.amin(-1)[:, None] - 1e-12).all()


@pytest.mark.parametrize("name", ["muscl", "spectral"])
def test_each_step_keeps_the_mass_and_loses_energy(name):
    u0 = draw_initial(16, torch.Generator().manual_seed(1)).sample(cell_centres(256))
    solver = scheme(name, 256, 0.02)
    state, before = solver.start(u0), solver.field(solver.start(u0))
    for _ in range(20):
        state = solver.advance(state, float(solver.longest_step(before).min()), 1)
        after = solver.field(state)
        assert (mass(after) - mass(before)).abs().max() < 1e-12
        assert (energy(after) <= energy(before) + 1e-14).all()
        before = after


@pytest.mark.parametrize(("name", "tolerance"), [("muscl", 2e-2), ("spectral", 1e-6)])
def test_a_moving_observer_sees_the_same(name, tolerance):
    """Sixteen cells in the time, exactly: u(x, t) = m + v(x - m t, t)."""
    x = cell_centres(256)
    v = solve(torch.sin(2 * math.pi * x)[None], [0.0, 0.25], 0.05, name)[:, 1]
    u = solve(0.25 + torch.sin(2 * math.pi * x)[None], [0.0, 0.25], 0.05, name)[:, 1]
    assert (u - 0.25 - v.roll(16, -1)).abs().max() < tolerance


@pytest.mark.parametrize("name", ["muscl", "spectral"])
def test_both_schemes_solve_the_random_initial_conditions(name):
    u0 = initial_conditions(0, [1, 2]).sample(cell_centres(512))
    u = solve(u0, [0.0, 0.1], 0.05, name)[:, 1]
    exact = torch.stack([cole_hopf(row, cell_centres(512), 0.1, 0.05) for row in u0])
    assert ((u - exact).norm(dim=1) / exact.norm(dim=1)).max() < (3e-3 if name == "muscl" else 1e-5)


@pytest.mark.parametrize("name", ["muscl", "spectral"])
def test_a_row_does_not_depend_on_its_neighbours_nor_on_threads(name):
    u0 = initial_conditions(5, range(24)).sample(cell_centres(128))
    together = solve(u0, [0.0, 0.05, 0.1], 0.02, name)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert torch.equal(solve(u0, [0.0, 0.05, 0.1], 0.02, name), together)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(solve(u0[[3]], [0.0, 0.05, 0.1], 0.02, name)[0], together[3], rtol=0, atol=1e-13)


@pytest.mark.parametrize(("name", "tolerance"), [("muscl", 1e-3), ("spectral", 1e-6)])
def test_rows_in_lockstep_give_the_same_solutions(name, tolerance):
    u0 = initial_conditions(5, range(8)).sample(cell_centres(128))
    alone = list(frames(scheme(name, 128, 0.1), u0, [0.0, 0.1]))[1]
    together = list(frames(scheme(name, 128, 0.1), u0, [0.0, 0.1], lockstep=True))[1]
    assert 0 < (alone - together).abs().max() < tolerance


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["muscl", "spectral"])
def test_a_gpu_gives_the_same_solutions(name):
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    u0 = initial_conditions(5, range(8)).sample(cell_centres(128))
    here = list(frames(scheme(name, 128, 0.02), u0, [0.0, 0.1], lockstep=True))[1]
    there = list(frames(scheme(name, 128, 0.02), u0.cuda(), [0.0, 0.1]))[1]
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-10)


def test_auto_takes_the_scheme_that_resolves_the_shocks():
    assert isinstance(scheme("auto", 1024, 0.01), Spectral)
    assert isinstance(scheme("auto", 1024, 0.001), FiniteVolume)
    assert isinstance(scheme("auto", 8192, 0.001), Spectral)


def test_unknown_schemes_times_and_explosions_are_refused():
    u0 = torch.sin(2 * math.pi * cell_centres(32))[None]
    with pytest.raises(ConfigError, match="scheme: got 'weno', allowed are auto, muscl, spectral"):
        scheme("weno", 32, 0.01)
    with pytest.raises(ConfigError, match=r"viscosity: got -1.0, allowed"):
        solve(u0, [0.0, 0.1], -1.0)
    with pytest.raises(ConfigError, match=r"times: got \[0.0, 0.1, 0.1\], allowed are times that increase"):
        solve(u0, [0.0, 0.1, 0.1], 0.1)
    with pytest.raises(DataError, match=r"solution: not finite before t = 0.1; use more cells, or scheme muscl"):
        list(frames(scheme("muscl", 32, 0.1), u0 * math.nan, [0.0, 0.1]))
