"""Scores of estimates against the truth, by stratum and with intervals; open it for what a row of table.csv means."""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from assay.studies.asl.bootstrap import Bootstrap, percentiles
from assay.studies.asl.estimators import LEAST_SQUARES, SMOOTHED
from assay.studies.asl.heldout import STRATA, HeldOut, Scan
from assay.studies.asl.metrics import METRICS, Metric, Sums, compare, mae_ratio, total_by, win_rate
from assay.studies.asl.pairing import Voxels, voxels
from assay.studies.asl.trained import Maps

ALL = "all"
QUANTITIES = ("cbf", "att")
CALIBRATION = ("coverage_68", "coverage_95", "mean_z_squared")
AGAINST_SMOOTHED = {"win_rate_smoothed": win_rate, "mae_ratio_smoothed": mae_ratio}
SSIM_WINDOW = 7  # pixels
SSIM_FLOORS = (0.01**2, 0.03**2)  # added to squared means and to variances, of a range of 1


class Label(NamedTuple):
    """Which maps are scored."""

    family: str
    snr: float
    estimator: str
    quantity: str


class Score(NamedTuple):
    """One number: what, of which estimate, on which voxels; `low` and `high` are a 95 % interval over phantoms.

    The phantoms of the brain family are slices of one head: their interval says nothing about other heads.

    CBF scores are in ml/100 g/min, ATT scores in ms, where they have a unit. `win_rate` and `mae_ratio` are against
    least squares at the same voxels, with `_smoothed` against least squares on smoothed images.
    """

    family: str
    snr: float
    stratum: str
    estimator: str
    quantity: str
    metric: str
    value: float
    low: float
    high: float
    n_voxels: int
    n_phantoms: int


class Scores:
    """All scores of a stage, found by their columns."""

    def __init__(self, rows: Iterable[Score]) -> None:
        self.rows = list(rows)
        self._found = {row[:6]: row for row in self.rows}
        self.estimators = list(dict.fromkeys(row.estimator for row in self.rows))

    def get(self, place: tuple[str, float, str], estimator: str, quantity: str, metric: str) -> Score | None:
        """The score at `place` = (family, SNR, stratum), if that stratum has voxels."""
        return self._found.get((*place, estimator, quantity, metric))

    def value(self, place: tuple[str, float, str], estimator: str, quantity: str, metric: str) -> float:
        """Its value, NaN if there is none."""
        row = self.get(place, estimator, quantity, metric)
        return math.nan if row is None else row.value


def score_maps(phantoms: HeldOut, scan: Scan, snr: float, maps: Mapping[str, Maps], weights: Tensor) -> list[Score]:
    """Every metric of every estimator, by stratum; `weights` (R, N) are the bootstrap's.

    Raises:
        DataError: scan and phantoms are not the same phantoms.
    """
    rows = []
    for quantity in QUANTITIES:
        truth = voxels(getattr(phantoms.clean, quantity), phantoms.number, phantoms.mask)
        group = strata_by_phantom(phantoms, truth)
        tables = {name: voxels(getattr(each, quantity), scan.number, phantoms.mask) for name, each in maps.items()}
        for name, table in tables.items():
            std_map = getattr(maps[name], f"{quantity}_std")
            std = voxels(std_map, scan.number, phantoms.mask) if std_map is not None else None
            label = Label(phantoms.family, snr, name, quantity)
            skipped = () if std is not None else CALIBRATION
            metrics = {key: metric for key, metric in METRICS.items() if key not in skipped}
            sums = _pooled(total_by(compare(table, truth, tables[LEAST_SQUARES], std), *group), phantoms)
            rows += _rows(label, sums, metrics, weights)
            sums = _pooled(total_by(compare(table, truth, tables[SMOOTHED]), *group), phantoms)
            rows += _rows(label, sums, AGAINST_SMOOTHED, weights)
            rows.append(_similarity(label, phantoms, getattr(maps[name], quantity), weights))
    return rows


def strata_by_phantom(phantoms: HeldOut, truth: Voxels) -> tuple[Tensor, int]:
    """Group of each voxel, stratum * N + place of its phantom, and the number of groups."""
    count = len(phantoms.number)
    stratum = phantoms.strata[phantoms.mask].long()
    return stratum * count + torch.searchsorted(phantoms.number, truth.phantom), count * len(STRATA)


def _pooled(sums: Sums, phantoms: HeldOut) -> Sums:
    """From sums by group to (1 + S, N), the first row over all strata."""

    def pool(value: Tensor) -> Tensor:
        table = value.view(len(STRATA), len(phantoms.number))
        return torch.cat([table.sum(0, keepdim=True), table])

    return sums.map(pool)


def _rows(label: Label, sums: Sums, metrics: Mapping[str, Metric], weights: Tensor) -> list[Score]:
    bootstrap = Bootstrap(sums, weights)
    n_voxels, n_phantoms = bootstrap.pooled.voxels.long().tolist(), bootstrap.phantoms.tolist()
    rows = []
    for name, metric in metrics.items():
        value, low, high = (column.tolist() for column in bootstrap.estimate(metric))
        for k, stratum in enumerate((ALL, *STRATA)):
            if n_voxels[k]:
                rows.append(_score(label, stratum, name, (value[k], low[k], high[k]), (n_voxels[k], n_phantoms[k])))
    return rows


def _score(
    label: Label, stratum: str, metric: str, estimate: tuple[float, float, float], size: tuple[int, int]
) -> Score:
    return Score(label.family, label.snr, stratum, label.estimator, label.quantity, metric, *estimate, *size)


def _similarity(label: Label, phantoms: HeldOut, maps: Tensor, weights: Tensor) -> Score:
    """Mean structural similarity over the mask, by phantom; each map is scaled by the range of its truth there."""
    truth, mask = getattr(phantoms.clean, label.quantity).double(), phantoms.mask
    low = truth.masked_fill(~mask, math.inf).amin((1, 2), keepdim=True)
    high = truth.masked_fill(~mask, -math.inf).amax((1, 2), keepdim=True)
    estimate, ideal = ((each.double() - low) / (high - low) for each in (maps, truth))
    values = local_similarity(estimate, ideal, mask).sum((1, 2)) / mask.sum((1, 2))
    lower, upper = percentiles(weights @ values / weights.sum(1))
    ends = (float(values.mean()), float(lower), float(upper))
    return _score(label, ALL, "ssim", ends, (int(mask.sum()), len(truth)))


def local_similarity(one: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    """Structural similarity (N, H, W) in [-1, 1] about every voxel of the mask, 0 elsewhere; maps of range 1.

    Wang et al. 2004, doi 10.1109/TIP.2003.819861, of uniform windows; only their voxels within the mask count.
    """

    def mean(values: Tensor) -> Tensor:
        inside = values.masked_fill(~mask, 0.0)
        return avg_pool2d(inside.unsqueeze(1), SSIM_WINDOW, 1, SSIM_WINDOW // 2).squeeze(1) / share

    share = avg_pool2d(mask.double().unsqueeze(1), SSIM_WINDOW, 1, SSIM_WINDOW // 2).squeeze(1).clamp(min=1e-9)
    mean_one, mean_other = mean(one), mean(other)
    variances = mean(one**2) - mean_one**2 + mean(other**2) - mean_other**2
    covariance = mean(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + SSIM_FLOORS[0]) / (mean_one**2 + mean_other**2 + SSIM_FLOORS[0])
    return (luminance * (2 * covariance + SSIM_FLOORS[1]) / (variances + SSIM_FLOORS[1])).masked_fill(~mask, 0.0)
