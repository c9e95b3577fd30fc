"""What is judged side by side, by name; open it to add an estimator or to see what a name in a table stands for."""

from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.burgers import baselines, networks, predictors
from assay.studies.burgers.config import Params
from assay.studies.burgers.evaluation import Forecast, seeded
from assay.studies.burgers.linear import fit, linear
from assay.studies.burgers.networks import Loaded
from assay.studies.burgers.predictors import Predict
from assay.studies.burgers.trajectories import Trajectories

NETWORK, FNO, NULL = "network", "fno", "untrained"
CORRECTED, DISTILLED = "corrected", "distilled"
PERSISTENCE, CONSTANT, LINEAR, COARSE = "persistence", "constant_mean", "linear", "coarse_solver_"
REFERENCES = (NETWORK, CORRECTED, FNO, PERSISTENCE, CONSTANT, NULL)
"""Whose error the others' are divided by."""
NULL_SEED = 0
AFFORDABLE = 7000.0  # nu * cells^2, to which the steps of the explicit classical solver are proportional


class Networks(NamedTuple):
    """The trained networks of a pipeline."""

    autoencoder: Loaded
    operator: Loaded
    fno: Loaded
    corrector: Loaded
    distillation: Loaded


class Estimators(NamedTuple):
    """Forecasts by name: `single` ones, and `ensembles` with their random numbers."""

    single: dict[str, Forecast]
    ensembles: dict[str, Forecast]


def load_networks(params: Params, data: str, device: torch.device) -> Networks:
    """All networks that the stages before have written; `data` is the digest of the data set.

    Raises:
        CheckpointError: one is missing, damaged, or was trained for other fields, on other data, or with other networks
            than these.
    """
    here, found = {"data": data}, {}
    stages: tuple[networks.Stage, ...] = ("autoencoder", "operator", "fno", "corrector", "distillation")
    for stage in stages:
        found[stage] = networks.load_shared(stage, params, here, device)
        here[stage] = found[stage].digest
    return Networks(**found)


def estimators(params: Params, trained: Networks, trajectories: Trajectories, nu: float) -> Estimators:
    """Networks and controls for a viscosity; the linear map is fitted to its training trajectories."""
    size, base = params.evaluation.batch_size, trained.operator
    tokens, training = base.params.model.tokens, trajectories.split("training", nu)
    single: dict[str, Forecast] = {
        NETWORK: predictors.operator(base, size),
        FNO: predictors.fno(trained.fno, size),
        PERSISTENCE: persistence,
        CONSTANT: constant_mean,
        LINEAR: linear(fit(training, tokens, params.data.stride)),
        NULL: predictors.operator(predictors.untrained(base, NULL_SEED), size),
    }
    single |= {f"{COARSE}{cells}": coarse_solver(cells, params.data.dt) for cells in affordable(params, nu)}
    ensembles = {
        CORRECTED: seeded(predictors.corrected(base, trained.corrector, params.corrector, size), CORRECTED),
        DISTILLED: seeded(predictors.distilled(base, trained.distillation, params.corrector, size), DISTILLED),
    }
    return Estimators(single, ensembles)


def affordable(params: Params, nu: float) -> list[int]:
    """Cells of the classical solvers that are run at a viscosity."""
    return [cells for cells in params.evaluation.coarse_cells if nu * cells**2 < AFFORDABLE]


def persistence(start: Tensor, nu: float, steps: int) -> Tensor:
    """The given field at every frame."""
    return baselines.persistence(start, steps + 1)


def constant_mean(start: Tensor, nu: float, steps: int) -> Tensor:
    """The mean of the given field at every later frame."""
    return torch.cat([start[:, None], baselines.constant_mean(start, steps)], dim=1)


def coarse_solver(cells: int, dt: float) -> Predict:
    """The classical solver on few cells; frame 0 is the average of the given field."""

    def predict(start: Tensor, nu: float, steps: int) -> Tensor:
        return baselines.coarse_solver(start, [step * dt for step in range(steps + 1)], nu, cells)

    return predict
