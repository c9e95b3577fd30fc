"""Cross-entropies, focal, marginal and exclusion terms, and what decides at prediction."""

import math

import pytest
import torch
from tests.studies.organelles.losses.conftest import COUNT, draw_batch
from torch.nn import functional

from assay.studies.organelles.losses import build_loss

ALONE = {"tversky": 0.0}


def term(section, frequencies, logits, target, name, **settings):
    loss = build_loss(section(**{**ALONE, name: 1.0, **settings}), frequencies)
    found = loss(logits, target)
    assert list(found) == [name]
    return found[name]


def test_binary_cross_entropy_is_the_mean_over_what_is_annotated(section, frequencies):
    logits, target = draw_batch(0)
    known = ~target.isnan()
    expected = functional.binary_cross_entropy_with_logits(logits[known], target[known])
    assert float(term(section, frequencies, logits, target, "bce")) == pytest.approx(float(expected), rel=1e-5)


def test_focal_is_the_published_formula_and_without_gamma_half_the_cross_entropy(section, frequencies):
    logits, target = draw_batch(1)
    known = ~target.isnan()
    p, y = logits[known].sigmoid().double(), target[known]
    right = torch.where(y > 0, p, 1 - p)
    balance = torch.where(y > 0, 0.25, 0.75)
    expected = -(balance * (1 - right) ** 2 * right.log()).mean()
    assert float(term(section, frequencies, logits, target, "focal")) == pytest.approx(float(expected), rel=1e-4)
    half = term(section, frequencies, logits, target, "focal", focal_alpha=0.5, focal_gamma=0.0)
    bce = term(section, frequencies, logits, target, "bce")
    assert float(2 * half) == pytest.approx(float(bce), rel=1e-5)


def test_certain_predictions_have_finite_gradients(section, frequencies):
    logits, target = draw_batch(2)
    extreme = (logits * 1e4).requires_grad_()
    settings = section(tversky=1.0, bce=1.0, focal=1.0, exclusion=1.0)
    sum(build_loss(settings, frequencies)(extreme, target).values()).backward()
    assert extreme.grad.isfinite().all()


def test_marginal_cross_entropy_is_that_of_a_softmax_where_everything_is_annotated(section, frequencies):
    logits, target = draw_batch(3, annotated=1.0)
    known = ~target.isnan().any(1)
    label = torch.where((target > 0).any(1), (target > 0).long().argmax(1) + 1, 0)
    every = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)
    expected = functional.cross_entropy(every.movedim(1, -1)[known], label[known])
    found = term(section, frequencies, logits, target, "marginal")
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


def test_marginal_cross_entropy_counts_what_is_not_annotated_as_other(section, frequencies):
    """One voxel, in which only class 0 was looked for and is absent: 13 classes and other may be there."""
    logits = torch.randn(1, COUNT, 1, 1)
    target = torch.full_like(logits, math.nan)
    target[0, 0] = 0.0
    share = torch.cat([torch.zeros(1), logits[0, :, 0, 0]]).softmax(0)
    found = term(section, frequencies, logits, target, "marginal")
    assert float(found) == pytest.approx(-math.log(1 - float(share[1])), rel=1e-4)
    target[0, 0] = 1.0
    found = term(section, frequencies, logits, target, "marginal")
    assert float(found) == pytest.approx(-math.log(float(share[1])), rel=1e-4)


def test_exclusion_is_the_overlap_with_what_belongs_to_others(section, frequencies):
    """Class 1 is not annotated; it is predicted where class 0 is, or beside it."""
    target = torch.full((1, COUNT, 2, 10), 0.0)
    target[0, 1] = math.nan
    target[0, 0, 0] = 1.0
    logits = torch.full((1, COUNT, 2, 10), -20.0)
    logits[0, 1, 0] = 20.0
    wrong = term(section, frequencies, logits, target, "exclusion")
    assert float(wrong) == pytest.approx(20 / 21, rel=1e-3)
    right = term(section, frequencies, logits.flip(2), target, "exclusion")
    assert float(right) == pytest.approx(0, abs=1e-6)
    beyond, predicted = (torch.cat([each, each.flip(2)], 2) for each in (target, logits))
    beyond[:, :, 2:] = math.nan
    found = term(section, frequencies, predicted, beyond, "exclusion")
    assert float(found) == pytest.approx(20 / 21, rel=1e-3)
    empty = target.clone()
    empty[0, 0] = 0.0
    both = term(section, frequencies, logits.repeat(2, 1, 1, 1), torch.cat([target, empty]), "exclusion")
    assert float(both) == pytest.approx(20 / 21, rel=1e-3)


@pytest.mark.parametrize("name", ["bce", "focal", "marginal", "exclusion"])
def test_nothing_annotated_is_0_and_keeps_the_graph(name, section, frequencies):
    logits = torch.randn(2, COUNT, 4, 4, requires_grad=True)
    found = term(section, frequencies, logits, torch.full((2, COUNT, 4, 4), math.nan), name)
    found.backward()
    assert found.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", ["bce", "focal"])
def test_sigmoid_terms_do_not_see_what_is_not_annotated(name, section, frequencies):
    logits, target = draw_batch(5)
    logits.requires_grad_()
    term(section, frequencies, logits, target, name).backward()
    assert (logits.grad[target.isnan()] == 0).all()
    assert (logits.grad[~target.isnan()] != 0).all()


@pytest.mark.parametrize(("adjust", "sign"), [("none", 0), ("add", 0), ("subtract", 0), ("post-hoc", -1)])
def test_only_a_post_hoc_adjustment_changes_the_decision(adjust, sign, section, frequencies):
    logits, _ = draw_batch(6)
    loss = build_loss(section(adjust=adjust), frequencies)
    shift = sign * loss.tversky.adjustment.view(1, -1, 1, 1)
    assert torch.allclose(loss.decision(logits), logits + shift)


def test_a_softmax_decides_by_the_odds_of_a_class_against_all_others(section, frequencies):
    logits, _ = draw_batch(7)
    loss = build_loss(section(**ALONE, marginal=1.0), frequencies)
    shares = torch.cat([torch.zeros_like(logits[:, :1]), logits], 1).softmax(1)[:, 1:]
    assert torch.allclose(loss.decision(logits).sigmoid(), shares, atol=1e-5)


def test_terms_of_volumes_are_those_of_slices_side_by_side(section, frequencies):
    logits, target = draw_batch(9, space=(6, 8))
    settings = section(tversky=1.0, bce=1.0, focal=1.0, exclusion=1.0)
    flat = build_loss(settings, frequencies)(logits, target)
    deep = build_loss(settings, frequencies)(logits.unflatten(2, (2, 3)), target.unflatten(2, (2, 3)))
    for name in flat:
        assert float(deep[name]) == pytest.approx(float(flat[name]), rel=1e-5)
