"""Figures: written whole, the same every time, and every estimator has a look of its own."""

import matplotlib.image
import pytest
import torch

from assay.studies.burgers import curves, figures
from assay.studies.burgers.equation import cell_centres
from assay.studies.burgers.evaluation import Case, Scores, judge, resamples, scores_of
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.solver import solve

STEPS, CELLS, COUNT = 8, 64, 3
SINGLE_NAMES = ("network", "fno", "persistence", "constant_mean", "linear", "untrained")
ENSEMBLE_NAMES = ("corrected", "distilled")
COARSE = ("coarse_solver_16", "coarse_solver_32")


@pytest.fixture(scope="module")
def case() -> Case:
    u0 = initial_conditions(0, range(COUNT)).sample(cell_centres(CELLS))
    return Case(0.1, 0.05, range(7, 7 + COUNT), solve(u0, [0.05 * step for step in range(STEPS + 1)], 0.1, "spectral"))


@pytest.fixture(scope="module")
def rollouts(case):
    """Noise of a size of its own for every estimator, four members for ensembles."""
    random = torch.Generator().manual_seed(0)
    found = {}
    for place, name in enumerate((*SINGLE_NAMES, *COARSE, *ENSEMBLE_NAMES)):
        members = (4,) if name in ENSEMBLE_NAMES else ()
        noise = torch.randn((*members, COUNT, 1, STEPS + 1, CELLS), generator=random, dtype=torch.float64)
        found[name] = case.truth[:, None] + 0.02 * (place + 1) * noise
    return found


def pixels(path) -> tuple[int, int]:
    image = matplotlib.image.imread(path)
    assert image.std() > 0.05, "something is drawn"
    return image.shape[:2]


def test_every_estimator_has_one_look():
    looks = figures.looks([*SINGLE_NAMES, *ENSEMBLE_NAMES, *COARSE])
    assert len({(look.colour, look.line) for look in looks.values()}) == len(looks)
    assert len({look.label for look in looks.values()}) == len(looks)


def drawn(name, case, rollouts, path) -> None:
    weights = resamples(COUNT, 100)
    if name == "error_by_time":
        figures.error_by_time(path, curves.times(case), curves.errors(case, rollouts, weights), case.nu)
    elif name == "spectrum":
        figures.spectrum(path, case, curves.spectra(case, rollouts))
    elif name == "shock":
        figures.shock(path, case, rollouts, 2)
    elif name == "spacetime":
        figures.spacetime(path, case, rollouts, 1)
    else:
        judged = {one: judge(rollouts[one], case.windows("rollout")) for one in ENSEMBLE_NAMES}
        rows = [row for task in ("sampled_step", "rollout") for row in scores_of(case, task, judged, (), weights)]
        figures.calibration(path, Scores(rows), case.nu, 4)


@pytest.mark.parametrize("name", ["error_by_time", "spectrum", "shock", "spacetime", "calibration"])
def test_figures_are_drawn_alike_twice_and_follow_what_they_show(case, rollouts, tmp_path, name):
    one, two, other = (tmp_path / f"{place}.png" for place in range(3))
    for path in (one, two):
        drawn(name, case, rollouts, path)
    assert one.read_bytes() == two.read_bytes()
    worse = {name: 0.1 + 2 * fields - case.truth[:, None] for name, fields in rollouts.items()}
    drawn(name, case, worse, other)
    assert pixels(one) == pixels(other) and one.read_bytes() != other.read_bytes()


def test_the_shock_is_the_steepest_fall_of_the_drawn_trajectories_after_the_given_frame():
    truth = torch.zeros(3, 4, 16)
    truth[0, 0, 5] = 9  # of the given frame
    truth[2, 1, 5] = 8  # of a trajectory that is not drawn
    truth[1, 2, 15] = 3  # falls across the seam
    truth[0, 3, 4] = 2
    assert figures.steepest(Case(0.1, 0.1, range(3), truth), 2) == (1, 2, 15)
    assert figures.steepest(Case(0.1, 0.1, range(3), truth), 3) == (2, 1, 5)


def test_a_shock_at_the_seam_is_drawn_as_one_in_the_middle(case, rollouts, tmp_path):
    rough = Case(case.nu, case.dt, case.rows, rollouts["linear"][:, 0])  # smooth ones may have two shocks alike
    turned = Case(case.nu, case.dt, case.rows, rough.truth.roll(20, -1))
    figures.shock(tmp_path / "here.png", rough, rollouts, 2)
    figures.shock(tmp_path / "there.png", turned, {name: u.roll(20, -1) for name, u in rollouts.items()}, 2)
    assert (tmp_path / "here.png").read_bytes() == (tmp_path / "there.png").read_bytes()


def test_a_band_has_the_mean_within_and_narrow_ends_for_equal_trajectories(case, rollouts):
    curve = curves.errors(case, rollouts, resamples(COUNT, 200))["network"]
    assert (curve.low <= curve.value).all() and (curve.value <= curve.high).all()
    same = Case(case.nu, case.dt, case.rows, case.truth[:1].expand(COUNT, -1, -1))
    alike = {"persistence": same.truth[:, None, :1].expand(-1, -1, STEPS + 1, -1)}
    curve = curves.errors(same, alike, resamples(COUNT, 200))["persistence"]
    torch.testing.assert_close(curve.low, curve.high)


def test_energies_of_an_ensemble_are_those_of_its_members_not_of_their_mean(case):
    noise = torch.randn(2, COUNT, 1, STEPS + 1, CELLS, generator=torch.Generator().manual_seed(0))
    opposed = torch.cat([noise, -noise])
    found = curves.spectra(case, {"corrected": opposed})
    assert found["corrected"].sum(1).tolist() == pytest.approx([0.5] * len(found["corrected"]), rel=0.3)
    expected = case.truth[:, curves.spectrum_frames(case)].square().mean((0, 2)) / 2
    torch.testing.assert_close(found["truth"].sum(1), expected)
