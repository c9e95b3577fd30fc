"""What the engine is given: batches by cursor, class counts, augmentation, and training that repeats bit for bit."""

import sys
from pathlib import Path

import pytest
import torch
import yaml
from tests.studies.scanlines.conftest import choose

from assay.config import resolved
from assay.engine.verify import verify_command
from assay.studies.scanlines import simulate
from assay.studies.scanlines.augmentation import augment
from assay.studies.scanlines.dataset import drawn_rows, open_dataset
from assay.studies.scanlines.surface import COUNTS, TIP_CHANGE
from assay.studies.scanlines.task import ScanTask

CPU = torch.device("cpu")


def make_task(params):
    if not Path("data/scanlines").exists():
        simulate.run(params)
    return ScanTask(params, open_dataset(params.data), CPU)


def test_a_batch_is_a_function_of_seed_and_cursor(make_params):
    task = make_task(make_params())
    batches = task.batches(0)
    first, second = next(batches), next(batches)
    again = next(task.batches(1))
    assert torch.equal(second.images, again.images) and torch.equal(second.target, again.target)
    assert not torch.equal(first.images, second.images)
    other = next(make_task(make_params("seed=1")).batches(0))
    assert not torch.equal(first.images, other.images)


def test_images_drawn_anew_are_a_function_of_seed_and_cursor_and_never_come_again(make_params):
    params = make_params("augmentation.redraw=true", "augmentation.crop=0")
    task = make_task(params)
    batches = task.batches(0)
    taken = [next(batches) for _ in range(20)]
    again = next(task.batches(13))
    assert torch.equal(taken[13].images, again.images) and torch.equal(taken[13].target, again.target)
    images = torch.cat([batch.images for batch in taken])
    assert len(images.flatten(1).unique(dim=0)) == len(images) == 20 * params.train.batch_size > task.samples_per_epoch
    other = next(make_task(make_params("augmentation.redraw=true", "seed=1")).batches(0))
    assert not torch.equal(taken[0].images, other.images)


def test_images_drawn_anew_have_the_shares_and_the_wrong_labels_of_the_stored_ones(make_params):
    data = make_params("data.label_noise=0.2").data
    rows = drawn_rows(data, 4000, torch.Generator().manual_seed(0))
    shares = torch.bincount(torch.tensor(data.merge), torch.tensor(COUNTS) / sum(COUNTS), minlength=4)
    assert torch.allclose(torch.bincount(rows.clean_labels, minlength=4) / 4000, shares.float(), atol=0.03)
    chance = float(0.2 * (1 - shares.square().sum()))  # a label drawn at random may be the right one
    assert float((rows.labels != rows.clean_labels).float().mean()) == pytest.approx(chance, abs=0.02)
    whole = rows.switch == data.lines
    assert torch.equal(rows.first_labels[whole], rows.clean_labels[whole])
    assert float((~whole).float().mean()) == pytest.approx(COUNTS[TIP_CHANGE] / sum(COUNTS), abs=0.02)


def test_class_counts_are_those_of_the_training_part(make_params):
    task, dataset = make_task(make_params()), open_dataset(make_params().data)
    assert task.counts.tolist() == torch.bincount(dataset.part("training").labels, minlength=4).tolist()
    leaking = make_task(make_params("legacy.weights_from_all=true"))
    assert leaking.counts.sum() == len(dataset.rows.labels)


def test_validation_has_its_own_noisy_labels_and_repeats(make_params):
    task = make_task(make_params())
    torch.manual_seed(0)
    model = task.build().eval()
    with torch.no_grad():
        first, again = task.evaluate(model).metrics, task.evaluate(model).metrics
    assert first == again and task.monitor.metric in first


def test_checkpoints_are_chosen_by_the_last_read_out_and_the_noisy_labels(make_params):
    """The clean ones are for the test part alone."""
    task = make_task(make_params("data.label_noise=0.5"))
    rows = task.validation
    assert not torch.equal(rows.labels, rows.clean_labels)
    wrong, right = (torch.nn.functional.one_hot(each, 4) for each in ((rows.labels + 1) % 4, rows.labels))
    found = task.evaluate(lambda images, lengths: torch.stack([wrong, right], 1).float()[: len(images)])
    assert found.metrics["balanced_accuracy"] == found.metrics["accuracy"] == 1


