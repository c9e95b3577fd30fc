"""Scores of predictions whose errors are known: what counts, what does not, and how sure a score is."""

import math

import pytest
import torch

from assay.studies.burgers import evaluation, metrics
from assay.studies.burgers.calibration import calibration_error, coverage
from assay.studies.burgers.equation import cell_centres
from assay.studies.burgers.estimators import coarse_solver, constant_mean, persistence
from assay.studies.burgers.evaluation import (
    PRIMARY,
    Case,
    Scores,
    judge,
    mean,
    per_trajectory,
    predicted,
    ratio,
    resamples,
    sampled,
    scores_of,
    seeded,
)
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.solver import solve

NU, DT, STEPS, CELLS, TRAJECTORIES = 0.1, 0.1, 10, 32, 6
ERRORS = ("nrmse_frame", "nrmse_trajectory", "mass_gap", "brmse", "seam_jump", "shock_position_error")


@pytest.fixture(scope="module")
def case() -> Case:
    """Rows 10 to 15 of some data set."""
    u0 = initial_conditions(0, range(TRAJECTORIES)).sample(cell_centres(CELLS))
    truth = solve(u0, [DT * step for step in range(STEPS + 1)], NU, "spectral")
    return Case(NU, DT, range(10, 10 + TRAJECTORIES), truth)


def noisy(truth, size=0.1):
    return truth + size * torch.randn(truth.shape, generator=torch.Generator().manual_seed(1), dtype=truth.dtype)


@pytest.mark.parametrize("task", ["one_step", "sampled_step", "rollout"])
def test_the_truth_has_no_error_and_obeys_the_equation(case, task):
    judged = judge(case.windows(task), case.windows(task))
    values = {name: float(value.mean()) for name, value in (judged.by_trajectory | judged.pooled).items()}
    assert {name for name in values if name.startswith("frmse")} == {"frmse_low", "frmse_middle", "frmse_high"}
    assert values == pytest.approx(dict.fromkeys(values, 0), abs=1e-9)


def test_persistence_has_the_error_of_one_step_of_all_true_frames_and_of_a_rollout_without_the_first_frame(case):
    u = case.truth
    one = judge(predicted(persistence, case, "one_step"), case.windows("one_step"))
    assert float(one.by_trajectory[PRIMARY].mean()) == pytest.approx(float(metrics.nrmse_frame(u[:, :-1], u[:, 1:])))
    whole = judge(predicted(persistence, case, "rollout"), case.windows("rollout"))
    later = u[:, :1].expand(-1, STEPS, -1)
    assert float(whole.by_trajectory[PRIMARY].mean()) == pytest.approx(float(metrics.nrmse_frame(later, u[:, 1:])))


def test_a_forecast_starts_from_every_frame_that_has_a_next_one(case):
    seen = []

    def forecast(start, nu, steps):
        seen.append((start, nu, steps))
        return persistence(start, nu, steps)

    predicted(forecast, case, "one_step")
    start, nu, steps = seen[0]
    assert (nu, steps) == (NU, 1)
    assert torch.equal(start.view(TRAJECTORIES, STEPS, CELLS), case.truth[:, :-1])
    predicted(forecast, case, "rollout")
    assert torch.equal(seen[1][0], case.truth[:, 0]) and seen[1][2] == STEPS


def test_sampled_steps_are_some_of_the_single_steps_first_and_last_among_them(case):
    pairs, some = case.windows("one_step"), case.windows("sampled_step")
    assert some.shape == (TRAJECTORIES, evaluation.STARTS, 2, CELLS)
    assert torch.equal(sampled(predicted(persistence, case, "one_step")), predicted(persistence, case, "sampled_step"))
    assert torch.equal(some[:, 0], pairs[:, 0]) and torch.equal(some[:, -1], pairs[:, -1])


