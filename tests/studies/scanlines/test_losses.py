"""Class weights against the published figures, and the objective against torch's own."""

import math

import pytest
import torch
from torch.nn import functional

from assay.studies.scanlines.losses import (
    Truth,
    class_weights,
    classification,
    entropy,
    position_weights,
    priors,
    targets,
    uninformed,
)
from assay.studies.scanlines.surface import COUNTS

MERGED = [1664, 8312, 3202, 5754]


def test_weights_of_the_published_counts():
    assert class_weights(COUNTS).tolist() == pytest.approx([1.8962, 2.1291, 0.4620, 0.9854, 2.3689, 0.7136], abs=5e-5)
    assert class_weights(MERGED).tolist() == pytest.approx([2.8444, 0.5694, 1.4781, 0.8226], abs=5e-5)


def test_an_empty_class_has_weight_0_and_equal_ones_have_1():
    assert class_weights([5, 0, 5]).tolist() == pytest.approx([2 / 3, 0, 2 / 3])
    assert class_weights(torch.tensor([7, 7])).tolist() == [1, 1]


def test_the_published_baseline_is_what_the_class_shares_alone_give():
    """36 % and 1.60 of six classes, which was reported as better than 25 % of four."""
    shares = priors(torch.tensor(COUNTS))
    assert float(shares.max()) == pytest.approx(0.3608, abs=5e-5)
    assert entropy(shares) == pytest.approx(1.608, abs=5e-4)
    assert entropy(priors(torch.tensor(MERGED))) == pytest.approx(1.238, abs=5e-4)
    assert uninformed(4) == pytest.approx(1.386, abs=5e-4)


def terms(make_params, logits, target, counts, positions=None, **settings):
    params = make_params(*(f"loss.{name}={value}" for name, value in settings.items()))
    positions = torch.ones(logits.shape[1]) if positions is None else positions
    return classification(logits, target, positions, torch.tensor(counts), params.loss)["cross_entropy"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weighted_cross_entropy_is_torchs(smoothing, make_params):
    logits, target, counts = torch.randn(6, 1, 3), torch.tensor([[0], [1], [2], [0], [1], [1]]), [10, 20, 5]
    found = terms(make_params, logits, target, counts, label_smoothing=smoothing)
    weights = class_weights(counts)
    wanted = functional.cross_entropy(logits[:, 0], target[:, 0], weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(found, wanted)


def test_weights_reach_the_loss(make_params):
    logits, target = torch.randn(6, 1, 2), torch.tensor([[0], [1], [1], [0], [1], [1]])
    on, off = (terms(make_params, logits, target, [100, 1], class_weights=given) for given in ("true", "false"))
    assert abs(float(on - off)) > 0.01


def test_logit_adjustment_makes_the_shares_the_neutral_answer(make_params):
    settings = {"class_weights": "false", "label_smoothing": 0, "logit_adjustment": 1}
    found = terms(make_params, torch.zeros(2, 1, 2), torch.tensor([[0], [1]]), [30, 10], **settings)
    assert float(found) == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_read_outs_count_from_the_first_line_on_and_rising_ones_by_their_line():
    lines = torch.arange(1, 5)
    assert position_weights(lines, 3, False).tolist() == [0, 0, 1, 1]
    assert position_weights(lines, 3, True).tolist() == [0, 0, 0.75, 1]
    assert position_weights(torch.tensor([4]), None, None).tolist() == [1]


def test_read_outs_that_do_not_count_have_no_influence(make_params):
    logits, target = torch.randn(3, 4, 2), torch.zeros(3, 4, dtype=torch.long)
    positions = torch.tensor([0.0, 0.0, 1.0, 1.0])
    other = logits.clone()
    other[:, :2] = 100
    torch.testing.assert_close(*(terms(make_params, each, target, [5, 5], positions) for each in (logits, other)))


def test_until_the_switch_the_target_is_the_first_surface():
    """The tip changes with line 2, counted from 0: after two lines it has not changed, after three it has.

    The second image has no change, and a wrong label, which stays: it is 2 in truth. The third was cropped before the
    change, the fourth after it.
    """
    labels, first, switch = (torch.tensor(each) for each in ([3, 1, 3, 3], [0, 2, 0, 0], [2, 4, 5, 0]))
    truth, read_outs = Truth(labels, first, switch, 4), torch.arange(1, 5)
    assert targets(truth, read_outs, "switch").tolist() == [[0, 0, 3, 3], [1, 1, 1, 1], [0] * 4, [3] * 4]
    assert targets(truth, read_outs, "image").tolist() == [[3] * 4, [1] * 4, [3] * 4, [3] * 4]
