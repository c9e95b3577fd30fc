"""Random deadlines: every attempt ends before its own, not long before, and a chain of them ends as one run would."""

import os
import random
import re
import statistics
import time
from collections import Counter
from dataclasses import dataclass

import pytest

from assay.progress import UNFINISHED

RUNS = int(os.environ.get("TORTURE_DEADLINES", "1"))
SEED = int(os.environ.get("TORTURE_SEED", "0"))
PARAMETERS = {"train.steps": "3000", "train.checkpoint_every": "200", "train.log_every": "10"}
SHARE_SHORT = 0.15
SHORT_S, LONG_S = (1.0, 6.0), (8.0, 20.0)
"""Deadlines: too short to train in, and long enough for some of it; undisturbed, all takes 20 to 40 s."""
MARGIN_S = 5.0
"""How early an attempt may end, beyond a checkpoint and two steps."""
MOST_ATTEMPTS = 60
RESUMED = re.compile(r"train: goes on from step (\d+)")


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt. early_s: before its deadline it ended; allowed_s: how much of that is within bounds.

    killed: it was ended by force; saved: the step of the newest checkpoint; lost: steps that were done after it.
    """

    deadline_s: float
    took_s: float
    code: int
    killed: bool
    saved: int
    lost: int
    made: int
    allowed_s: float

    @property
    def early_s(self) -> float:
        return self.deadline_s - self.took_s


def allowed_s(record: dict, steps: int) -> float:
    """A checkpoint, two steps and the margin, from what the attempt measured."""
    seconds = record["stages"][-1]["seconds"] if record["stages"] else {}
    training, checkpoints = sum(seconds.get("train", [])), seconds.get("checkpoint", [])
    return MARGIN_S + max(checkpoints, default=0) + (2 * training / steps if steps else 0)


def attempt(trial, deadline_s: float) -> Attempt:
    """Give the command with a deadline, and look at the clock when it has ended."""
    before, begun = trial.saved(), time.monotonic()
    code = trial.start("--deadline", f"{deadline_s:.3f}").wait(deadline_s + 60)
    took, log, saved = time.monotonic() - begun, trial.log(), trial.saved()
    assert not trial.processes()
    assert all(int(step) == before for step in RESUMED.findall(log))
    return Attempt(
        deadline_s=deadline_s,
        took_s=took,
        code=code,
        killed="killing the command" in log,
        saved=saved,
        lost=max(0, trial.seen() - saved) if code != 0 else 0,
        made=saved - before,
        allowed_s=allowed_s(trial.attempt(), saved - before),
    )


def chain(project, seed: str) -> list[Attempt]:
    """Attempts with random deadlines until the run is complete; it must end as the undisturbed one."""
    rng, trial, attempts = random.Random(seed), project.trial(), []
    while not attempts or attempts[-1].code != 0:
        assert len(attempts) < MOST_ATTEMPTS, attempts
        short = rng.random() < SHARE_SHORT
        attempts.append(attempt(trial, rng.uniform(*(SHORT_S if short else LONG_S))))
        assert attempts[-1].code in (0, UNFINISHED), trial.log()
    assert trial.files() == project.undisturbed.files
    trial.remove()
    return attempts


@pytest.fixture(scope="module")
def project(trained_project):
    return trained_project(PARAMETERS)


def test_no_attempt_is_ended_by_its_limit_or_long_before_and_the_chain_ends_as_one_run(project, side_by_side, report):
    chains = side_by_side(lambda index: [chain(project, f"{SEED}-{index}")], RUNS)
    attempts = [one for attempts in chains for one in attempts]
    asked = [one for one in attempts if one.code == UNFINISHED]
    assert asked, "every run was complete before its deadline: give it more steps"
    early = [one.early_s for one in asked]
    report(
        "deadlines",
        {
            "runs": len(chains),
            "undisturbed_s": round(project.undisturbed.seconds, 1),
            "attempts": len(attempts),
            "attempts_of_a_run_most": max(map(len, chains)),
            "codes": dict(sorted(Counter(one.code for one in attempts).items())),
            "bit_identical_runs": len(chains),
            "ended_after_their_limit": sum(one.early_s <= 0 for one in attempts),
            "early_least_s": round(min(early), 2),
            "early_median_s": round(statistics.median(early), 2),
            "early_most_s": round(max(early), 2),
            "too_early": sum(one.early_s > one.allowed_s for one in asked),
            "killed_with_all_steps_saved": sum(one.killed and not one.lost for one in asked),
            "steps_lost": sum(one.lost for one in attempts),
            "attempts_that_made_no_step": sum(one.made == 0 for one in asked),
        },
    )
    assert not [one for one in attempts if one.early_s <= 0]
    assert not [one for one in asked if one.early_s > one.allowed_s]
    assert not [one for one in attempts if one.lost]


@pytest.mark.torture
def test_a_deadline_too_short_to_train_in_is_kept_and_costs_nothing(project):
    trial = project.trial()
    first = attempt(trial, 12)
    assert (first.code, first.saved > 0) == (UNFINISHED, True)
    for deadline_s in (1.5, 3, 5):
        again = attempt(trial, deadline_s)
        assert again.code == UNFINISHED
        assert again.took_s < deadline_s
        assert again.saved >= first.saved
    assert trial.start().wait(120) == 0
    assert trial.files() == project.undisturbed.files
