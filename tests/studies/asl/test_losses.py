"""The training objective against numbers worked out by hand; read it to learn what each term is."""

import math

import pytest
import torch
from torch import Tensor

from assay.studies.asl import losses
from assay.studies.asl.model.outputs import Prediction
from assay.studies.asl.physics import Physics, joint_signal
from assay.studies.asl.statistics import Statistics

UNIT = Statistics(cbf_mean=0.0, cbf_std=1.0 - 1e-6, att_mean=0.0, att_std=1.0 - 1e-6)
"""With these the z-scores are the values themselves, so that expected numbers can be read off."""

PLDS = (500.0, 1500.0, 2500.0)


def image(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, 1, 1, -1)


def prediction(cbf: Tensor, att: Tensor, log_var: float = 0.0) -> Prediction:
    return Prediction(cbf, att, torch.full_like(cbf, log_var), torch.full_like(att, log_var))


EVERYWHERE = torch.ones(1, 1, 1, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("kind", "expected_cbf", "expected_att"),
    [("l1", (0.5 + 3.0) / 2, 2.0), ("l2", (0.25 + 9.0) / 2, 4.0), ("huber", (0.125 + 2.5) / 2, 1.5)],
)
def test_supervised_terms_are_mean_penalties_of_the_error(
    kind: losses.Kind, expected_cbf: float, expected_att: float
) -> None:
    pred = prediction(image(0.5, -3.0), image(2.0, -2.0))
    terms = losses.supervised(pred, image(0, 0), image(0, 0), EVERYWHERE, UNIT, kind)
    assert terms.keys() == {"cbf", "att"}
    assert terms["cbf"].item() == pytest.approx(expected_cbf, rel=1e-5)
    assert terms["att"].item() == pytest.approx(expected_att, rel=1e-5)


def test_errors_are_measured_in_standard_deviations() -> None:
    statistics = Statistics(cbf_mean=60.0, cbf_std=20.0, att_mean=1500.0, att_std=500.0)
    pred = prediction(image(70, 70), image(1750, 1750))
    terms = losses.supervised(pred, image(60, 60), image(1500, 1500), EVERYWHERE, statistics, "l1")
    assert terms["cbf"].item() == pytest.approx(0.5, rel=1e-5)
    assert terms["att"].item() == pytest.approx(0.5, rel=1e-5)


def test_only_masked_voxels_count() -> None:
    mask = torch.tensor([True, False]).reshape(1, 1, 1, 2)
    pred = prediction(image(1, 100), image(2, 100))
    terms = losses.supervised(pred, image(0, 0), image(0, 0), mask, UNIT, "l1")
    assert terms["cbf"].item() == pytest.approx(1.0, rel=1e-5)
    assert terms["att"].item() == pytest.approx(2.0, rel=1e-5)


def test_an_empty_mask_costs_nothing() -> None:
    nowhere = torch.zeros_like(EVERYWHERE)
    pred = prediction(image(1, 2), image(3, 4))
    terms = losses.supervised(pred, image(0, 0), image(0, 0), nowhere, UNIT, "l2")
    assert [term.item() for term in terms.values()] == [0.0, 0.0]
    assert losses.variance(pred, image(0, 9), image(0, 9), nowhere, UNIT).item() == 0.0


def test_likelihood_trades_error_against_variance() -> None:
    pred = prediction(image(1.0, 3.0), image(0.0, 0.0), log_var=math.log(4.0))
    terms = losses.negative_log_likelihood(pred, image(0, 0), image(0, 0), EVERYWHERE, UNIT)
    assert terms.keys() == {"cbf_nll", "att_nll"}
    assert terms["cbf_nll"].item() == pytest.approx(0.5 * ((1 + 9) / 2 / 4 + math.log(4)), rel=1e-5)
    assert terms["att_nll"].item() == pytest.approx(0.5 * math.log(4), rel=1e-5)


def test_likelihood_is_least_where_the_variance_is_the_squared_error() -> None:
    log_var = torch.zeros(1, 1, 1, 2, requires_grad=True)
    pred = Prediction(image(1.0, -1.0), image(0.0, 0.0), log_var, torch.zeros(1, 1, 1, 2))
    terms = losses.negative_log_likelihood(pred, image(0, 0), image(0, 0), EVERYWHERE, UNIT)
    (slope,) = torch.autograd.grad(terms["cbf_nll"], log_var)
    assert slope.abs().max().item() < 1e-5


def test_variance_term_is_the_missing_variance() -> None:
    pred = prediction(image(0, 1), image(0, 0))  # variances with ddof 1: 0.5 and 0
    value = losses.variance(pred, image(0, 2), image(0, 4), EVERYWHERE, UNIT)
    assert value.item() == pytest.approx(1.5 + 8.0)


def test_varying_more_than_the_truth_is_free() -> None:
    pred = prediction(image(0, 9), image(0, 9))
    assert losses.variance(pred, image(0, 2), image(0, 4), EVERYWHERE, UNIT).item() == 0.0


