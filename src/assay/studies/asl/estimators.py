"""Everything that makes maps of a scan: the network and its controls; open it to add a baseline.

Controls: the untrained network (the null), the training mean everywhere, and least squares, on the voxels as they are
and on smoothed images, which is the fair rival of a network that sees neighbours. All are clamped to the same range.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from assay.errors import CheckpointError
from assay.studies.asl.config import Params
from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.heldout import Scan, randomisation
from assay.studies.asl.least_squares import fit_images, smooth_signals
from assay.studies.asl.model import Statistics
from assay.studies.asl.model.outputs import ATT_LIMITS, CBF_LIMITS
from assay.studies.asl.physics import Physics
from assay.studies.asl.trained import Maps, TrainedModel, load_trained

Estimator = Callable[[Scan], Maps]
NETWORK, NULL, CONSTANT = "network", "untrained", "constant"
LEAST_SQUARES, SMOOTHED = "least_squares", "smoothed_least_squares"
NOMINAL = "_nominal"  # suffix: fitted with the nominal physics although the phantoms' differ


def network(model: TrainedModel) -> Estimator:
    """The mean of an ensemble."""
    return lambda scan: model.estimate(scan.signal, scan.sigma)


def constant(statistics: Statistics) -> Estimator:
    """The mean of the training data, whatever the scan."""

    def estimate(scan: Scan) -> Maps:
        maps = torch.ones_like(scan.signal[:, 0])
        return Maps(maps * statistics.cbf_mean, maps * statistics.att_mean, None, None)

    return estimate


def least_squares(
    params: Params, *, cbf_max: float = CBF_LIMITS[1], smoothing: float = 0.0, physics: Physics | None = None
) -> Estimator:
    """Voxel-wise least squares with CBF up to `cbf_max`, with the physics of the scan unless others are given.

    smoothing: standard deviation, in pixels, of a blur of every image beforehand.
    """

    def estimate(scan: Scan) -> Maps:
        signal = smooth_signals(scan.signal, smoothing)
        fit = fit_images(signal, params.physics.plds, physics or scan.physics, cbf_bounds=(0.0, cbf_max))
        return Maps(fit.cbf, fit.att, None, None)

    return estimate


def baselines(params: Params) -> dict[str, Estimator]:
    """The least-squares estimators of the validate stage."""
    settings = params.evaluation
    smoothings = {LEAST_SQUARES: 0.0, SMOOTHED: settings.smoothing_sigma}
    found = {
        name: least_squares(params, cbf_max=settings.cbf_max, smoothing=smoothing)
        for name, smoothing in smoothings.items()
    }
    if randomisation(params):
        physics = nominal_physics(params)
        for name, smoothing in smoothings.items():
            found[name + NOMINAL] = least_squares(
                params, cbf_max=settings.cbf_max, smoothing=smoothing, physics=physics
            )
    return found


def estimate_all(estimators: Mapping[str, Estimator], scan: Scan, device: torch.device) -> dict[str, Maps]:
    """The maps of every estimator, clamped to one range, on the CPU."""
    moved = scan.to(device)
    return {name: clamped(estimator(moved)) for name, estimator in estimators.items()}


def clamped(maps: Maps) -> Maps:
    """CBF in [0, 200] ml/100 g/min, ATT in [0, 5000] ms, on the CPU; NaN stays NaN."""
    return Maps(
        maps.cbf.cpu().clamp(*CBF_LIMITS), maps.att.cpu().clamp(*ATT_LIMITS), _cpu(maps.cbf_std), _cpu(maps.att_std)
    )


def load_for(params: Params, folder: Path, device: torch.device) -> TrainedModel:
    """The trained model of a folder.

    Raises:
        CheckpointError: there is none, or it was trained with another signal model. How far its constants vary between
            phantoms may differ: whether a model bears that is a question.
    """
    model = load_trained(folder, device)
    for field in (each for each in dataclasses.fields(params.physics) if each.name != "randomise"):
        trained_with, given = (getattr(each.physics, field.name) for each in (model.params, params))
        if trained_with != given:
            raise CheckpointError(
                f"physics.{field.name}: got {_shown(given)}; allowed: {_shown(trained_with)}, with which the model in "
                f"{folder} was trained; give that, or train again"
            )
    return model


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else f"{value:g}" if isinstance(value, float) else str(value)


def _cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()
