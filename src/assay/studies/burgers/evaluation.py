"""Scores of predicted trajectories in field space, with intervals; open it for what a row of table.csv means.

There are three tasks. one_step: a single step from every true frame. sampled_step: the same from a few frames, evenly
spread, for ensembles, which cost many calls a step. rollout: all steps from the first frame, each from the prediction
before. All are (b, starts, frames, cells): every test trajectory is predicted from one or many of its frames. The first
of the frames is given and not scored; `mass_drift`, `energy_growth` and `overshoot` see it as what the prediction began
from. A prediction on fewer cells than the truth is judged against the truth averaged to its cells.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from assay.engine.random import generator
from assay.studies.burgers import metrics
from assay.studies.burgers.calibration import LEVELS, calibration_error, coverage, crps
from assay.studies.burgers.equation import average_cells
from assay.studies.burgers.predictors import Ensemble
from assay.studies.burgers.sections import DataConfig
from assay.studies.burgers.trajectories import Trajectories

Task = Literal["one_step", "sampled_step", "rollout"]
STARTS = 8  # of sampled_step, in each trajectory
PRIMARY = "nrmse_frame"
CRPS = "crps"
BANDS = ("low", "middle", "high")
TAIL = 0.025  # on each side of a 95 % interval
Forecast = Callable[[Tensor, float, int], Tensor]
"""A Predict, or an Ensemble that has its random numbers: (B, K + 1, cells) or (members, B, K + 1, cells)."""


class Case(NamedTuple):
    """True test trajectories (b, K + 1, cells) of one viscosity, a model's step `dt` apart; `rows` of the data set."""

    nu: float
    dt: float
    rows: Sequence[int]
    truth: Tensor

    def windows(self, task: Task) -> Tensor:
        """The truth by start, (b, starts, frames, cells), the first frame being the given one."""
        if task == "rollout":
            return self.truth[:, None]
        pairs = torch.stack([self.truth[:, :-1], self.truth[:, 1:]], dim=2)
        return pairs if task == "one_step" else sampled(pairs)


def sampled(pairs: Tensor) -> Tensor:
    """Those of the one_step windows or predictions (b, starts, 2, cells) that sampled_step has."""
    starts = pairs.shape[1]
    return pairs[:, torch.linspace(0, starts - 1, min(STARTS, starts)).long()]


def open_case(trajectories: Trajectories, data: DataConfig, nu: float, device: torch.device) -> Case:
    """The test trajectories of a viscosity."""
    truth = trajectories.split("test", nu)[:, :: data.stride].to(device)
    return Case(nu, data.dt, trajectories.splits["test"], truth)


def seeded(ensemble: Ensemble, name: str) -> Forecast:
    """The ensemble with random numbers that belong to its name, the viscosity and the number of steps."""

    def forecast(start: Tensor, nu: float, steps: int) -> Tensor:
        return ensemble(start, nu, steps, generator("ensemble", name, str(nu), steps, device=start.device))

    return forecast


def predicted(forecast: Forecast, case: Case, task: Task) -> Tensor:
    """What a forecast makes of the given frames, (b, starts, frames, cells), after the members if it has any."""
    truth = case.windows(task)
    fields = forecast(truth[:, :, 0].flatten(0, 1), case.nu, truth.shape[2] - 1)
    return fields.reshape(*fields.shape[:-3], *truth.shape[:2], *fields.shape[-2:])


class Judged(NamedTuple):
    """The scores of one estimator: by trajectory (b,), whose mean is the score, or of all trajectories together ()."""

    by_trajectory: dict[str, Tensor]
    pooled: dict[str, Tensor]


def judge(fields: Tensor, truth: Tensor) -> Judged:
    """Every score of `predicted` fields. Of an ensemble the mean is scored as a prediction, then its uncertainty."""
    truth = average_cells(truth.double(), fields.shape[-1])
    if fields.dim() == truth.dim():
        return _join(_judge(fields, truth), _absolute_error(fields, truth))
    return _join(_judge(fields.double().mean(0), truth), _uncertainty(fields, truth))