def settings(make_params, **changed):
    off = dict.fromkeys(("crop", "noise", "line_dropout", "line_gain", "line_offset"), 0) | {"flip_horizontal": "false"}
    values = [f"augmentation.{name}={value}" for name, value in {**off, **changed}.items()]
    return make_params(*choose("cnn"), *values).augmentation


def changed_images(config, seed=0):
    images = 7 * torch.randn(50, 16, 24, generator=torch.Generator().manual_seed(1))  # the unit of height is any
    changed = augment(images, torch.full((50,), 16), config, torch.Generator().manual_seed(seed))
    return images, changed.images, changed.lengths


def test_without_augmentation_images_stay_as_they_are(make_params):
    images, found, lengths = changed_images(settings(make_params))
    assert torch.equal(images, found) and lengths is None


@pytest.mark.parametrize(("name", "axis"), [("flip_horizontal", 2), ("flip_vertical", 1)])
def test_half_of_the_images_are_mirrored(name, axis, make_params):
    images, found, _ = changed_images(settings(make_params, **{name: "true"}))
    turned = (found == images.flip(axis)).all((1, 2))
    assert ((found == images).all((1, 2)) ^ turned).all() and 10 < int(turned.sum()) < 40


def test_a_lost_line_is_constant(make_params):
    images, found, _ = changed_images(settings(make_params, line_dropout=0.2))
    lost = found.std(2) < 1e-6
    assert float(lost.float().mean()) == pytest.approx(0.2, abs=0.05)
    assert torch.equal(found[~lost], images[~lost])


def test_noise_is_in_units_of_the_line(make_params):
    images, found, _ = changed_images(settings(make_params, noise=0.5))
    ratio = (found - images).std((1, 2)) / images.std((1, 2))
    assert float(ratio.max()) < 0.6 and float(ratio.mean()) == pytest.approx(0.25, abs=0.06)


def test_gain_and_offset_are_the_lines_own(make_params):
    images, found, _ = changed_images(settings(make_params, line_gain=0.3, line_offset=0.5))
    sd = found.std(2) / images.std(2)
    assert float(sd.log().std()) == pytest.approx(0.3, abs=0.03)
    _, offset, _ = changed_images(settings(make_params, line_offset=0.5))
    assert float((offset - images).mean(2).std() / images.std()) == pytest.approx(0.5, rel=0.1)
    torch.testing.assert_close(
        (found - found.mean(2, keepdim=True)) / sd[:, :, None], images - images.mean(2, keepdim=True)
    )


def test_a_crop_is_a_stretched_part(make_params):
    ramp = torch.arange(24.0).expand(5, 16, 24)
    found = augment(ramp, torch.full((5,), 16), settings(make_params, crop=0.4), torch.Generator().manual_seed(0))
    slope = found.images.diff(dim=2)[:, :, 4:-4]
    assert ((slope > 0.55) & (slope <= 1.0001)).all()


def test_a_tip_change_moves_with_the_crop(make_params):
    """Images are 0 before their change and 1 from it on: half of a line either way is the rounding."""
    switch = torch.arange(17).repeat(40)
    steps = (torch.arange(16) >= switch[:, None]).float()[:, :, None].expand(-1, -1, 24)
    found = augment(steps, switch, settings(make_params, crop=0.4), torch.Generator().manual_seed(0))
    ones = found.images[:, :, 0].sum(1)
    inside = (switch < 16) & (found.switch <= 16)
    assert float((ones + found.switch - 16)[inside].abs().max()) <= 1.0
    assert (found.switch[switch == 16] == 16).all() and not ones[switch == 16].any()
    before = found.switch == 17
    assert 0 < int(before.sum()) < 200 and float(ones[before].max()) <= 1.0 and (switch[before] < 16).all()


def test_truncation_leaves_the_first_lines_and_says_how_many(make_params):
    images, found, lengths = changed_images(settings(make_params, truncate=4))
    assert int(lengths.min()) >= 4 and int(lengths.max()) <= 16 and len(lengths.unique()) > 5
    for before, after, count in zip(images, found, lengths.tolist(), strict=True):
        assert torch.equal(before[:count], after[:count]) and not after[count:].any()


@pytest.mark.slow
def test_training_repeats_and_goes_on_bit_for_bit(make_params):
    params = make_params()
    simulate.run(params)
    Path("params.yaml").write_text(yaml.safe_dump(resolved(params)))
    command = [sys.executable, "-m", "assay", "stage", "scanlines", "train", "--params", "params.yaml"]
    report = verify_command(command, 4, 0)
    assert report.identical, report
