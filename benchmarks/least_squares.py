"""Accuracy and speed of the least-squares fits on the published condition: `python benchmarks/least_squares.py`.

50 phantoms with lesions, Gaussian noise of sd S_ref / 10, voxels with CBF > 1; every tenth of them in raster order
is scored. The published figures come from 50 other phantoms, so they should lie within the bootstrap intervals
(over phantoms: voxels of one phantom are not independent) about as often as two such samples agree.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from assay.studies.asl.least_squares import scipy_fit, variable_projection
from assay.studies.asl.phantom import simulate_phantoms
from assay.studies.asl.physics import Physics, joint_signal, reference_signal

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)
PHYSICS = Physics()
PHANTOMS = 50
PUBLISHED = {
    200.0: {"cbf": (0.533, 0.670, -0.002), "att": (36.6, 104.5, 3.8)},
    100.0: {"cbf": (0.789, 2.81, -0.27), "att": (37.2, 102.9, 3.1)},
}
"""Upper CBF bound (the lower one is 1) -> MAE, RMSE and bias of both parameters, correctly paired with the truth."""


def condition(seed: int) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Signals (V, 12), true values (V,) and phantom number (V,) of the scored voxels."""
    generator = torch.Generator().manual_seed(seed)
    phantoms = simulate_phantoms(PHANTOMS, generator=generator)
    cbf, att = phantoms.cbf.double(), phantoms.att.double()
    signal = joint_signal(cbf, att, PLDS, PHYSICS)
    noise = torch.randn(signal.shape, generator=generator, dtype=torch.float64)
    signal = signal + noise * reference_signal(PHYSICS) / 10
    mask = cbf > 1
    owner = torch.arange(PHANTOMS).view(-1, 1, 1).expand_as(cbf)
    truth = {"cbf": cbf[mask][::10], "att": att[mask][::10]}
    return signal.movedim(1, -1)[mask][::10], truth, owner[mask][::10]


def score(error: np.ndarray) -> np.ndarray:
    """MAE, RMSE and bias."""
    return np.array([np.abs(error).mean(), np.sqrt(np.square(error).mean()), error.mean()])


def interval(error: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval of each score, resampling phantoms."""
    groups = [error[owner == phantom] for phantom in range(PHANTOMS)]
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, PHANTOMS, PHANTOMS) for _ in range(1000)]
    scores = np.stack([score(np.concatenate([groups[index] for index in draw])) for draw in draws])
    return np.percentile(scores, 2.5, axis=0), np.percentile(scores, 97.5, axis=0)


def report_accuracy(signal: Tensor, truth: dict[str, Tensor], owner: Tensor) -> None:
    """Print the scores of variable projection beside the published ones."""
    print("bound  map  score       here   [95 % interval]         published")
    for bound, published in PUBLISHED.items():
        fit = variable_projection(signal, PLDS, PHYSICS, cbf_bounds=(1.0, bound))
        for name in ("cbf", "att"):
            error = (getattr(fit, name) - truth[name]).numpy()
            low, high = interval(error, owner.numpy())
            for index, label in enumerate(("MAE", "RMSE", "bias")):
                here = f"{score(error)[index]:9.3f}   [{low[index]:8.3f}, {high[index]:8.3f}]"
                print(f"{bound:5.0f}  {name}  {label:5} {here}   {published[name][index]:9.3f}")


def seconds(work: Callable[[], object], repetitions: int) -> list[float]:
    """Wall time of each repetition."""
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def report_speed(signal: Tensor, truth: dict[str, Tensor], voxels: int, repetitions: int) -> None:
    """Print time for each voxel of both fits, one thread each, and which fit has the smaller sum of squares."""
    sample = torch.randperm(len(signal), generator=torch.Generator().manual_seed(0))[:voxels]
    few = signal[sample].numpy()
    reference: list[tuple[float, float]] = []

    def loop() -> None:
        reference[:] = [scipy_fit(voxel, PLDS, PHYSICS) for voxel in few]

    variable_projection(signal, PLDS, PHYSICS)
    fast = [t / len(signal) for t in seconds(lambda: variable_projection(signal, PLDS, PHYSICS), 3 * repetitions)]
    slow = [t / len(few) for t in seconds(loop, repetitions)]
    fit = variable_projection(signal[sample], PLDS, PHYSICS)
    cbf, att = torch.tensor(reference, dtype=torch.float64).unbind(1)
    curve = joint_signal(cbf.view(1, -1, 1), att.view(1, -1, 1), PLDS, PHYSICS)[0, :, :, 0].T
    ratio = fit.sse / (signal[sample] - curve).square().sum(1)
    print(f"\n{len(signal)} voxels (variable projection), {len(few)} voxels (scipy), one thread")
    for name, times in (("variable projection", fast), ("scipy", slow)):
        print(f"{name:>20}  {1e6 * statistics.median(times):9.2f} us per voxel, median of {len(times)}")
    print(f"{'ratio':>20}  {statistics.median(slow) / statistics.median(fast):9.0f}")
    print(f"sum of squares above scipy's by more than 1e-6: {int((ratio > 1 + 1e-6).sum())} of {len(few)} voxels")
    print(f"sum of squares below scipy's by more than 1e-6: {int((ratio < 1 - 1e-6).sum())} of {len(few)} voxels")
    for name, ours, theirs in (("cbf", fit.cbf, cbf), ("att", fit.att, att)):
        report_paired(name, ours - truth[name][sample], theirs - truth[name][sample])


def report_paired(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Print MAE and bias of both fits on the same voxels, and the paired difference with its standard error."""
    for score, left, right in (("MAE", ours.abs(), theirs.abs()), ("bias", ours, theirs)):
        difference = left - right
        spread = f"{difference.mean():+.3f} +- {difference.std() / len(difference) ** 0.5:.3f}"
        print(f"{name} {score:4}: variable projection {left.mean():.3f}, scipy {right.mean():.3f}, difference {spread}")


def main() -> None:
    """Print accuracy, then speed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--voxels", type=int, default=1500)
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    signal, truth, owner = condition(arguments.seed)
    report_accuracy(signal, truth, owner)
    report_speed(signal, truth, arguments.voxels, arguments.repetitions)


if __name__ == "__main__":
    main()
