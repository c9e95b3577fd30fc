"""How estimates follow the signal's amplitude; open it for the definition of the slope.

Signal and noise of heterogeneous phantoms are multiplied by the same factor s. Perfusion is proportional to the
signal, so mean CBF must grow as s (slope 1 in logarithms) and ATT must not change. Only voxels whose true CBF stays
within the common output range at the largest s count.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.asl.bootstrap import Bootstrap, Estimate, percentiles
from assay.studies.asl.estimators import Estimator, clamped
from assay.studies.asl.evaluation import strata_by_phantom
from assay.studies.asl.heldout import STRATA, HeldOut, Scan
from assay.studies.asl.metrics import Sums, compare, intercept, slope, total_by
from assay.studies.asl.pairing import voxels
from assay.studies.asl.trained import Maps


class Response(NamedTuple):
    """Sums over the voxels of each of P phantoms at each of S scales.

    size (P,): voxels. cbf, att (S, P): ml/100 g/min, ms. att_change (S, P): |ATT - ATT at scale 1|.
    reference: sums by stratum (T, P) at scale 1, CBF against the truth.
    """

    scales: Tensor
    size: Tensor
    cbf: Tensor
    att: Tensor
    att_change: Tensor
    reference: Sums


class Curve(NamedTuple):
    """Mean CBF (S,) ml/100 g/min, mean ATT (S,) ms and ATT change (S,) % over the scales, and the slope."""

    cbf: Estimate
    att: Estimate
    att_change: Estimate
    slope: Estimate


class TissueLine(NamedTuple):
    """Line of estimated on true CBF within a stratum: slope (), and intercept () in ml/100 g/min."""

    n_voxels: int
    slope: Estimate
    intercept: Estimate


def respond(estimator: Estimator, phantoms: HeldOut, scan: Scan, scales: tuple[float, ...]) -> Response:
    """Estimate the scan at every scale; `scales` contains 1.

    Raises:
        DataError: scan and phantoms are not the same phantoms.
    """
    maps = {s: clamped(estimator(scan.scaled(s))) for s in scales}
    mask = phantoms.mask
    reference = maps[1.0]
    return Response(
        scales=torch.tensor(scales, dtype=torch.float64),
        size=mask.sum((1, 2)).double(),
        cbf=torch.stack([_sums(each.cbf, mask) for each in maps.values()]),
        att=torch.stack([_sums(each.att, mask) for each in maps.values()]),
        att_change=torch.stack([_sums((each.att - reference.att).abs(), mask) for each in maps.values()]),
        reference=_against_truth(reference, phantoms, scan),
    )


def curve(response: Response, weights: Tensor) -> Curve:
    """Means over all voxels and the log-log slope, with intervals over phantoms; `weights` (R, P)."""
    ones = torch.ones(1, len(response.size), dtype=torch.float64)
    pooled, resampled = (_means(response, each) for each in (ones, weights))
    cbf, att, change = (_estimate(*both) for both in zip(pooled, resampled, strict=True))
    return Curve(cbf, att, change, _estimate(*(log_slope(response.scales, each[0]) for each in (pooled, resampled))))


def log_slope(scales: Tensor, cbf: Tensor) -> Tensor:
    """Slope (R,) of the least-squares line of log cbf (S, R) on log scales (S,); NaN where a mean CBF is 0."""
    x = scales.log()
    x = (x - x.mean()).unsqueeze(-1)
    y = torch.where(cbf > 0, cbf, torch.nan).log()
    return (x * y).sum(0) / x.square().sum(0)


def tissue_lines(response: Response, weights: Tensor) -> dict[str, TissueLine]:
    """The line of estimated on true CBF at scale 1 in each stratum that has voxels."""
    bootstrap = Bootstrap(response.reference, weights)
    slopes, intercepts = bootstrap.estimate(slope), bootstrap.estimate(intercept)
    sizes = bootstrap.pooled.voxels.long().tolist()
    return {
        name: TissueLine(size, Estimate(*(v[k] for v in slopes)), Estimate(*(v[k] for v in intercepts)))
        for k, (name, size) in enumerate(zip(STRATA, sizes, strict=True))
        if size
    }


def _means(response: Response, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean CBF, mean ATT and ATT change in per cent of mean ATT at scale 1, each (S, R)."""
    voxels = response.size @ weights.T
    cbf, att, change = (each @ weights.T / voxels for each in (response.cbf, response.att, response.att_change))
    at_one = att[int((response.scales == 1).nonzero())]
    return cbf, att, (100 * change / at_one).round(decimals=4)  # float32 rounding makes some 1e-6 %


def _estimate(pooled: Tensor, resampled: Tensor) -> Estimate:
    low, high = percentiles(resampled)
    return Estimate(pooled.squeeze(-1), low, high)


def _sums(maps: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, maps.double(), 0.0).sum((1, 2))


def _against_truth(maps: Maps, phantoms: HeldOut, scan: Scan) -> Sums:
    truth = voxels(phantoms.clean.cbf, phantoms.number, phantoms.mask)
    estimate = voxels(maps.cbf, scan.number, phantoms.mask)
    sums = total_by(compare(estimate, truth), *strata_by_phantom(phantoms, truth))
    return sums.map(lambda value: value.view(len(STRATA), -1))