def test_the_score_is_the_mean_of_the_trajectories(case):
    fields = noisy(case.truth)
    judged = judge(fields[:, None], case.windows("rollout"))
    for name in ERRORS:
        expected = getattr(metrics, name)(fields[:, 1:], case.truth[:, 1:])
        assert float(judged.by_trajectory[name].mean()) == pytest.approx(float(expected)), name
    expected = [float(each) for each in metrics.frmse(fields[:, 1:], case.truth[:, 1:])]
    assert [float(judged.pooled[f"frmse_{band}"]) for band in evaluation.BANDS] == pytest.approx(expected)
    assert float(judged.pooled["crmse"]) == pytest.approx(float(metrics.crmse(fields[:, 1:], case.truth[:, 1:])))


def test_the_given_frame_is_no_part_of_an_error_but_the_beginning_of_a_drift(case):
    fields = noisy(case.truth)[:, None]
    other = fields.clone()
    other[:, :, 0] += 1
    one, two = (judge(each, case.windows("rollout")) for each in (fields, other))
    for name in (*ERRORS, "crps"):
        assert torch.equal(one.by_trajectory[name], two.by_trajectory[name]), name
    assert float(two.by_trajectory["mass_drift"].mean()) > 0.9 > float(one.by_trajectory["mass_drift"].mean())


def test_physics_is_judged_from_the_given_frame_on(case):
    def gains(start, nu, steps):
        return torch.stack([start + 0.5 * step for step in range(steps + 1)], dim=1)

    one = judge(predicted(gains, case, "one_step"), case.windows("one_step")).by_trajectory
    assert one["mass_drift"].tolist() == pytest.approx([0.5] * TRAJECTORIES)
    assert one["overshoot"].tolist() == pytest.approx([0.5] * TRAJECTORIES)
    still = judge(predicted(constant_mean, case, "rollout"), case.windows("rollout")).by_trajectory
    assert still["energy_growth"].max() < 1e-12 and still["mass_drift"].max() < 1e-12 and not still["overshoot"].any()


def test_a_prediction_on_fewer_cells_is_judged_on_these(case):
    judged = judge(predicted(coarse_solver(16, DT), case, "rollout"), case.windows("rollout")).by_trajectory
    rival = judge(predicted(persistence, case, "rollout"), case.windows("rollout")).by_trajectory
    assert judged[PRIMARY].mean() < 0.1 * rival[PRIMARY].mean()
    assert judged["mass_gap"].max() < 1e-12


def test_a_trajectory_that_diverges_is_counted_and_leaves_the_score_undefined(case):
    fields = noisy(case.truth)[:, None]
    fields[2, 0, 5] = torch.nan
    judged = judge(fields, case.windows("rollout"))
    rows = scores_of(case, "rollout", {"network": judged}, (), resamples(TRAJECTORIES, 100))
    found = {row.metric: row for row in rows}
    assert found["diverged"].value == pytest.approx(1 / TRAJECTORIES)
    assert math.isnan(found[PRIMARY].value) and found[PRIMARY].n == TRAJECTORIES


def ensemble_of(members: int, spread: float, case: Case) -> torch.Tensor:
    """Normal members about 0 for every true value of a case."""
    random = torch.Generator().manual_seed(2)
    return spread * torch.randn((members, *case.windows("rollout").shape), generator=random, dtype=torch.float64)


