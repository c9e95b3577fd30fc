"""Stage sensitivity: does the prediction follow the amplitude of the signal, and does an untrained network too?

Open it for what the stage writes. To results/sensitivity:

    metrics.json   slope of the network, median slope of the untrained ones, slope of least squares, ATT change
    summary.csv    slopes with intervals; for the untrained networks the range over their seeds
    response.csv   mean CBF and ATT of every estimator at every scale
    tissue.csv     line of estimated on true CBF at scale 1, by tissue
    response.png   mean CBF against the scale
    legacy.json    with legacy.published_sensitivity: the published tests, which untrained networks pass
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from assay.engine.precision import pick_device
from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.errors import ConfigError
from assay.files import write_csv, write_json
from assay.studies.asl import figures
from assay.studies.asl.amplitude import Curve, Response, TissueLine, curve, respond, tissue_lines
from assay.studies.asl.bootstrap import resamples
from assay.studies.asl.config import Params
from assay.studies.asl.estimators import LEAST_SQUARES, NETWORK, NULL, least_squares, load_for, network
from assay.studies.asl.heldout import LEAST_CBF, scan, voronoi
from assay.studies.asl.legacy import published_sensitivity
from assay.studies.asl.model.outputs import CBF_LIMITS
from assay.studies.asl.trained import TrainedModel, untrained

OUT = Path("results/sensitivity")
MODEL = Path("results/train/model")
PURPOSE = "sensitivity"  # first part of the key of every phantom and noise
RESAMPLES = 1000


def run(params: Params, out: Path = OUT, model_dir: Path = MODEL) -> None:
    """Test the model in `model_dir` and write tables and the figure to `out`.

    Raises:
        ConfigError: no voxel stays within the output range at the largest scale.
        CheckpointError: there is no model, it is damaged, or was trained with other physics.
        DataError: the disk is full.
        Unfinished: stopped on request; nothing has been written.
    """
    device = pick_device(params.evaluation.device)
    trained = load_for(params, model_dir, device)
    nulls = [untrained(model_dir, seed, device) for seed in range(params.sensitivity.null_seeds)]
    responses = measure(params, trained, nulls, device)
    weights = resamples(params.sensitivity.phantoms, RESAMPLES)
    curves = {name: curve(response, weights) for name, response in responses.items()}
    write_json(out / "metrics.json", headlines(curves))
    write_csv(out / "summary.csv", *summary(curves))
    write_csv(out / "response.csv", RESPONSE, response_rows(params.sensitivity.scales, curves))
    lines = {name: tissue_lines(response, weights) for name, response in responses.items()}
    write_csv(out / "tissue.csv", TISSUE, tissue_rows(lines))
    figures.response(out / "response.png", params.sensitivity.scales, curves)
    (out / "legacy.json").unlink(missing_ok=True)
    if params.legacy.published_sensitivity:
        write_json(out / "legacy.json", published_sensitivity(params, trained, nulls))


def measure(
    params: Params, trained: TrainedModel, nulls: list[TrainedModel], device: torch.device
) -> dict[str, Response]:
    """Responses of the network, least squares, and each untrained network as `untrained_<seed>`."""
    settings = params.sensitivity
    ceiling = CBF_LIMITS[1] / max(settings.scales)
    phantoms = voronoi(params, settings.phantoms, PURPOSE).within(ceiling)
    if not phantoms.mask.any():
        raise ConfigError(
            f"sensitivity.scales: got {max(settings.scales):g} as the largest; allowed: one at which some voxel stays "
            f"below {CBF_LIMITS[1]:g}; none has a CBF of {LEAST_CBF:g} to {ceiling:.3g}; give a smaller one"
        )
    measured = scan(phantoms, settings.snr, PURPOSE).to(device)
    estimators = {NETWORK: network(trained), LEAST_SQUARES: least_squares(params)}
    estimators |= {f"{NULL}_{seed}": network(null) for seed, null in enumerate(nulls)}
    responses = {}
    with StopRequest() as stop, phase("sensitivity", len(estimators), unit="estimators", stop=stop) as progress:
        for name, estimator in estimators.items():
            responses[name] = respond(estimator, phantoms, measured, settings.scales)
            progress.advance(note=name)
    return responses


def null_curves(curves: Mapping[str, Curve]) -> list[Curve]:
    """Those of the untrained networks."""
    return [each for name, each in curves.items() if name.startswith(NULL)]


def headlines(curves: Mapping[str, Curve]) -> dict[str, float]:
    """Slopes of log CBF on log amplitude (ideal 1), and the network's largest ATT change in per cent (ideal 0)."""
    nulls = torch.stack([each.slope.value for each in null_curves(curves)])
    return {
        "slope": float(curves[NETWORK].slope.value),
        "slope_null": float(nulls.quantile(0.5)),
        "slope_ls": float(curves[LEAST_SQUARES].slope.value),
        "att_change_percent": float(curves[NETWORK].att_change.value.max()),
    }


def summary(curves: Mapping[str, Curve]) -> tuple[list[str], list[list[str | float]]]:
    """Header and rows: slope with a 95 % interval over phantoms, for the null the range over its seeds."""
    header = ["estimator", "slope", "slope_low", "slope_high", "att_change_percent"]
    rows: list[list[str | float]] = []
    for name in (NETWORK, LEAST_SQUARES):
        each = curves[name]
        rows.append([name, *(float(end) for end in each.slope), float(each.att_change.value.max())])
    nulls = null_curves(curves)
    slopes = torch.stack([each.slope.value for each in nulls])
    change = torch.stack([each.att_change.value.max() for each in nulls])
    middle, low, high = (float(slopes.quantile(q)) for q in (0.5, 0.0, 1.0))
    return header, [*rows, [NULL, middle, low, high, float(change.quantile(0.5))]]


RESPONSE = ("estimator", "scale", "cbf", "cbf_low", "cbf_high", "att", "att_low", "att_high", "att_change_percent")


def response_rows(scales: tuple[float, ...], curves: Mapping[str, Curve]) -> Iterator[list[str | float]]:
    """Mean CBF (ml/100 g/min) and ATT (ms) at every scale, with 95 % intervals over phantoms."""
    for name, each in curves.items():
        for k, scale in enumerate(scales):
            means = [float(end[k]) for estimate in (each.cbf, each.att) for end in estimate]
            yield [name, scale, *means, float(each.att_change.value[k])]


LINE = ("slope", "slope_low", "slope_high", "intercept", "intercept_low", "intercept_high")
TISSUE = ("estimator", "stratum", *LINE, "n_voxels")


def tissue_rows(lines: Mapping[str, Mapping[str, TissueLine]]) -> Iterator[list[str | float]]:
    """The line of estimated on true CBF of every estimator in every stratum; ideal 1 and 0."""
    for name, strata in lines.items():
        for stratum, line in strata.items():
            yield [name, stratum, *(float(end) for end in (*line.slope, *line.intercept)), line.n_voxels]
