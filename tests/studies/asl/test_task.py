"""The study as the engine sees it: batches by key, noise in the right unit, terms by weight."""

import dataclasses
from pathlib import Path

import pytest
import torch

from assay.engine.random import generator
from assay.studies.asl.dataset import write_dataset
from assay.studies.asl.physics import reference_signal
from assay.studies.asl.source import DiskSource, open_source
from assay.studies.asl.task import AslTask, augment

CPU = torch.device("cpu")


def make_task(params) -> AslTask:
    if params.data.source == "disk" and not Path(params.data.path).exists():
        write_dataset(params, Path(params.data.path))
    return AslTask(params, open_source(params, CPU), CPU)


def take(task: AslTask, cursor: int, count: int):
    batches = task.batches(cursor)
    return [next(batches) for _ in range(count)]


@pytest.mark.parametrize("source", ["disk", "simulated"])
def test_batches_are_a_function_of_the_cursor(source, make_params):
    params = make_params(f"data.source={source}")
    whole = take(make_task(params), 0, 5)
    later = take(make_task(params), 3, 2)
    for one, two in zip(whole[3:], later, strict=True):
        for left, right in zip(one[:5], two[:5], strict=True):
            assert torch.equal(left, right)


def test_noise_of_a_sample_changes_from_epoch_to_epoch(make_params):
    task = make_task(make_params("augmentation.flips=false", "augmentation.rotations=false"))
    by_key = {}
    for number, batch in enumerate(take(task, 0, 14)):
        for row, key in enumerate(task.source.draw(number * 4, 4)[1]):
            by_key[key] = batch.signal[row]
    samples = {index for epoch, index in by_key if epoch == 0} & {index for epoch, index in by_key if epoch == 1}
    assert samples
    assert not any(torch.equal(by_key[0, index], by_key[1, index]) for index in samples)


@pytest.mark.parametrize("snr", [3, 10, 25])
def test_measured_snr_is_the_requested_one_within_two_percent(snr, make_params):
    params = make_params(
        f"noise.snr=[{snr},{snr}]", "data.image_size=64", "augmentation.flips=false", "augmentation.rotations=false"
    )
    task = make_task(params)
    (batch,) = take(task, 0, 1)
    clean = DiskSource(params, CPU).draw(0, 4)[0]
    noise = (batch.signal - clean.signal).std(dim=(1, 2, 3))
    measured = (reference_signal(clean.physics) / noise).float()
    torch.testing.assert_close(measured, torch.full((4,), float(snr)), rtol=0.02, atol=0)


def test_legacy_noise_is_a_hundred_times_weaker(make_params):
    strong = take(make_task(make_params("noise.snr=[10,10]")), 0, 1)[0].sigma
    weak = take(make_task(make_params("noise.snr=[10,10]", "legacy.weak_noise=true")), 0, 1)[0].sigma
    torch.testing.assert_close(weak, strong / 100)


def test_signal_and_maps_are_turned_together(make_params):
    params = make_params()
    clean = make_task(params).source.validation()
    random = [torch.Generator().manual_seed(k) for k in range(4)]
    turned = augment(clean._replace(signal=clean.cbf[:, None] * 2), random, params)
    torch.testing.assert_close(turned.signal[:, 0], turned.cbf * 2)
    assert not torch.equal(turned.cbf, clean.cbf)
    torch.testing.assert_close(turned.cbf.sum(dim=(1, 2)), clean.cbf.sum(dim=(1, 2)))


def test_every_term_with_a_weight_is_computed_and_no_other(make_params):
    overrides = ["model.learned_variance=true", "loss.nll_weight=0.1", "loss.dc_weight=0.2", "loss.cbf_weight=0"]
    task = make_task(make_params(*overrides, "loss.variance_weight=0.3", "loss.att_scale=0.5"))
    terms = task.loss(task.build(), take(task, 0, 1)[0], torch.Generator())
    assert terms.keys() == task.weights.keys() == {"att", "cbf_nll", "att_nll", "variance", "consistency"}
    assert task.weights["att"] == 0.5


def test_validation_is_deterministic_and_noisy(make_params):
    task = make_task(make_params())
    model = task.build()
    with torch.no_grad():
        assert task.evaluate(model).metrics == task.evaluate(model).metrics
    clean = task.source.validation()
    assert not torch.allclose(task.held_out()[0].signal, clean.signal)


def test_each_validation_sample_has_noise_of_its_own_key(make_params):
    params = make_params("noise.snr=[10,10]")
    task = make_task(params)
    (batch,) = task.held_out()
    clean = task.source.validation().signal
    for k in range(4):
        random = generator(params.seed, "validation noise", k)
        torch.rand(1, 1, 1, generator=random)  # the SNR is drawn first
        expected = torch.randn(clean.shape[1:], generator=random)
        torch.testing.assert_close((batch.signal - clean)[k] / batch.sigma[k], expected, rtol=0, atol=1e-3)


def test_published_statistics_are_a_switch(make_params):
    assert make_task(make_params()).statistics.cbf_mean < 50
    assert make_task(make_params("legacy.published_statistics=true")).statistics.cbf_mean == 60.0


def test_published_epoch_length_is_a_switch(make_params):
    params = make_params("legacy.steps_per_epoch=1000", "train.steps=null", "train.epochs=2")
    task = make_task(params)
    assert params.train.total_steps(task.samples_per_epoch) == 2000
    assert make_task(make_params()).samples_per_epoch == 28


def test_batch_fields_have_the_documented_shapes(make_params):
    (batch,) = take(make_task(make_params()), 0, 1)
    shapes = [tuple(tensor.shape) for tensor in batch[:5]]
    assert shapes == [(4, 12, 16, 16), (4, 1, 1, 1), (4, 1, 16, 16), (4, 1, 16, 16), (4, 1, 16, 16)]
    assert all(value.shape == (4,) for value in dataclasses.astuple(batch.physics))
