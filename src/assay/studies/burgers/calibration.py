"""Whether stated uncertainty is right: coverage and CRPS of samples, calibration error of probabilities."""

import torch
from torch import Tensor

LEVELS = tuple(level / 10 for level in range(1, 10))
BINS = 10


def coverage(samples: Tensor, true: Tensor, levels: tuple[float, ...] = LEVELS) -> Tensor:
    """Share of the truth (...) within the central interval of each level of the samples (m, ...), (levels,)."""
    s, t = samples.double(), true.double()
    limits = torch.tensor([(1 - level) / 2 for level in levels], dtype=torch.float64, device=s.device)
    low, high = s.quantile(limits, dim=0), s.quantile(1 - limits, dim=0)
    return ((low <= t) & (t <= high)).double().flatten(1).mean(1)


def calibration_error(covered: Tensor, levels: tuple[float, ...] = LEVELS, reachable: float = 1) -> Tensor:
    """Mean over the levels of |coverage - level| (Kuleshov et al. 2018, doi 10.48550/arXiv.1807.00263).

    covered: coverage (levels,). reachable: coverage / level of a perfect ensemble with as few members.
    """
    nominal = torch.tensor(levels, dtype=torch.float64, device=covered.device)
    return (covered - reachable * nominal).abs().mean()


def crps(samples: Tensor, true: Tensor) -> Tensor:
    """Mean over the truth (...) of the continuous ranked probability score of the samples (m, ...), m >= 2.

    mean |s - t| - sum |s_i - s_j| / (2 m (m - 1)), unbiased in m (Gneiting and Raftery 2007,
    doi 10.1198/016214506000001437); |p - t| for a single sample.
    """
    s, t = samples.double(), true.double()
    m = len(s)
    error = (s - t).abs().mean(0)
    if m == 1:
        return error.mean()
    rank = 2 * torch.arange(m, dtype=torch.float64, device=s.device) - m + 1
    spread: Tensor = torch.tensordot(rank, s.sort(0).values, 1) / (m * (m - 1))
    return (error - spread).mean()


def expected_calibration_error(probability: Tensor, correct: Tensor) -> Tensor:
    """Mean over ten equal bins of |share correct - mean probability|, weighted by their points; the last is closed."""
    p, c = probability.double().flatten(), correct.double().flatten()
    index = (p * BINS).long().clamp(max=BINS - 1)
    gap = p.new_zeros(BINS).index_add_(0, index, c - p)
    error: Tensor = gap.abs().sum() / len(p)
    return error
