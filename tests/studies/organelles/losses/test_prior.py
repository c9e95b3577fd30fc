"""Frequencies, class weights, the running prior, and a head that starts with the class shares."""

import math

import pytest
import torch
from tests.studies.organelles.losses.conftest import COUNT, draw_batch
from torch import nn

from assay.errors import DataError
from assay.studies.organelles.losses import PartialTversky, build_loss
from assay.studies.organelles.prior import Frequencies, Prior, adjustment, class_weights, initialise_head

RUNNING = {"adjust": "add", "prior": "running", "prior_momentum": 0.99, "prior_every": 50}


def test_adjustments_are_log_ratios_to_the_geometric_mean():
    a = adjustment(torch.tensor([0.1, 0.001]), 2.0)
    assert a.tolist() == pytest.approx([2 * math.log(10), -2 * math.log(10)], rel=1e-5)


def test_a_class_that_no_crop_annotates_is_not_adjusted():
    known = torch.tensor([100.0, 100.0, 0.0]).double()
    frequencies = Frequencies(torch.tensor([10.0, 1.0, 0.0]).double(), known, known, known)
    assert adjustment(frequencies.shares, 1.0)[2] == pytest.approx(0, abs=1e-6)


def test_no_annotation_at_all_is_refused():
    nothing = torch.zeros(COUNT, dtype=torch.float64)
    with pytest.raises(DataError, match=r"training crops: got no annotated voxel of any class"):
        _ = Frequencies(nothing, nothing, nothing, nothing).shares


@pytest.mark.parametrize(
    ("kind", "weight"),
    [
        ("none", lambda f, n: 1.0),
        ("inverse", lambda f, n: 1 / f),
        ("sqrt", lambda f, n: f**-0.5),
        ("log", lambda f, n: 1 / math.log1p(f)),
    ],
)
def test_class_weights_of_voxel_frequencies(kind, weight, section, frequencies):
    found = class_weights(section(class_weights=kind), frequencies)
    expected = [weight(float(f), 0) for f in frequencies.shares.double()]
    mean = sum(expected) / COUNT
    assert found.tolist() == pytest.approx([each / mean for each in expected], rel=1e-4)


def test_the_effective_number_is_of_crops(section, frequencies):
    """Of voxels it is 1 / (1 - beta) for every class, so that the weights are equal: the published collapse."""
    found = class_weights(section(class_weights="effective", effective_beta=0.9), frequencies)
    expected = torch.tensor([0.1 / (1 - 0.9 ** (place + 1)) for place in range(COUNT)])
    assert torch.allclose(found, expected / expected.mean())
    saturated = [(1 - 0.9999) / (1 - 0.9999**voxels) for voxels in (536_370, 3_537_231)]
    assert saturated[0] == pytest.approx(saturated[1], rel=1e-9)


def test_manual_weights_are_kept_up_to_their_mean(section, frequencies):
    weights = [1.0 + 0.1 * place for place in range(COUNT)]
    found = class_weights(section(class_weights="manual", manual_weights=weights), frequencies)
    assert (found / found[0]).tolist() == pytest.approx(weights, rel=1e-5)


def test_weights_move_the_mean_over_classes(section, frequencies):
    logits, target = draw_batch(0, annotated=1.0)
    only_first = [1.0, *[0.0] * (COUNT - 1)]
    weighted = build_loss(section(class_weights="manual", manual_weights=only_first), frequencies)
    single = PartialTversky(section(), frequencies.shares)
    hidden = target.clone()
    hidden[:, 1:] = math.nan
    found = weighted(logits, target)["tversky"]
    assert float(found) == pytest.approx(float(single(logits, hidden)), rel=1e-6)


def test_seesaw_raises_rare_classes_and_those_with_many_false_positives(section, frequencies):
    settings = section(class_weights="seesaw", seesaw=[0.8, 2.0], tversky=1.0)
    mitigation = class_weights(settings, frequencies)
    assert (mitigation.diff() < 0).all()
    ratio = (frequencies.shares[0] / frequencies.shares[-1]) ** -0.8
    assert float(mitigation[0] / mitigation[-1]) == pytest.approx(float(ratio), rel=1e-4)
    logits, target = draw_batch(1, annotated=1.0)
    loss = build_loss(settings, frequencies)
    p, y = logits.sigmoid() * ~target.isnan(), target.nan_to_num(0)
    tp, predicted, positive = (each.sum((0, 2, 3)) for each in (p * y, p, y))
    fp, fn = predicted - tp, positive - tp
    weights = mitigation * (1 + (fp / (fp + fn)) ** 2)
    tversky = tp / (tp + 0.6 * fp + 0.4 * fn)
    expected = (weights * (1 - tversky)).sum() / weights.sum()
    assert float(loss(logits, target)["tversky"]) == pytest.approx(float(expected), rel=1e-4)


def test_a_running_prior_waits_for_its_first_update_and_moves_classes_that_were_annotated(section):
    prior = Prior(section(**RUNNING), torch.full((2,), 0.3))
    positives, annotated = torch.tensor([500.0, 7.0]), torch.tensor([1000.0, 0.0])
    for _ in range(49):
        prior.observe(positives, annotated)
    assert torch.equal(adjustment(prior.frequencies, 1.0), torch.zeros(2))
    prior.observe(positives, annotated)
    assert prior.frequencies.tolist() == pytest.approx([(0.99 + 5) / (99 + 10), 0.01], rel=1e-6)


def test_an_annotated_class_without_positives_counts_as_one_voxel(section):
    prior = Prior(section(**{**RUNNING, "prior_every": 1}), torch.full((1,), 0.3))
    prior.observe(torch.zeros(1), torch.full((1,), 1000.0))
    assert float(prior.frequencies) == pytest.approx((0.99 + 0.01) / (99 + 10), rel=1e-6)


def test_a_running_prior_rests_in_validation_unless_as_published(section, frequencies):
    logits, target = draw_batch(0)
    published = {**RUNNING, "adjust": "subtract", "as_published": True}
    for settings, calls in ((RUNNING, 0), (published, 1)):
        loss = build_loss(section(**settings), frequencies).eval()
        loss(logits, target)
        assert int(loss.tversky.prior.calls) == calls
        loss.train()(logits, target)
        assert int(loss.tversky.prior.calls) == calls + 1


def test_a_checkpoint_of_the_loss_has_its_prior(section, frequencies):
    settings = section(**{**RUNNING, "prior_every": 1, "adjust": "subtract"})
    logits, target = draw_batch(0)
    first, second = build_loss(settings, frequencies), build_loss(settings, frequencies)
    first(logits, target)
    assert not torch.equal(first.tversky.adjustment, second.tversky.adjustment)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.tversky.adjustment, second.tversky.adjustment)
    assert torch.equal(first(logits, target)["tversky"], second(logits, target)["tversky"])


def test_a_head_starts_with_the_class_frequencies():
    head = nn.Conv2d(3, COUNT, 1)
    nn.init.zeros_(head.weight)
    shares = torch.logspace(-5, -0.5, COUNT)
    initialise_head(head, shares)
    assert torch.allclose(head(torch.randn(1, 3, 2, 2)).sigmoid()[0, :, 0, 0], shares, rtol=1e-4)


@pytest.mark.parametrize(("head", "found"), [(nn.Conv2d(3, COUNT, 1, bias=False), "none"), (nn.Linear(3, 2), "2 num")])
def test_a_head_without_a_bias_per_class_is_refused(head, found):
    with pytest.raises(DataError, match=f"bias of the head: got {found}.*allowed: 14 numbers"):
        initialise_head(head, torch.full((COUNT,), 0.1))