@pytest.fixture(scope="module")
def standard_normal() -> Case:
    truth = torch.randn(20, 11, 50, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Case(NU, DT, range(20), truth)


def test_members_from_the_right_distribution_are_reliable_but_few_cover_too_little(standard_normal):
    judged = judge(ensemble_of(8, 1.0, standard_normal), standard_normal.windows("rollout"))
    assert float(judged.pooled["spread_skill"]) == pytest.approx(1, abs=0.02)
    assert float(judged.pooled["excess_calibration_error"]) < 0.02 < 0.1 < float(judged.pooled["calibration_error"])
    assert float(judged.by_trajectory["crps"].mean()) == pytest.approx(1 / math.sqrt(math.pi), abs=0.02)
    assert float(judged.by_trajectory["coverage_50"].mean()) == pytest.approx(0.5 * 7 / 9, abs=0.03)


def test_members_that_agree_too_much_are_overconfident(standard_normal):
    judged = judge(ensemble_of(8, 0.5, standard_normal), standard_normal.windows("rollout"))
    assert float(judged.pooled["spread_skill"]) < 0.6
    assert float(judged.pooled["excess_calibration_error"]) > 0.1


def test_calibration_by_trajectory_is_that_of_all_together(standard_normal):
    samples, truth = ensemble_of(4, 0.7, standard_normal), standard_normal.windows("rollout")
    expected = float(calibration_error(coverage(samples[..., 1:, :], truth[..., 1:, :])))
    assert float(judge(samples, truth).pooled["calibration_error"]) == pytest.approx(expected)


def test_the_mean_of_an_ensemble_is_scored_as_its_prediction(case):
    members = torch.stack([case.windows("rollout") + 0.1, case.windows("rollout") - 0.1])
    judged = judge(members, case.windows("rollout"))
    assert judged.by_trajectory[PRIMARY].max() < 1e-12
    one = judge(members[0], case.windows("rollout"))
    assert one.by_trajectory["crps"].tolist() == pytest.approx([0.1] * TRAJECTORIES)  # of one member: |p - t|


def test_an_ensemble_draws_the_same_every_time_and_others_differently(case):
    def ensemble(start, nu, steps, rng):
        return torch.randn((3, len(start), steps + 1, CELLS), generator=rng)

    one, again = (predicted(seeded(ensemble, "corrected"), case, "rollout") for _ in range(2))
    assert one.shape == (3, TRAJECTORIES, 1, STEPS + 1, CELLS)
    assert torch.equal(one, again)
    assert not torch.equal(one, predicted(seeded(ensemble, "distilled"), case, "rollout"))


def test_an_interval_is_as_wide_as_the_spread_over_trajectories_makes_it():
    values = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = mean(values, resamples(100, 4000))
    half = 1.96 * float(values.std()) / 10
    assert found.value == pytest.approx(float(values.mean()))
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)


def test_one_trajectory_gives_no_interval():
    found = mean(torch.tensor([0.3], dtype=torch.float64), resamples(1, 100))
    assert found.value == 0.3 and math.isnan(found.low) and math.isnan(found.high)


def test_a_ratio_is_of_the_same_trajectories(case):
    hard_and_easy = torch.logspace(-3, 1, 20, dtype=torch.float64)
    weights = resamples(20, 500)
    assert ratio(0.5 * hard_and_easy, hard_and_easy, weights) == pytest.approx((0.5, 0.5, 0.5))
    alone = mean(hard_and_easy, weights)
    assert alone.high > 2 * alone.low


def test_every_estimator_is_set_against_the_references_that_there_are(case):
    truth = case.windows("rollout")
    judged = {"network": judge(noisy(truth), truth), "fno": judge(noisy(truth, 0.2), truth)}
    rows = scores_of(case, "rollout", judged, ("network", "fno", "corrected"), resamples(TRAJECTORIES, 100))
    scores = Scores(rows)
    assert {row.metric for row in rows if row.metric.startswith("ratio")} == {"ratio_network", "ratio_fno"}
    found = scores.get(NU, "rollout", "network", "ratio_fno")
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))  # the same noise at half the size
    assert math.isnan(scores.get(NU, "rollout", "network", "ratio_corrected").value)


def test_parts_are_named_by_the_row_of_the_data_set(case):
    truth = case.windows("rollout")
    judged = {"network": judge(noisy(truth), truth)}
    rows = per_trajectory(case, "rollout", judged)
    assert [row[:4] for row in rows] == [[NU, "network", "rollout", row] for row in range(10, 16)]
    assert [row[4] for row in rows] == judged["network"].by_trajectory[PRIMARY].tolist()
