"""The Tversky term under partial annotation: what it equals, what changes it, and what must not."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.studies.organelles.conftest import PARAMS, TINY
from tests.studies.organelles.losses.conftest import COUNT, draw_batch

from assay.config import load
from assay.studies.organelles.config import Params
from assay.studies.organelles.losses import PartialTversky, balanced_softmax_partial_tversky, build_loss
from assay.studies.organelles.prior import Frequencies, adjustment

LAW = settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
FLAT = torch.full((COUNT,), 0.1)


def plain(**changes):
    given = {"adjust": "none", "smooth": 1e-6, "alpha": [0.6], "beta": [0.4], **changes}
    return load(Params, PARAMS, [*TINY, *(f"loss.{key}={value}" for key, value in given.items())]).loss


def reference(logits, target, weights=(0.6, 0.4), smooth=1e-6, least=10, shift=None):
    """The published formula class by class in float64."""
    logits = logits.double() if shift is None else logits.double() - shift.double().view(1, -1, 1, 1)
    losses, (alpha, beta) = [], weights
    for place in range(logits.shape[1]):
        known = ~target[:, place].isnan()
        if known.sum() < least:
            continue
        p, y = logits[:, place][known].sigmoid(), target[:, place][known].double()
        tp, fp, fn = (p * y).sum(), (p * (1 - y)).sum(), ((1 - p) * y).sum()
        losses.append(1 - (tp + smooth) / (tp + alpha * fp + beta * fn + smooth))
    return torch.stack(losses).mean() if losses else torch.zeros(())


@given(seed=st.integers(0, 10**6), annotated=st.sampled_from([0.0, 0.2, 0.6, 1.0]))
@LAW
def test_it_is_the_formula_in_double_precision(seed, annotated):
    logits, target = draw_batch(seed, annotated=annotated)
    found = PartialTversky(plain(), FLAT)(logits, target)
    assert float(found) == pytest.approx(float(reference(logits, target)), rel=1e-5, abs=1e-7)


@given(
    seed=st.integers(0, 10**6), alpha=st.floats(0.05, 1), beta=st.floats(0.05, 1), smooth=st.sampled_from([1e-6, 1.0])
)
@LAW
def test_its_weights_and_smoothing_are_those_of_the_formula(seed, alpha, beta, smooth):
    logits, target = draw_batch(seed)
    found = PartialTversky(plain(alpha=[alpha], beta=[beta], smooth=smooth), FLAT)(logits, target)
    assert float(found) == pytest.approx(float(reference(logits, target, (alpha, beta), smooth)), rel=1e-5)


@given(seed=st.integers(0, 10**6))
@LAW
def test_alpha_and_beta_of_one_half_are_dice(seed):
    logits, target = draw_batch(seed, annotated=1.0)
    known = ~target.isnan()
    p, y = logits.sigmoid() * known, target.nan_to_num(0)
    dice = 2 * (p * y).sum((0, 2, 3)) / (p.sum((0, 2, 3)) + y.sum((0, 2, 3)))
    found = PartialTversky(plain(alpha=[0.5], beta=[0.5]), FLAT)(logits, target)
    assert float(found) == pytest.approx(float(1 - dice.mean()), rel=1e-5)


@given(seed=st.integers(0, 10**6))
@LAW
def test_voxels_that_are_not_annotated_have_no_gradient_and_no_influence(seed):
    logits, target = draw_batch(seed)
    logits.requires_grad_()
    loss = PartialTversky(plain(adjust="add"), FLAT)
    loss(logits, target).backward()
    unknown = target.isnan()
    assert (logits.grad[unknown] == 0).all()
    assert (logits.grad[~unknown] != 0).any()
    moved = torch.where(unknown, torch.randn_like(logits) * 50, logits.detach())
    assert torch.equal(loss(moved, target), loss(logits.detach(), target))


@given(seed=st.integers(0, 10**6), pooling=st.sampled_from(["batch", "sample"]))
@LAW
def test_the_order_of_samples_does_not_matter(seed, pooling):
    logits, target = draw_batch(seed, samples=4)
    loss = PartialTversky(plain(pooling=pooling), FLAT)
    order = torch.randperm(4, generator=torch.Generator().manual_seed(seed))
    assert float(loss(logits[order], target[order])) == pytest.approx(float(loss(logits, target)), rel=1e-5)


@given(seed=st.integers(0, 10**6), place=st.integers(0, COUNT - 1))
@LAW
def test_a_class_that_nobody_annotated_might_as_well_not_exist(seed, place):
    logits, target = draw_batch(seed, annotated=1.0)
    target[:, place] = math.nan
    kept = [other for other in range(COUNT) if other != place]
    with_it = balanced_softmax_partial_tversky(logits, target, FLAT)
    without = balanced_softmax_partial_tversky(logits[:, kept], target[:, kept], FLAT[kept])
    assert float(with_it) == pytest.approx(float(without), rel=1e-6)


@given(seed=st.integers(0, 10**6), adjust=st.sampled_from(["add", "subtract", "post-hoc"]))
@LAW
def test_a_tau_of_0_is_no_adjustment(seed, adjust):
    logits, target = draw_batch(seed)
    prior = torch.logspace(-5, -1, COUNT)
    adjusted = PartialTversky(plain(adjust=adjust, tau=0.0), prior)
    assert torch.equal(adjusted(logits, target), PartialTversky(plain(), prior)(logits, target))
    assert torch.equal(adjusted.decision(logits), logits)


def test_monai_agrees_where_everything_is_annotated():
    from monai.losses.tversky import TverskyLoss

    logits, target = draw_batch(5, annotated=1.0)
    target = target.nan_to_num(0)
    for batch, pooling in ((True, "batch"), (False, "sample")):
        theirs = TverskyLoss(
            sigmoid=True, alpha=0.6, beta=0.4, batch=batch, smooth_nr=1e-6, smooth_dr=1e-6, include_background=True
        )(logits, target)
        ours = PartialTversky(plain(pooling=pooling), FLAT)(logits, target)
        assert float(ours) == pytest.approx(float(theirs), rel=1e-5)


def test_a_sample_without_annotation_is_no_sample():
    logits, target = draw_batch(3, samples=3, annotated=1.0)
    target[1] = math.nan
    loss = PartialTversky(plain(pooling="sample"), FLAT)
    others = [0, 2]
    assert float(loss(logits, target)) == pytest.approx(float(loss(logits[others], target[others])), rel=1e-6)


@pytest.mark.parametrize("pooling", ["batch", "sample"])
def test_nothing_annotated_is_0_and_keeps_the_graph(pooling):
    logits = torch.randn(2, COUNT, 4, 4, requires_grad=True)
    loss = PartialTversky(plain(pooling=pooling), FLAT)(logits, torch.full((2, COUNT, 4, 4), math.nan))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_the_published_loss_drops_classes_of_fewer_than_10_voxels_and_subtracts():
    logits, target = draw_batch(11, annotated=1.0)
    target[:, 3] = math.nan
    target[0, 3, 4, :9] = 1.0
    prior = torch.logspace(-5, -1, COUNT)
    found = balanced_softmax_partial_tversky(logits, target, prior)
    shift = prior.log() - prior.log().mean()
    assert float(found) == pytest.approx(float(reference(logits, target, shift=shift)), rel=1e-5)
    assert reference(logits, target, shift=shift, least=9) != reference(logits, target, shift=shift)
    target[0, 3, 5, 0] = 0.0
    ten = balanced_softmax_partial_tversky(logits, target, prior)
    assert float(ten) == pytest.approx(float(reference(logits, target, shift=shift)), rel=1e-5)
    assert float(PartialTversky(plain(adjust="subtract"), prior)(logits, target)) == pytest.approx(float(ten), rel=1e-6)
    target[0, 3, 5, 0] = math.nan
    same = PartialTversky(plain(adjust="subtract"), prior)(logits, target)
    assert float(same) == pytest.approx(float(found), rel=1e-6)
    other = PartialTversky(plain(adjust="add"), prior)(logits, target)
    assert float(other) == pytest.approx(float(reference(logits, target, shift=-shift)), rel=1e-5)


def test_the_published_sign_lowers_the_threshold_of_common_classes():
    """0.5 becomes 0.71 for golgi_mem and 0.27 for nuc with the counts of the study of five classes."""
    counts = torch.tensor([3537231, 1781370, 1662007, 653198, 536370]) / 29.6e6
    a = adjustment(counts, 1.0)
    assert a.sigmoid()[0] == pytest.approx(1 - 0.27, abs=0.01)
    assert (-a).sigmoid()[4] == pytest.approx(0.71, abs=0.01)


def test_half_precision_logits_are_summed_in_single():
    logits, target = draw_batch(1, space=(128, 128), annotated=1.0)
    half = logits.bfloat16()
    found = PartialTversky(plain(), FLAT)(half, target)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(reference(half.float(), target)), rel=1e-5)


def test_alpha_and_beta_may_differ_between_classes():
    logits, target = draw_batch(2, annotated=1.0)
    alpha = [0.3 + 0.04 * place for place in range(COUNT)]
    found = PartialTversky(plain(alpha=alpha, beta=[0.4]), FLAT)(logits, target)
    each = [reference(logits[:, [k]], target[:, [k]], (alpha[k], 0.4)) for k in range(COUNT)]
    assert float(found) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)


def test_the_gradient_is_that_of_finite_differences():
    logits, target = draw_batch(8, samples=2, space=(3, 4), annotated=0.7)
    loss = PartialTversky(plain(min_voxels=1, smooth=1.0), FLAT)
    logits.requires_grad_()
    loss(logits, target).backward()
    step = torch.randn_like(logits)
    ahead, behind = (reference(logits.detach() + sign * 1e-4 * step, target, smooth=1.0, least=1) for sign in (1, -1))
    assert float((logits.grad * step).sum()) == pytest.approx(float(ahead - behind) / 2e-4, rel=1e-2)


def test_two_halves_of_a_batch_add_up_to_the_whole(section, frequencies: Frequencies, monkeypatch):
    """What two ranks do: each has half of the batch, and counts are summed over both."""
    from assay.engine.distributed import Group
    from assay.studies.organelles import losses

    logits, target = draw_batch(4, samples=4)
    settings = section(tversky=1.0, bce=0.3, focal=0.2, exclusion=0.1, min_voxels=1)
    whole = build_loss(settings, frequencies)(logits, target)
    halves = [(logits[:2], target[:2]), (logits[2:], target[2:])]
    sums: list[list[torch.Tensor]] = []

    def record(tensor, group):
        sums[-1].append(tensor)
        return tensor

    two = build_loss(settings, frequencies, Group(0, 2))
    monkeypatch.setattr(losses, "total", record)
    for half in halves:
        sums.append([])
        two(*half)
    added = [first + second for first, second in zip(*sums, strict=True)]
    monkeypatch.setattr(losses, "total", lambda tensor, group: added.pop(0))
    together = two(*halves[0])
    assert {name: float(value) for name, value in together.items()} == pytest.approx(
        {name: float(value) for name, value in whole.items()}, rel=1e-5
    )