def test_variance_term_is_averaged_over_images_not_pooled() -> None:
    truth = torch.cat([image(0, 2), image(10, 10)])
    pred = prediction(torch.zeros_like(truth), torch.zeros_like(truth))
    value = losses.variance(pred, truth, torch.zeros_like(truth), EVERYWHERE.expand(2, 1, 1, 2), UNIT)
    assert value.item() == pytest.approx(2.0 / 2)  # pooled, the step between the images would count too


def test_true_maps_are_consistent_with_their_signal() -> None:
    cbf, att = image(60, 20), image(1200, 1800)
    x = joint_signal(cbf[:, 0], att[:, 0], PLDS, Physics())
    consistent = losses.data_consistency(prediction(cbf, att), x, EVERYWHERE, PLDS, Physics())
    assert consistent.item() == pytest.approx(0.0, abs=1e-6)


def test_inconsistency_is_in_thousandths_of_m0() -> None:
    cbf, att = image(60, 20), image(1200, 1800)
    x = joint_signal(cbf[:, 0], att[:, 0], PLDS, Physics())
    doubled = losses.data_consistency(prediction(2 * cbf, att), x, EVERYWHERE, PLDS, Physics())
    assert doubled.item() == pytest.approx(1000 * x.mean().item(), rel=1e-4)


def test_legacy_consistency_is_off_by_a_factor_of_ten() -> None:
    cbf, att = image(60, 20), image(1200, 1800)
    x = joint_signal(cbf[:, 0], att[:, 0], PLDS, Physics())
    at_truth = losses.data_consistency(prediction(cbf, att), x, EVERYWHERE, PLDS, Physics(), legacy=True)
    tenfold = losses.data_consistency(prediction(10 * cbf, att), x, EVERYWHERE, PLDS, Physics(), legacy=True)
    assert at_truth.item() == pytest.approx(900 * x.mean().item(), rel=1e-4)
    assert tenfold.item() == pytest.approx(0.0, abs=1e-5)


def test_impossible_maps_are_limited_before_the_signal_is_computed() -> None:
    x = torch.zeros(1, 6, 1, 2)
    pred = prediction(image(-50, -1), image(-100, 9000))
    assert losses.data_consistency(pred, x, EVERYWHERE, PLDS, Physics()).item() == 0.0


def test_consistency_uses_the_physics_of_each_image() -> None:
    cbf, att = torch.full((2, 1, 1, 2), 60.0), torch.full((2, 1, 1, 2), 1200.0)
    physics = Physics(t1_artery=torch.tensor([1650.0, 1850.0]))
    x = joint_signal(cbf[:, 0], att[:, 0], PLDS, physics)
    mask = torch.ones(2, 1, 1, 2, dtype=torch.bool)
    own = losses.data_consistency(prediction(cbf, att), x, mask, PLDS, physics)
    nominal = losses.data_consistency(prediction(cbf, att), x, mask, PLDS, Physics())
    assert own.item() == pytest.approx(0, abs=1e-6)
    assert nominal.item() > 0.01


def test_mask_drops_the_weakest_five_percent_of_each_image() -> None:
    weak = torch.arange(100.0).reshape(1, 1, 10, 10)
    signal = torch.cat([weak, -1000 * weak]).expand(2, 3, 10, 10)
    mask = losses.loss_mask(signal)
    assert mask.shape == (2, 1, 10, 10)
    assert mask.dtype == torch.bool
    assert mask.sum(dim=(1, 2, 3)).tolist() == [95, 95]
    assert not mask.flatten(1)[:, :5].any()


def test_mask_percentile_can_be_zero_which_drops_only_the_minimum() -> None:
    assert losses.loss_mask(torch.arange(100.0).reshape(1, 1, 10, 10), percentile=0).sum() == 99


def test_terms_can_be_mapped_over_ensemble_members() -> None:
    generator = torch.Generator().manual_seed(0)
    cbf, att = (torch.rand(2, 1, 4, 4, generator=generator) * scale for scale in (100, 3000))
    members = Prediction(*(torch.rand(3, 2, 1, 4, 4, generator=generator) for _ in range(4)))
    x, mask = torch.rand(2, 6, 4, 4, generator=generator), torch.ones(2, 1, 4, 4, dtype=torch.bool)

    def terms(pred: Prediction) -> Tensor:
        values = [
            *losses.supervised(pred, cbf, att, mask, UNIT, "huber").values(),
            *losses.negative_log_likelihood(pred, cbf, att, mask, UNIT).values(),
            losses.variance(pred, cbf, att, mask, UNIT),
            losses.data_consistency(pred, x, mask, PLDS, Physics()),
        ]
        return torch.stack(values)

    lone = torch.stack([terms(Prediction(*(maps[k] for maps in members))) for k in range(3)])
    torch.testing.assert_close(torch.func.vmap(terms)(members), lone)
