"""Two published studies' numbers: what they set out to show, and what they can show."""

import pytest
from scipy.stats import fisher_exact
from tests.matrix.made_runs import FAILED, MIN, claim, runs, verdict

from assay.matrix.study import MetricConfig
from assay.matrix.verdicts.comparison import spread_so_far
from assay.matrix.verdicts.hypotheses import judge
from assay.matrix.verdicts.power import answer
from assay.matrix.verdicts.replicates import failure_rate, replicates

# a published study with one run per arm: latent one-step NRMSE of a U-shaped and of a pure transformer for Burgers

NRMSE = runs(unet_128=[0.0577], unet_256=[0.0596], stack_128=[0.059332], separated_128=[0.0875])
PUBLISHED = {
    "H1": claim("equivalent", 0.05, "stack_128", "unet_128"),
    "H2": claim("superior", 0.10, "stack_256", "unet_256"),
    "H3": claim("equivalent", 0.05, "stack_128", "separated_128"),
    "H1 as a limit": claim("non_inferior", 0.05, "stack_128", 0.0577),
}
IDENTICAL_RUNS = [0.0831, 0.0849, 0.1047, 0.1247]
"""Four runs of one and the same configuration of that study."""


def test_the_published_pass_from_one_run_each_does_not_come_out():
    found = judge(PUBLISHED, {"m": MIN}, NRMSE)
    assert {name: each.verdict for name, each in found.items()} == {
        "H1": "INCONCLUSIVE",
        "H2": "INADMISSIBLE",
        "H3": "INCONCLUSIVE",
        "H1 as a limit": "INCONCLUSIVE",
    }
    assert found["H1"].effect.ratio == pytest.approx(1.028, abs=1e-3)
    assert found["H3"].effect.ratio == pytest.approx(0.678, abs=1e-3)
    assert (
        found["H1"].reason.startswith("one seed only, ratio 1.03: without")
        and "stack_256, every seed" in found["H2"].reason
    )


def test_the_announced_improvement_was_a_worsening():
    better = {"better": claim("superior", 0.0, "stack_128", "unet_128")}
    assert judge(better, {"m": MIN}, NRMSE)["better"].effect.ratio > 1


def test_what_the_replicates_of_that_study_say_its_claims_would_have_needed():
    spread = spread_so_far(PUBLISHED["H1"], runs(unet_128=IDENTICAL_RUNS))
    assert spread == pytest.approx(0.28, abs=0.01)
    equivalent = answer(PUBLISHED["H1"], 5, spread=spread)
    assert equivalent.can is False and equivalent.detectable > 0.3 and 200 < equivalent.seeds_needed < 400
    assert answer(PUBLISHED["H2"], 5, spread=spread).detectable > 0.5


# a published study of batch sizes: test loss of five seeds each, beside the constant model's

CONSTANT = 0.036361
BATCH_32 = {1: 0.0289, 12: 0.0788, 123: 0.0310, 1234: 1.1625, 12345: 0.5239}
BATCH_512 = {1: 0.0254, 12: 0.0237, 123: 0.0254, 1234: 0.0254, 12345: 0.0247}
BATCHES = runs(batch_32=BATCH_32, batch_512=BATCH_512)
DIVERGED = runs(
    batch_32={seed: FAILED if value > CONSTANT else value for seed, value in BATCH_32.items()}, batch_512=BATCH_512
)
STABLE_IS_BETTER = claim("superior", 0.0, "batch_512", "batch_32")


def test_three_of_five_seeds_at_batch_32_are_worse_than_a_constant_and_none_at_512():
    small, large = (replicates(DIVERGED, arm, "m") for arm in ("batch_32", "batch_512"))
    assert small.failed == (12, 1234, 12345) and large.failed == ()
    assert small.failures == failure_rate(3, 5) and large.failures == failure_rate(0, 5)
    assert (small.failures.low, small.failures.high) == pytest.approx((0.23, 0.88), abs=0.01)
    assert (large.failures.low, large.failures.high) == pytest.approx((0.0, 0.43), abs=0.01)


def test_that_batch_32_fails_more_often_is_not_shown_by_five_seeds_each():
    def p_value(failed: int, seeds: int) -> float:
        return fisher_exact([[failed, seeds - failed], [0, seeds]]).pvalue

    assert p_value(3, 5) == pytest.approx(0.167, abs=1e-3)
    fewest = next(n for n in range(5, 20) if p_value(round(0.6 * n), n) <= 0.05)
    assert fewest == 8


@pytest.mark.parametrize("cells", [BATCHES, DIVERGED], ids=["diverged values as they are", "diverged seeds as failed"])
@pytest.mark.parametrize("failed", ["worst", "exclude"])
def test_nor_is_it_that_512_is_better_although_it_was_at_every_seed(failed, cells):
    found = verdict(STABLE_IS_BETTER, cells, MetricConfig(direction="min", failed=failed))
    assert found.verdict == "INCONCLUSIVE"


def test_with_the_failed_seeds_as_the_worst_one_more_seed_could_show_it():
    found = verdict(STABLE_IS_BETTER, DIVERGED)
    assert found.p_value == 0.0625 and found.seeds_needed == 6
    assert found.failures["batch_32"].rate == 0.6 and found.failures["batch_512"].rate == 0


def test_what_the_five_seeds_do_show_is_that_512_beats_the_constant_and_not_that_32_does():
    beats = {arm: claim("superior", 0.0, arm, CONSTANT) for arm in ("batch_32", "batch_512")}
    found = judge(beats, {"m": MIN}, DIVERGED)
    assert found["batch_512"].verdict == "PASS" and found["batch_512"].p_adjusted < 1e-4
    assert found["batch_32"].verdict == "INCONCLUSIVE"
