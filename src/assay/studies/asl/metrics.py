"""The scores by which estimates are judged; open it for a formula.

Every score is a function of sums over voxels (`Sums`). The sums of phantoms add up to those of the pool, so one pass
over the voxels serves each phantom, each stratum and each bootstrap resample. A score of nothing is NaN.

p is the estimate, t the truth, e = p - t, r the error of a rival at the same voxel. Estimates that are not finite
count in `failure_rate` and in nothing else.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.asl.pairing import Voxels, require_same_keys

COVERAGE = {68: NormalDist().inv_cdf(0.84), 95: NormalDist().inv_cdf(0.975)}
"""Half width, in standard deviations, of the central interval of each nominal coverage in per cent."""
LIMITS = 1.96  # Bland-Altman limits of agreement, in standard deviations of the error


class Sums(NamedTuple):
    """What is summed, each (...) float64. Given for single voxels, (V,), these are the summands."""

    voxels: Tensor
    finite: Tensor
    estimate: Tensor
    truth: Tensor
    estimate_squared: Tensor
    truth_squared: Tensor
    product: Tensor
    error_squared: Tensor
    error_absolute: Tensor
    compared: Tensor
    won: Tensor
    own_absolute: Tensor
    rival_absolute: Tensor
    with_std: Tensor
    within_68: Tensor
    within_95: Tensor
    z_squared: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> "Sums":
        """Apply `change` to every sum."""
        return Sums(*(change(value) for value in self))


def compare(estimate: Voxels, truth: Voxels, rival: Voxels | None = None, std: Voxels | None = None) -> Sums:
    """The summands (V,) of an estimate against the truth, and against a rival and its own standard deviation if given.

    Raises:
        DataError: the tables are not about the same voxels.
    """
    absent = torch.full_like(truth.value, torch.nan)
    for table in (estimate, rival, std):
        if table is not None:
            require_same_keys(truth, table)
    p, t = estimate.value, truth.value
    finite = p.isfinite()
    error = p - t
    rival_error = (rival.value - t).abs() if rival is not None else absent
    compared = finite & rival_error.isfinite()
    z = error.abs() / (std.value if std is not None else absent)
    return Sums(
        voxels=torch.ones_like(t),
        finite=finite.double(),
        estimate=_where(finite, p),
        truth=_where(finite, t),
        estimate_squared=_where(finite, p**2),
        truth_squared=_where(finite, t**2),
        product=_where(finite, p * t),
        error_squared=_where(finite, error**2),
        error_absolute=_where(finite, error.abs()),
        compared=compared.double(),
        won=(compared & (error.abs() < rival_error)).double(),
        own_absolute=_where(compared, error.abs()),
        rival_absolute=_where(compared, rival_error),
        with_std=(~z.isnan()).double(),
        within_68=(z <= COVERAGE[68]).double(),
        within_95=(z <= COVERAGE[95]).double(),
        z_squared=_where(~z.isnan(), z**2),
    )


def total_by(summands: Sums, group: Tensor, groups: int) -> Sums:
    """The sums (groups,) over the voxels of each group; `group` (V,) int64."""
    return summands.map(lambda value: value.new_zeros(groups).index_add_(0, group, value))


def mae(s: Sums) -> Tensor:
    """Mean of |e|."""
    return s.error_absolute / s.finite


def rmse(s: Sums) -> Tensor:
    """Root of the mean of e squared."""
    return (s.error_squared / s.finite).sqrt()


def bias(s: Sums) -> Tensor:
    """Mean of e."""
    return (s.estimate - s.truth) / s.finite


def r2(s: Sums) -> Tensor:
    """1 - SS_res / SS_tot against the identity line; below 0 where the mean of the truth would do better."""
    return 1 - s.error_squared / (_variance(s.truth, s.truth_squared, s) * s.finite)


def failure_rate(s: Sums) -> Tensor:
    """Share of voxels whose estimate is not finite."""
    return 1 - s.finite / s.voxels


def win_rate(s: Sums) -> Tensor:
    """Share of voxels with |e| < |r|, of those where both are finite; a tie is no win."""
    return s.won / s.compared


def mae_ratio(s: Sums) -> Tensor:
    """Mean of |e| over mean of |r|, where both are finite; below 1 is better than the rival."""
    return s.own_absolute / s.rival_absolute


def slope(s: Sums) -> Tensor:
    """Slope of the least-squares line of p on t."""
    return _covariance(s) / _variance(s.truth, s.truth_squared, s)


def intercept(s: Sums) -> Tensor:
    """Intercept of the least-squares line of p on t."""
    return (s.estimate - slope(s) * s.truth) / s.finite


def limits_of_agreement(s: Sums) -> tuple[Tensor, Tensor]:
    """bias -+ 1.96 sd of e, ddof 1 (Bland and Altman 1986, doi 10.1016/S0140-6736(86)90837-8)."""
    mean_square = s.error_squared - (s.estimate - s.truth) ** 2 / s.finite
    spread = LIMITS * (mean_square.clamp(min=0) / (s.finite - 1)).sqrt()
    return bias(s) - spread, bias(s) + spread


def proportional_bias(s: Sums) -> Tensor:
    """Slope of e on the mean (p + t) / 2: not 0 where the bias changes with the value (Bland and Altman 1986)."""
    p, t = _variances(s)
    return (p - t) / ((p + t + 2 * _covariance(s)) / 2)


def concordance(s: Sums) -> Tensor:
    """Lin's concordance correlation coefficient (Lin 1989, doi 10.2307/2532051), moments with ddof 0."""
    p, t = _variances(s)
    return 2 * _covariance(s) / (p + t + bias(s) ** 2)


