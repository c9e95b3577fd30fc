"""What the loop refuses to go on with: here the steps that loss scaling leaves out."""

import pytest
import torch

from assay.engine.health import MOST_SKIPPED, Health
from assay.errors import NonFiniteError

FINITE, INFINITE = torch.tensor([1.0]), torch.tensor([torch.inf])


def scaled() -> Health:
    return Health(torch.device("cpu"), {}, scaled=True)


def test_steps_that_are_all_left_out_end_the_run():
    health = scaled()
    for step in range(1, MOST_SKIPPED):
        health.watch(step, {"loss": FINITE}, INFINITE)
    with pytest.raises(NonFiniteError, match=r"100 steps in a row were left out.*set train\.precision: bf16"):
        health.watch(MOST_SKIPPED, {"loss": FINITE}, INFINITE)


def test_one_good_step_starts_the_count_anew():
    health = scaled()
    for step in range(1, 3 * MOST_SKIPPED):
        health.watch(step, {"loss": FINITE}, FINITE if step % MOST_SKIPPED == 0 else INFINITE)


def test_one_bad_member_leaves_out_the_step():
    health = scaled()
    with pytest.raises(NonFiniteError, match="100 steps in a row"):
        for step in range(1, MOST_SKIPPED + 1):
            health.watch(step, {"loss": torch.ones(2)}, torch.cat([FINITE, INFINITE]))


def test_without_scaling_the_first_infinite_gradient_ends_the_run():
    with pytest.raises(NonFiniteError, match="step 1: gradient of some parameter of member 0 is not finite"):
        Health(torch.device("cpu"), {}).watch(1, {"loss": FINITE}, INFINITE)


def test_an_infinite_loss_is_no_matter_of_scaling():
    with pytest.raises(NonFiniteError, match="step 3: loss of member 0 is not finite"):
        scaled().watch(3, {"loss": INFINITE}, FINITE)
