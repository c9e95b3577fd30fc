"""What candidate selection promises: rewards that know the equation, a search that keeps its budget, fair rivals."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.studies.burgers.chance import random_score
from torch import Tensor

from assay.errors import ConfigError
from assay.studies.burgers import ttc
from assay.studies.burgers.ttc import (
    Found,
    Reward,
    SearchOptions,
    mean_rollout,
    oracle_score,
    residual,
    search,
)

CELLS, BATCH = 128, 6
X = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS
KAPPA = 0.02


def wave(t: float, mean: float = 0.3) -> Tensor:
    """An exact solution (Cole-Hopf): -2 kappa phi_x / phi, phi = 2 + exp(-4 pi^2 kappa t) cos(2 pi (x - mean t))."""
    x = X - mean * t
    decay = torch.exp(torch.tensor(-4 * torch.pi**2 * KAPPA * t, dtype=torch.float64))
    return mean + 4 * torch.pi * KAPPA * decay * torch.sin(2 * torch.pi * x) / (2 + decay * torch.cos(2 * torch.pi * x))


def reward(batch: int, **weights: float) -> Reward:
    return Reward(weights, torch.full((batch,), 0.02).double(), torch.full((batch,), KAPPA).double())


@pytest.mark.parametrize("name", ttc.TERMS)
def test_a_true_step_violates_nothing(name):
    assert float(ttc.TERMS[name](wave(0.0), wave(0.02))) > -1e-6


def test_a_true_step_leaves_a_residual_of_the_order_of_the_scheme():
    dt, kappa = torch.tensor([0.02]).double(), torch.tensor([KAPPA]).double()
    true = float(residual(wave(0.0)[None], wave(0.02)[None], dt, kappa))
    assert -1e-5 < true < 0
    assert float(residual(wave(0.0)[None], wave(0.0)[None], dt, kappa)) < 50 * true


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("mass", lambda u: u + 0.1),
        ("energy", lambda u: 1.1 * u),
        ("maximum", lambda u: u + 0.5 * torch.sin(2 * torch.pi * X)),
        ("boundary", lambda u: u + X),
        ("spectrum", lambda u: u + 0.3 * torch.cos(torch.pi * torch.arange(CELLS))),
    ],
)
def test_each_term_punishes_what_it_is_named_after_and_more_so_the_worse_it_is(name, wrong):
    u = wave(0.0)
    term = ttc.TERMS[name]
    values = [float(term(u, (1 - share) * u + share * wrong(u))) for share in (0.5, 1.0)]
    assert values[1] < values[0] < 0


def test_terms_have_their_closed_form_values():
    u, up = torch.tensor([0.0, 1.0, 0.0, -1.0]), torch.tensor([0.0, 2.0, 0.0, -1.0])
    assert float(ttc.mass(u, up)) == -0.25
    assert float(ttc.energy(u, up)) == pytest.approx(-0.375)
    assert float(ttc.maximum(u, up)) == -0.25
    assert float(ttc.boundary(u, torch.tensor([2.0, 1.0, 0.0, -1.0]))) == -2.0
    steepest = torch.tensor([1.0, -1.0]).repeat(4)  # the wave that its own variation just allows
    assert float(ttc.spectrum(steepest, 1.5 * steepest)) == pytest.approx(-0.5)


@given(st.lists(st.floats(-3, 3, width=32), min_size=4, max_size=32))
@settings(max_examples=50, deadline=None)
def test_a_field_never_violates_anything_against_itself(values):
    u = torch.tensor(values, dtype=torch.float64)
    for name in ("mass", "energy", "maximum", "spectrum"):
        assert float(ttc.TERMS[name](u, u)) > -1e-9


def test_rewards_judge_each_sample_and_candidate_alone():
    u = torch.stack([wave(0.0, mean) for mean in (0.0, 0.3)])
    good = torch.stack([wave(0.02, mean) for mean in (0.0, 0.3)])
    candidates = torch.stack([torch.stack([good[0], good[1] + 0.1]), torch.stack([good[0] + 0.1, good[1]])])
    judged = reward(2, mass=1.0, residual=1.0)(u, candidates, 0)
    assert judged.argmax(0).tolist() == [0, 1]
    parts = reward(2, mass=2.0, residual=1.0, energy=0.0).terms(u, candidates)
    assert list(parts) == ["mass", "residual"]
    assert torch.allclose(parts["mass"], 2.0 * ttc.mass(u, candidates))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"rho": 1.0},
            "reward.rho: got a weight; allowed terms: mass, energy, maximum, boundary, spectrum, residual; ",
        ),
        ({"mass": -1.0}, "reward.mass: got -1; allowed: >= 0"),
        ({"mass": 0.0}, "reward: got no weight above 0; allowed: one or more of mass"),
    ],
)
def test_rewards_that_mean_nothing_are_refused(weights, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        reward(1, **weights)


def options(steps: int = 3, candidates: int = 4, beam_width: int = 1, max_evaluations: int = 1000) -> SearchOptions:
    return SearchOptions(steps=steps, candidates=candidates, beam_width=beam_width, max_evaluations=max_evaluations)


class Walk:
    """Candidates around the last field, the same for every equally seeded search; counts what it is asked for."""

    def __init__(self) -> None:
        self.rng = torch.Generator().manual_seed(3)
        self.made = 0

    def __call__(self, fields: Tensor, count: int) -> Tensor:
        self.made += count * len(fields)
        return fields + torch.randn(count, *fields.shape, generator=self.rng)


START = torch.zeros(BATCH, 5)
TRUTH = torch.randn(BATCH, 3, 5, generator=torch.Generator().manual_seed(4)).cumsum(1)


def errors(found: Found) -> Tensor:
    return (found.trajectory - TRUTH).square().mean((1, 2))


def test_a_greedy_search_takes_for_each_sample_its_best_candidate():
    walk, scored = Walk(), []

    def score(u: Tensor, candidates: Tensor, step: int) -> Tensor:
        scored.append(-candidates.square().sum(-1))
        return scored[-1]

    found = search(walk, score, START, options(steps=1, candidates=16))
    candidates = Walk()(START, 16)
    best = scored[0].argmax(0)
    assert len(best.unique()) > 1
    assert torch.equal(found.trajectory[:, 0], candidates[best, torch.arange(BATCH)])
    assert torch.equal(found.score, scored[0].amax(0))


def test_each_step_goes_on_from_the_field_that_was_chosen():
    def propose(fields: Tensor, count: int) -> Tensor:
        return fields + torch.arange(1.0, count + 1)[:, None, None]

    found = search(propose, lambda u, candidates, step: candidates.mean(-1), START, options(candidates=3))
    assert found.trajectory[0, :, 0].tolist() == [3.0, 6.0, 9.0]
    assert float(found.score[0]) == 18.0


def test_a_beam_finds_what_greed_misses():
    """The poor first candidate is the only way to the rich second step."""

    def propose(fields: Tensor, count: int) -> Tensor:
        return torch.stack([10 * fields + 1, 10 * fields + 2])

    worth = {1.0: 1.0, 2.0: 0.0, 11.0: 0.0, 12.0: 0.0, 21.0: 0.0, 22.0: 5.0}

    def score(u: Tensor, candidates: Tensor, step: int) -> Tensor:
        return torch.tensor([[worth[float(field[0])] for field in row] for row in candidates])

    greedy = search(propose, score, torch.zeros(2, 1), options(steps=2, candidates=2))
    wide = search(propose, score, torch.zeros(2, 1), options(steps=2, candidates=2, beam_width=2))
    assert greedy.trajectory[:, :, 0].tolist() == [[1.0, 11.0]] * 2
    assert wide.trajectory[:, :, 0].tolist() == [[2.0, 22.0]] * 2
    assert wide.score.tolist() == [5.0, 5.0]


@given(steps=st.integers(1, 5), candidates=st.integers(1, 5), beam_width=st.integers(1, 6), spare=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_a_search_makes_no_more_candidates_than_its_budget_and_counts_them(steps, candidates, beam_width, spare):
    walk = Walk()
    limits = options(steps, candidates, beam_width, steps + spare)
    found = search(walk, random_score(torch.Generator().manual_seed(0)), START, limits)
    assert walk.made == found.evaluations * BATCH <= (steps + spare) * BATCH
    assert found.trajectory.shape == (BATCH, steps, 5)
    assert mean_rollout(Walk(), START, limits).evaluations <= steps + spare


def test_the_oracle_is_never_worse_than_random_choice_on_the_same_candidates_of_one_step():
    """One step, so that all choose from equal candidates; each sample alone."""
    truth = TRUTH[:, :1]
    oracle, lucky, alone = (
        (search(Walk(), score, START, options(steps=1, candidates=count)).trajectory - truth).square().mean((1, 2))
        for score, count in (
            (oracle_score(truth), 8),
            (random_score(torch.Generator().manual_seed(0)), 8),
            (oracle_score(truth), 1),
        )
    )
    assert (oracle <= lucky).all() and (oracle <= alone).all()
    assert oracle.mean() < lucky.mean()


def test_over_a_rollout_the_oracle_beats_random_choice_and_the_physical_reward_lies_between():
    u = torch.stack([wave(0.0, mean) for mean in (-0.2, 0.0, 0.3)])
    truth = torch.stack([torch.stack([wave(0.02 * k, mean) for k in (1, 2, 3)]) for mean in (-0.2, 0.0, 0.3)])

    def search_with(score) -> float:
        rng = torch.Generator().manual_seed(0)

        def propose(fields: Tensor, count: int) -> Tensor:
            """Persistence with an error that is a smooth bump of either sign, or a step in the right direction."""
            shift = torch.randn(count, len(fields), 1, generator=rng, dtype=torch.float64)
            return fields + 0.02 * shift * torch.sin(2 * torch.pi * X)

        found = search(propose, score, u, options(candidates=8, beam_width=2))
        return float((found.trajectory - truth).square().mean())

    chance = search_with(random_score(torch.Generator().manual_seed(1)))
    physical = search_with(reward(3, residual=1.0, mass=1.0))
    assert search_with(oracle_score(truth)) < physical < chance


def test_the_mean_of_the_ensemble_goes_on_from_the_mean():
    def propose(fields: Tensor, count: int) -> Tensor:
        return fields + torch.arange(float(count))[:, None, None]

    found = mean_rollout(propose, START, options(candidates=3))
    assert found.trajectory[0, :, 0].tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidates": 0}, "ttc.candidates: got 0; allowed: >= 1"),
        ({"beam_width": 0}, "ttc.beam_width: got 0; allowed: >= 1"),
        ({"steps": 0}, "ttc.steps: got 0; allowed: >= 1"),
        ({"max_evaluations": 2}, "ttc.max_evaluations: got 2; allowed: >= steps 3; raise it"),
    ],
)
def test_searches_that_cannot_be_made_are_refused(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        options(**changes)