def intraclass_correlation(s: Sums) -> Tensor:
    """ICC(3,1) of estimate and truth as two raters (Shrout and Fleiss 1979, doi 10.1037/0033-2909.86.2.420)."""
    p, t = _variances(s)
    return 2 * _covariance(s) / (p + t)


def coverage_68(s: Sums) -> Tensor:
    """Share of voxels whose 68 % interval holds the truth."""
    return s.within_68 / s.with_std


def coverage_95(s: Sums) -> Tensor:
    """Share of voxels whose 95 % interval holds the truth."""
    return s.within_95 / s.with_std


def mean_z_squared(s: Sums) -> Tensor:
    """Mean of (e / std) squared: 1 if the standard deviations are right, more if they are too small."""
    return s.z_squared / s.with_std


Metric = Callable[[Sums], Tensor]

METRICS: dict[str, Metric] = {
    "mae": mae,
    "rmse": rmse,
    "bias": bias,
    "r2": r2,
    "failure_rate": failure_rate,
    "win_rate": win_rate,
    "mae_ratio": mae_ratio,
    "slope": slope,
    "intercept": intercept,
    "agreement_low": lambda s: limits_of_agreement(s)[0],
    "agreement_high": lambda s: limits_of_agreement(s)[1],
    "proportional_bias": proportional_bias,
    "concordance": concordance,
    "icc": intraclass_correlation,
    "coverage_68": coverage_68,
    "coverage_95": coverage_95,
    "mean_z_squared": mean_z_squared,
}
"""The scores of the result table by name."""


def _where(condition: Tensor, value: Tensor) -> Tensor:
    return torch.where(condition, value, 0.0)


def _variance(first: Tensor, second: Tensor, s: Sums) -> Tensor:
    """Variance, ddof 0, from sum and sum of squares; exactly 0 where only rounding is left of it."""
    mean_square = second / s.finite
    variance = mean_square - (first / s.finite) ** 2
    return torch.where(variance > 1e-12 * mean_square, variance, variance * 0)


def _variances(s: Sums) -> tuple[Tensor, Tensor]:
    return _variance(s.estimate, s.estimate_squared, s), _variance(s.truth, s.truth_squared, s)


def _covariance(s: Sums) -> Tensor:
    return s.product / s.finite - s.estimate * s.truth / s.finite**2
