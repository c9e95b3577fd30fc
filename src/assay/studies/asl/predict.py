"""Stage predict: a trained model on a BIDS ASL folder; writes CBF and ATT maps as BIDS derivatives, and a QC page.

Open it to see what is checked before a model trained on simulated data is applied to measured data.
"""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor

import assay
from assay.engine.precision import pick_device
from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.errors import ConfigError, DataError
from assay.studies.asl.bids import (
    AslSeries,
    Provenance,
    read_asl,
    require_label_duration,
    require_plds,
    require_sequences,
    to_volume,
    write_derivative,
)
from assay.studies.asl.bids.acquisition import LabellingKind
from assay.studies.asl.bids.series import Array
from assay.studies.asl.bids.write import ExtraMap
from assay.studies.asl.config import Params
from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.least_squares import fit_images
from assay.studies.asl.physics import SUPPRESSION_PULSES, Physics, joint_signal
from assay.studies.asl.quality import quality_page
from assay.studies.asl.trained import Maps, TrainedModel, load_trained

SEQUENCES: tuple[LabellingKind, ...] = ("pcasl", "vsasl")


def run(params: Params) -> None:
    """Maps of every series below `predict.bids`, into `predict.output`.

    Raises:
        ConfigError: predict.bids or predict.output is null.
        DataError: the data are not what the model was trained for, or not valid BIDS ASL.
        CheckpointError: there is no trained model in `predict.model`.
        Unfinished: stopped on request; the series done so far are complete.
    """
    folder, output = _given(params.predict.bids, "bids"), _given(params.predict.output, "output")
    device = pick_device("auto")
    model = load_trained(Path(params.predict.model), device)
    digest = _digest(Path(params.predict.model))
    found = read_asl(folder)
    for series in found:
        require_fit(series, model.params)
    with StopRequest() as stop, phase("predict", len(found), unit="series", stop=stop) as progress:
        for series in found:
            write_maps(series, model, digest, output, device)
            progress.advance(note=series.name)


def require_fit(series: AslSeries, trained: Params) -> None:
    """Raise DataError unless the series was acquired as the model's training data were simulated."""
    require_sequences(series, SEQUENCES)
    require_plds(series, trained.physics.plds)
    require_label_duration(series, trained.physics.label_duration)
    if min(series.mask.shape[:2]) < 2 ** (len(trained.model.hidden_sizes or (0,)) - 1):
        size = " x ".join(str(edge) for edge in series.mask.shape[:2])
        raise DataError(f"{series.name}: image is {size} voxels; the model halves it once a level; use larger images")


def write_maps(series: AslSeries, model: TrainedModel, digest: str, output: Path, device: torch.device) -> None:
    """Estimate one series slice by slice and write its maps and quality page."""
    physics = nominal_physics(model.params)
    signal = torch.from_numpy(efficiency_corrected(series, physics)).to(device)
    noise = noise_level(series, signal, model.params.physics.plds, physics)
    maps = model.estimate(signal, torch.full((len(signal), 1, 1, 1), noise, device=device))
    cbf, att = _volume(maps.cbf), _volume(maps.att)
    constants = {field.name: float(getattr(physics, field.name)) for field in dataclasses.fields(physics)}
    name = f"{model.params.model.architecture} x {model.members}"
    provenance = Provenance(
        version=assay.__version__,
        model_name=name,
        model_digest=digest,
        physics=constants,
        parameters={"NoiseStandardDeviation": noise, "TrainedRun": model.identity},
    )
    extra = fit_quality(maps, signal, model.params.physics.plds, physics)
    images = write_derivative(series, cbf, att, out=output, provenance=provenance, extra=extra)
    page = images[0].parent / f"{series.name}_desc-assayQuality.png"
    quality_page(series, cbf, att, out=page, model=name, alpha_bs=float(physics.alpha_bs))


def efficiency_corrected(series: AslSeries, physics: Physics) -> Array:
    """(Z, C, X, Y) dM/M0 as if labelled and suppressed as the model's training data were."""
    return np.asarray(series.slices() * gains(series, physics)[:, None, None], dtype=np.float32)


def gains(series: AslSeries, physics: Physics) -> Array:
    """Factor (C,) for each channel: the efficiency of the training data over that of the measurement, as far as known.

    The signal is proportional to the labelling efficiency, and to alpha_bs for each background-suppression pulse.
    """
    channels: list[float] = []
    for labelling in series.labellings:
        trained = float(physics.alpha_pcasl if labelling.kind == "pcasl" else physics.alpha_vsasl)
        pulses, own = SUPPRESSION_PULSES[labelling.kind], labelling.background_suppression_pulses
        fewer = 0 if own is None else pulses - own
        factor = trained / (labelling.efficiency or trained) * float(physics.alpha_bs) ** fewer
        channels += [factor] * len(labelling.plds)
    return np.asarray(channels, dtype=np.float32)


def noise_level(series: AslSeries, signal: Tensor, plds: tuple[float, ...], physics: Physics) -> float:
    """Noise sd of the corrected signal: from repeats if there are any, else from the residuals of least squares."""
    if series.noise is not None:
        return series.noise * float(np.sqrt(np.square(gains(series, physics)).mean()))
    freedom = 2 * len(plds) - 2
    mask = torch.from_numpy(series.mask.transpose(2, 0, 1).copy())
    sse = fit_images(signal, plds, physics).sse.cpu()[mask]
    return float((sse.median() / chi2.median(freedom)).sqrt())


def fit_quality(maps: Maps, signal: Tensor, plds: tuple[float, ...], physics: Physics) -> dict[ExtraMap, Array]:
    """Root mean square residual of the predicted maps, and their standard deviations where the model gives them."""
    residual = (joint_signal(maps.cbf, maps.att, plds, physics) - signal).square().mean(dim=1).sqrt()
    extra: dict[ExtraMap, Array] = {"residual": _volume(residual)}
    if maps.cbf_std is not None and maps.att_std is not None:
        extra |= {"cbf_sd": _volume(maps.cbf_std), "att_sd": _volume(maps.att_std)}
    return extra


def _volume(maps: Tensor) -> Array:
    return to_volume(maps.float().cpu().numpy())


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.glob("member-*.safetensors")):
        total.update(path.read_bytes())
    return total.hexdigest()


def _given(value: str | None, key: str) -> Path:
    if value is None:
        raise ConfigError(f"predict.{key}: got null; allowed: a folder; give --predict.{key} FOLDER")
    return Path(value)
