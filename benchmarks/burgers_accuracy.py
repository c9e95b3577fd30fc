"""Errors of the Burgers solvers and of the baselines: `python benchmarks/burgers_accuracy.py`.

First table: relative L2 error for u0 = 0.3 + sin(2 pi x), worst of t = 0.2, 0.5, 1 and 2, by scheme, viscosity and
number of cells; --times takes others: it is largest near 0.28, where the shock is steepest. Second table: what
persistence (strides 1, 2 and 5), the constant mean and coarse finite volumes (64, 128 and 256 cells, against the truth
averaged to their cells) reach on random initial conditions.
"""

import argparse
import math

import torch
from torch import Tensor

from assay.studies.burgers.baselines import coarse_solver, constant_mean
from assay.studies.burgers.equation import average_cells, cell_centres, frame_times
from assay.studies.burgers.exact import cole_hopf
from assay.studies.burgers.initial import initial_conditions
from assay.studies.burgers.metrics import nrmse_frame, nrmse_pooled
from assay.studies.burgers.solver import SchemeName, solve

TIMES = (0.2, 0.5, 1.0, 2.0)
COARSE = (64, 128, 256)
STRIDES = (1, 2, 5)
AFFORDABLE = 7000  # nu cells^2 to which the explicit diffusion of the coarse solver takes seconds


def worst_error(name: SchemeName, cells: int, nu: float, times: tuple[float, ...]) -> float:
    """Relative L2 error at the worst of the times, which begin with 0."""

    def u0(x: Tensor) -> Tensor:
        return 0.3 + torch.sin(2 * math.pi * x)

    x = cell_centres(cells)
    exact = cole_hopf(u0, x, times, nu)
    error = solve(u0(x)[None], times, nu, name)[0] - exact
    return float((error.norm(dim=1) / exact.norm(dim=1)).max())


def accuracy(slow: bool, times: tuple[float, ...]) -> None:
    """Print the first table; finite volumes are slow where nu is large, for their diffusion is explicit."""
    grids: dict[SchemeName, dict[float, tuple[int, ...]]] = {
        "muscl": {0.001: (256, 512, 1024), 0.01: (256, 512), 0.1: (256,)},
        "spectral": {
            0.001: (256, 512, 1024, 4096),
            0.01: (256, 512, 1024),
            0.1: (256, 512, 1024),
            1.0: (256, 512, 1024),
        },
    }
    if slow:
        grids["muscl"] |= {0.001: (256, 512, 1024, 2048, 4096), 0.01: (256, 512, 1024), 0.1: (256, 512), 1.0: (256,)}
        grids["spectral"][0.001] += (8192,)
    for name, rows in grids.items():
        for nu, cells in rows.items():
            print(
                f"{name:>9} {nu:6g} ",
                "  ".join(f"{n}: {worst_error(name, n, nu, times):.1e}" for n in cells),
                flush=True,
            )


def baselines(viscosities: list[float], trajectories: int, cells: int) -> None:
    """Print the second table."""
    u0 = initial_conditions(0, range(trajectories)).sample(cell_centres(cells))
    times = frame_times()
    for nu in viscosities:
        true = solve(u0, times, nu)
        strided = [true[:, ::stride] for stride in STRIDES]
        copied = [float(nrmse_pooled(u[:, :-1], u[:, 1:])) for u in strided]
        constant = constant_mean(u0, len(times))
        coarse = [(coarse_solver(u0, times, nu, n), average_cells(true, n)) for n in COARSE if nu * n**2 < AFFORDABLE]
        for label, score in (("pooled", nrmse_pooled), ("frame", nrmse_frame)):
            errors = [float(score(constant, true)), *(float(score(*pair)) for pair in coarse)]
            print(f"{nu:6g} {label:>7} ", *(f"{error:8.2g}" for error in copied + errors), flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trajectories", type=int, default=96)
    parser.add_argument("--cells", type=int, default=1024)
    parser.add_argument("--viscosities", type=float, nargs="*", default=[0.001, 0.01, 0.1, 1.0])
    parser.add_argument("--times", type=float, nargs="+", default=TIMES)
    parser.add_argument("--slow", action="store_true", help="the cells of the first table that take minutes, too")
    parser.add_argument("--skip-accuracy", action="store_true")
    arguments = parser.parse_args()
    if not arguments.skip_accuracy:
        print("relative L2 error, by number of cells")
        accuracy(arguments.slow, (0.0, *arguments.times))
    print(
        f"\n{arguments.trajectories} trajectories: persistence pooled at strides {STRIDES}, constant, coarse {COARSE}"
    )
    baselines(arguments.viscosities, arguments.trajectories, arguments.cells)


if __name__ == "__main__":
    main()
