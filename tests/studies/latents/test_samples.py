"""Training samples: what is observed when, which stimulus is seen, and in which order they come."""

import itertools

import pytest
import torch

from assay.studies.latents.samples import DRAWN, Order, Samples, interpolated
from assay.studies.latents.sections import SamplingConfig

CPU = torch.device("cpu")
STEPS, NEURONS = 41, 5
ACTIVITY = torch.arange(STEPS * NEURONS, dtype=torch.float32).view(STEPS, NEURONS) ** 2
STIMULUS = torch.arange(STEPS, dtype=torch.float32)[:, None] ** 2
ON = torch.ones(())


def samples(phase_seed: int = 0, **changes: object) -> Samples:
    plain = {"time_units": 1, "evolve_multiple_steps": 1, "acquisition": "all", "stimulus": "all", "replacement": True}
    return Samples(ACTIVITY, STIMULUS, SamplingConfig(**plain | changes), phase_seed)


def test_a_sample_is_a_time_step_what_is_seen_from_then_on_and_what_follows():
    made = samples(time_units=3, evolve_multiple_steps=2)
    batch = made.batch(torch.tensor([0, 10]), ON)
    assert made.steps == (3, 6) and made.numbers == STEPS - 6
    assert torch.equal(batch.activity, ACTIVITY[[0, 10]])
    assert torch.equal(batch.targets[1], ACTIVITY[[13, 16]])
    assert torch.equal(batch.stimulus[1], STIMULUS[10:16])
    assert batch.observed is None


def test_the_last_sample_ends_with_the_recording():
    made = samples(time_units=3, evolve_multiple_steps=2)
    last = made.batch(torch.tensor([made.numbers - 1]), ON)
    assert torch.equal(last.targets[0, -1], ACTIVITY[-1])


def test_time_aligned_samples_begin_at_multiples():
    made = samples(time_units=4, acquisition="time_aligned")
    assert made.numbers == 10
    assert torch.equal(made.batch(torch.tensor([2, 9]), ON).activity, ACTIVITY[[8, 36]])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("all", [100, 121, 144, 169]), ("held", [100, 100, 144, 144]), ("interpolated", [100, 122, 144, 170])],
)
def test_the_stimulus_between_observations(mode, expected):
    made = samples(time_units=2, evolve_multiple_steps=2, stimulus=mode)
    assert made.batch(torch.tensor([10]), ON).stimulus.flatten().tolist() == expected


def test_no_stimulus_is_none():
    assert samples(stimulus="none").batch(torch.tensor([0]), ON).stimulus is None


def test_staggered_neurons_are_observed_once_in_every_interval():
    made = samples(time_units=4, evolve_multiple_steps=2, acquisition="staggered")
    batch = made.batch(torch.arange(made.numbers), ON)
    assert made.steps == tuple(range(1, 9))
    assert torch.equal(batch.observed[:, :4].sum(1), torch.ones(made.numbers, NEURONS))
    assert torch.equal(batch.observed.sum(1), torch.full((made.numbers, NEURONS), 2))
    known = (torch.arange(STEPS)[:, None] - made.phase) % 4 == 0
    assert torch.equal(batch.observed[5], known[6:14])
    assert torch.equal(made.seen[known], ACTIVITY[known]) and not torch.equal(made.seen, ACTIVITY)


def test_phases_are_a_function_of_their_seed():
    one, same, other = (samples(seed, time_units=16, acquisition="staggered").phase for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_between_its_observations_a_neuron_is_interpolated_and_beyond_them_held():
    truth = torch.arange(10.0)[:, None] ** 2
    found = interpolated(truth.expand(-1, 2), torch.tensor([0, 2]), 3)
    assert found[:, 0].tolist() == [0, 3, 6, 9, 18, 27, 36, 51, 66, 81]
    assert found[:, 1].tolist() == [4, 4, 4, 11, 18, 25, 38, 51, 64, 64]


def test_permutations_have_every_sample_once_an_epoch_whatever_the_batch():
    order = Order(0, 10, 4, False, CPU)
    drawn = torch.cat([order.numbers(cursor) for cursor in range(5)])
    assert sorted(drawn[:10].tolist()) == sorted(drawn[10:].tolist()) == list(range(10))
    assert drawn[:10].tolist() != drawn[10:].tolist()


def test_a_batch_larger_than_an_epoch_spans_several():
    drawn = Order(0, 3, 8, False, CPU).numbers(0)
    assert sorted(drawn[:3].tolist()) == sorted(drawn[3:6].tolist()) == [0, 1, 2] and len(drawn) == 8


@pytest.mark.parametrize("replacement", [True, False])
def test_a_batch_is_a_function_of_seed_and_cursor(replacement):
    one, other = Order(0, 50, 7, replacement, CPU), Order(1, 50, 7, replacement, CPU)
    again = Order(0, 50, 7, replacement, CPU)
    for cursor in (2 * DRAWN, 0, DRAWN - 1, 3):
        assert torch.equal(one.numbers(cursor), again.numbers(cursor))
    assert not torch.equal(one.numbers(0), other.numbers(0))
    assert not torch.equal(one.numbers(0), one.numbers(DRAWN))


def test_draws_with_replacement_leave_a_third_of_the_samples_out():
    order = Order(0, 5000, 100, True, CPU)
    seen = {number for cursor in range(50) for number in order.numbers(cursor).tolist()}
    assert len(seen) == pytest.approx(5000 * 0.632, rel=0.03)
    assert all(len(order.numbers(cursor)) == 100 for cursor in itertools.islice(range(200), 3))