def _judge(fields: Tensor, truth: Tensor) -> Judged:
    rows = [_trajectory(p, t) for p, t in zip(fields.double(), truth, strict=True)]
    p, t = (each[:, :, 1:].flatten(1, 2) for each in (fields.double(), truth))
    pooled = {"nrmse_pooled": metrics.nrmse_pooled(p, t), "crmse": metrics.crmse(p, t)}
    pooled |= {f"frmse_{band}": value for band, value in zip(BANDS, metrics.frmse(p, t), strict=True)}
    return Judged(_stacked(rows), pooled)


def _trajectory(p: Tensor, t: Tensor) -> dict[str, Tensor]:
    """Scores of one trajectory (starts, frames, cells); starts and frames count alike."""
    error = (p[:, 1:].flatten(0, 1)[None], t[:, 1:].flatten(0, 1)[None])
    return {
        PRIMARY: metrics.nrmse_frame(*error),
        "nrmse_trajectory": metrics.nrmse_trajectory(*error),
        "mass_drift": metrics.mass_drift(p),
        "mass_gap": metrics.mass_gap(*error),
        "energy_growth": metrics.energy_growth(p),
        "brmse": metrics.brmse(*error),
        "seam_jump": metrics.seam_jump(*error),
        "shock_position_error": metrics.shock_position_error(*error),
        "overshoot": metrics.overshoot(p, t[:, 0]),
        "diverged": (~p.isfinite().all()).double(),
    }


def _absolute_error(fields: Tensor, truth: Tensor) -> Judged:
    """The CRPS of a single prediction."""
    return Judged({CRPS: (fields - truth)[:, :, 1:].abs().double().mean((1, 2, 3))}, {})


def _uncertainty(samples: Tensor, truth: Tensor) -> Judged:
    """Scores of the members (m, b, starts, frames, cells).

    coverage_50: share of the truth within the central half of the members. calibration_error: mean over ten to ninety
    per cent of the distance from coverage to level, as in calibration.py. Few members reach too narrow quantiles:
    truth and m members from one distribution give a coverage of only level * (m - 1) / (m + 1), exactly so where
    quantiles are members or the distribution is uniform; `excess_calibration_error` is the distance from that.
    spread_skill: sqrt((m + 1) / m * mean variance) / rms error of the mean, 1 for a reliable ensemble (Fortin et al.
    2014, doi 10.1175/JHM-D-14-0008.1).
    """
    pairs = [(samples[:, i, :, 1:].double(), truth[i, :, 1:]) for i in range(len(truth))]
    covered = torch.stack([coverage(s, t) for s, t in pairs])
    found = {CRPS: torch.stack([crps(s, t) for s, t in pairs])}
    found |= {f"coverage_{level * 100:.0f}": share for level, share in zip(LEVELS, covered.T, strict=True)}
    variance = torch.stack([s.var(0).mean() for s, _ in pairs]).mean() * (len(samples) + 1) / len(samples)
    skill = torch.stack([(s.mean(0) - t).square().mean() for s, t in pairs]).mean()
    pooled = {
        "calibration_error": calibration_error(covered.mean(0)),
        "excess_calibration_error": calibration_error(covered.mean(0), LEVELS, reachable(len(samples))),
        "spread_skill": (variance / skill).sqrt(),
    }
    return Judged(found, pooled)


def reachable(members: int) -> float:
    """Coverage / level of a perfect ensemble."""
    return (members - 1) / (members + 1)


def _join(one: Judged, other: Judged) -> Judged:
    return Judged(one.by_trajectory | other.by_trajectory, one.pooled | other.pooled)


