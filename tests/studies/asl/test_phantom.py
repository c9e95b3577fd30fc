"""What phantoms promise: the published distribution, honest masks, and the same batch from the same seed."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from assay.errors import ConfigError
from assay.studies.asl.phantom import RANGES, gaussian_blur, simulate_phantoms


def phantoms(n, seed=0, **options):
    """A batch from a seed."""
    return simulate_phantoms(n, generator=torch.Generator().manual_seed(seed), **options)


@pytest.fixture(scope="module")
def published():
    """400 phantoms as in the published study."""
    return phantoms(400)


def bootstrap_error(values, statistic):
    """Standard error of a statistic of values (N, pixels), with phantoms as the independent units."""
    rng = np.random.default_rng(0)
    draws = [statistic(values[rng.integers(0, len(values), len(values))]) for _ in range(60)]
    return float(np.std(draws, ddof=1))


# The published figures come from 200 other phantoms, ours from 400, so the difference has a standard error of
# sqrt(1 + 400/200) times ours; the bound is four of those, plus half a unit in the last published digit.
@pytest.mark.parametrize(
    ("name", "statistic", "expected", "digit"),
    [
        ("cbf", np.mean, 39.9, 0.1),
        ("cbf", np.std, 22.8, 0.1),
        *[
            ("cbf", lambda values, level=level: np.percentile(values, level), expected, 0.1)
            for level, expected in ((1, 0.8), (5, 3.7), (50, 36.8), (95, 68.5), (99, 107.0))
        ],
        ("cbf", lambda values: np.mean(values > 100), 0.013, 0.001),
        ("att", np.mean, 1329.0, 1.0),
        ("att", np.std, 430.0, 1.0),
        ("tissue", lambda values: np.mean(values == 0), 0.50, 0.01),
        ("tissue", lambda values: np.mean(values == 1), 0.39, 0.01),
        ("tissue", lambda values: np.mean(values == 2), 0.10, 0.01),
    ],
)
def test_distribution_is_the_published_one(published, name, statistic, expected, digit):
    values = getattr(published, name).flatten(1)[:, ::4].numpy()
    tolerance = 4 * math.sqrt(3) * bootstrap_error(values, statistic) + digit / 2
    assert statistic(getattr(published, name).flatten(1).numpy()) == pytest.approx(expected, abs=tolerance)


def test_shapes_and_types():
    batch = phantoms(3, size=32)
    assert len(batch) == 3
    kinds = {"cbf": torch.float32, "att": torch.float32, "tissue": torch.uint8, "lesion": torch.uint8}
    for name, dtype in {**kinds, "boundary": torch.bool}.items():
        assert getattr(batch, name).shape == (3, 32, 32)
        assert getattr(batch, name).dtype == dtype


@pytest.mark.parametrize("size", [16, 40, 64, 96])
def test_values_stay_in_range_at_any_size(size):
    batch = phantoms(20, size=size, ranges="wide")
    assert (batch.cbf >= 0).all() and (batch.cbf <= 200).all()
    assert (batch.att >= 100).all() and (batch.att <= 5000).all()
    assert set(batch.tissue.unique().tolist()) == {0, 1, 2}
    assert set(batch.lesion.unique().tolist()) == {0, 1, 2, 3, 4}


def test_the_seed_decides_everything():
    first, again, other = phantoms(2, seed=1), phantoms(2, seed=1), phantoms(2, seed=2)
    assert torch.equal(first.cbf, again.cbf)
    assert torch.equal(first.lesion, again.lesion)
    assert not torch.equal(first.cbf, other.cbf)


def test_lesions_have_the_stated_frequency_and_one_kind_per_phantom(published):
    tumour = ((published.lesion == 1) | (published.lesion == 2)).flatten(1).any(1)
    stroke = ((published.lesion == 3) | (published.lesion == 4)).flatten(1).any(1)
    tolerance = 4 * math.sqrt(0.35 * 0.65 / 400)
    assert tumour.double().mean().item() == pytest.approx(0.35, abs=tolerance)
    assert stroke.double().mean().item() == pytest.approx(0.35, abs=tolerance)
    assert not (tumour & stroke).any()


def test_without_lesions_there_are_none():
    assert phantoms(20, lesions=False).lesion.max() == 0


@pytest.mark.parametrize("ranges", ["published", "wide"])
def test_unblurred_lesions_are_constant_zones_from_the_table(ranges):
    batch = phantoms(60, blur_sigma=0.0, ranges=ranges)
    for label in range(1, 5):
        (low, high), (first, last) = RANGES[ranges][label + 2]
        for cbf, att, lesion in zip(batch.cbf, batch.att, batch.lesion, strict=True):
            inside = lesion == label
            assert ((cbf[inside] >= low) & (cbf[inside] <= high)).all()
            assert ((att[inside] >= first) & (att[inside] <= last)).all()
            assert cbf[inside].unique().numel() <= 2  # at most two lesions


def test_unblurred_tissue_has_one_mean_per_class_and_its_voxel_noise():
    batch = phantoms(60, blur_sigma=0.0, lesions=False)
    for name, sd in (("cbf", 3.0), ("att", 50.0)):
        grey = [values[tissue == 0] for values, tissue in zip(getattr(batch, name), batch.tissue, strict=True)]
        spread = torch.stack([values.var() for values in grey if values.numel() > 100]).mean().sqrt()
        assert spread.item() == pytest.approx(sd, rel=0.01)  # about 120,000 voxels: standard error 0.2 %


def test_nearest_seed_regions_cover_the_plane_in_few_pieces():
    batch = phantoms(50, lesions=False)
    assert 0.05 < batch.boundary.double().mean().item() < 0.3


def test_boundary_is_where_a_neighbour_belongs_elsewhere():
    batch = phantoms(12)
    visible = torch.where(batch.lesion > 0, batch.lesion + 2, batch.tissue)
    padded = torch.nn.functional.pad(visible.float()[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    shifted = (padded[:, :-2, 1:-1], padded[:, 2:, 1:-1], padded[:, 1:-1, :-2], padded[:, 1:-1, 2:])
    change = torch.stack([neighbour != visible for neighbour in shifted]).any(0)
    assert (batch.boundary >= change).all()
    elsewhere = batch.boundary & ~change  # only where two lesions of one kind meet
    assert elsewhere.sum() < 0.02 * batch.boundary.sum()
    assert batch.lesion[elsewhere].bool().all()


def test_phantoms_of_all_blocks_come_out_in_the_order_in_which_they_are_drawn():
    generator = torch.Generator().manual_seed(5)
    apart = [simulate_phantoms(count, generator=generator) for count in (64, 3)]  # a block, and the rest
    together = phantoms(67, seed=5)
    for name, values in vars(together).items():
        assert torch.equal(values, torch.cat([getattr(part, name) for part in apart]))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("shape", [(9, 14), (64, 64)])
def test_blur_is_scipys(sigma, shape):
    maps = torch.rand(2, *shape, dtype=torch.float64)
    expected = np.stack([gaussian_filter(image, sigma) for image in maps.numpy()])
    np.testing.assert_allclose(gaussian_blur(maps, sigma).numpy(), expected, atol=1e-12)


def test_blur_of_zero_changes_nothing():
    maps = torch.rand(1, 8, 8)
    assert torch.equal(gaussian_blur(maps, 0.0), maps)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "phantoms: got 0, allowed are 1 or more"),
        ({"n": 1, "size": 8}, "size: got 8, allowed are 16 pixels or more"),
        ({"n": 1, "blur_sigma": -1.0}, "blur_sigma: got -1, allowed are 0 pixels or more"),
        ({"n": 1, "ranges": "odd"}, "ranges: got 'odd', allowed are published, wide"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        phantoms(**options)
