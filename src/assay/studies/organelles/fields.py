"""Smooth random fields n_L in three dimensions; open it for how one is made and what its spacing L means.

White noise on a coarse grid of spacing L voxels is interpolated by cubic B-splines, which are products of one factor
per axis: three small matrix products. The result has mean 0 and standard deviation 1 over its box.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from assay.studies.organelles.draw import Draw

SAMPLE = (2, 4, 4)  # of every so many voxels mean and standard deviation are taken


@lru_cache(maxsize=256)
def basis(edge: int, spacing: float) -> tuple[Tensor, Tensor]:
    """Values and derivatives (edge, knots) of the cubic B-splines at each voxel of an axis."""
    place = torch.arange(edge) / spacing + 1
    knots = int(place[-1]) + 3
    distance = place[:, None] - torch.arange(knots)
    size, sign = distance.abs(), distance.sign()
    rest = (2 - size).clamp_min(0)
    near, far = 2 / 3 - size * size * (1 - size / 2), rest * rest * rest / 6
    slope_near, slope_far = size * (1.5 * size - 2), -rest * rest / 2
    values = torch.where(size < 1, near, far)
    slopes = torch.where(size < 1, slope_near, slope_far) * sign / spacing
    return values.contiguous(), slopes.contiguous()


def _product(coefficients: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Coefficients (a, b, c) times factors (Z, a), (Y, b), (X, c): a volume (Z, Y, X)."""
    along_x = coefficients @ factors[2].mT
    along_y = torch.bmm(factors[1].expand(len(coefficients), -1, -1), along_x)
    # z comes last: it has the fewest knots in a crop that is wider than deep, and this product is the large one
    return (factors[0] @ along_y.flatten(1)).view(-1, *along_y.shape[1:])


def field(shape: Sequence[int], spacing: float, draw: Draw) -> Tensor:
    """n_L (Z, Y, X)."""
    factors = [basis(edge, spacing)[0] for edge in shape]
    volume = _product(draw.normal(*(factor.shape[1] for factor in factors)), factors)
    sample = volume[:: SAMPLE[0], :: SAMPLE[1], :: SAMPLE[2]]
    return volume.sub_(sample.mean()).div_(sample.std().clamp_min(1e-6))


def level_distance(shape: Sequence[int], spacing: float, level: float, draw: Draw) -> Tensor:
    """(n_L - level) / |grad n_L| (Z, Y, X): about the distance from the surface n_L = level, voxels."""
    pairs = [basis(edge, spacing) for edge in shape]
    values = [pair[0] for pair in pairs]
    coefficients = draw.normal(*(factor.shape[1] for factor in values))
    volume = _product(coefficients, values)
    sample = volume[:: SAMPLE[0], :: SAMPLE[1], :: SAMPLE[2]]
    mean, sd = sample.mean(), sample.std().clamp_min(1e-6)
    squared = torch.zeros_like(volume)
    for axis, pair in enumerate(pairs):
        slope = _product(coefficients, [*values[:axis], pair[1], *values[axis + 1 :]])
        squared.addcmul_(slope, slope)
    return volume.sub_(mean + level * sd).mul_(squared.clamp_min_(1e-16).rsqrt_())