def _stacked(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


class Estimate(NamedTuple):
    """A score and the ends of its 95 % percentile interval over trajectories, NaN with fewer than two of them."""

    value: float
    low: float
    high: float


def resamples(trajectories: int, count: int) -> Tensor:
    """How often each trajectory is drawn in each resample, (count, trajectories) float64; the same at every call."""
    drawn = torch.randint(trajectories, (count, trajectories), generator=generator("bootstrap", trajectories, count))
    times = torch.zeros(count, trajectories, dtype=torch.float64)
    return times.scatter_add_(1, drawn, torch.ones_like(times))


def mean(values: Tensor, weights: Tensor) -> Estimate:
    """The mean over trajectories of `values` (b,); `weights` (R, b) are the resamples."""
    return _estimate(values.mean(), weights @ values.cpu() / len(values), len(values))


def ratio(values: Tensor, others: Tensor, weights: Tensor) -> Estimate:
    """Mean of `values` / mean of `others`, both (b,), of the same trajectories: they are resampled together."""
    return _estimate(values.mean() / others.mean(), (weights @ values.cpu()) / (weights @ others.cpu()), len(values))


def _estimate(value: Tensor, resampled: Tensor, count: int) -> Estimate:
    low, high = (float(resampled.quantile(q)) if count > 1 else torch.nan for q in (TAIL, 1 - TAIL))
    return Estimate(float(value), low, high)


class Score(NamedTuple):
    """One number. `low` and `high` are a 95 % interval over trajectories where the score is a mean over them.

    ratio_NAME is nrmse_frame over that of the estimator NAME on the same trajectories. Fields u have no unit. n: test
    trajectories; those whose prediction is not finite are counted in `diverged` and leave the others undefined.
    """

    nu: float
    task: str
    estimator: str
    metric: str
    value: float
    low: float
    high: float
    n: int


def scores_of(
    case: Case, task: str, judged: Mapping[str, Judged], references: Iterable[str], weights: Tensor
) -> list[Score]:
    """Rows of every estimator in `judged`, and the ratios of each to the `references` among them."""
    rows = []
    n = len(case.rows)
    for name, each in judged.items():
        found = {metric: mean(values, weights) for metric, values in each.by_trajectory.items()}
        found |= {metric: Estimate(float(value), torch.nan, torch.nan) for metric, value in each.pooled.items()}
        for other in references:
            if other != name and other in judged:
                pair = (each.by_trajectory[PRIMARY], judged[other].by_trajectory[PRIMARY])
                found[f"ratio_{other}"] = ratio(*pair, weights)
                if CRPS in each.by_trajectory and CRPS in judged[other].by_trajectory:
                    crps_pair = (each.by_trajectory[CRPS], judged[other].by_trajectory[CRPS])
                    found[f"crps_ratio_{other}"] = ratio(*crps_pair, weights)
        rows += [Score(case.nu, task, name, metric, *estimate, n) for metric, estimate in found.items()]
    return rows


def per_trajectory(case: Case, task: Task, judged: Mapping[str, Judged]) -> list[list[float | str]]:
    """Rows nu, estimator, task, row of the data set, nrmse_frame: for statistics that pair runs by row."""
    return [
        [case.nu, name, task, row, value]
        for name, each in judged.items()
        for row, value in zip(case.rows, each.by_trajectory[PRIMARY].tolist(), strict=True)
    ]


class Scores:
    """All scores of a stage, found by their columns."""

    def __init__(self, rows: Iterable[Score]) -> None:
        self.rows = list(rows)
        self._found = {row[:4]: row for row in self.rows}

    def estimators(self, nu: float, task: str) -> list[str]:
        """Who has been judged, in order."""
        return list(dict.fromkeys(row.estimator for row in self.rows if (row.nu, row.task) == (nu, task)))

    def get(self, nu: float, task: str, estimator: str, metric: str) -> Score:
        """A score, NaN if there is none."""
        missing = Score(nu, task, estimator, metric, torch.nan, torch.nan, torch.nan, 0)
        return self._found.get((nu, task, estimator, metric), missing)
