"""Stage validate: the network beside its controls on held-out phantoms; open it for what the stage writes.

Writes to results/validate:

    metrics.json       the few numbers by which arms are compared: voronoi phantoms at the reference SNR; `_ls` is least
                       squares told each phantom's physics, `_ls_nominal`, if these vary, with the nominal physics
    summary.csv        every estimator there, for a person
    table.csv          every score: one row per family, SNR, stratum, estimator, quantity and metric
    *_error_by_snr.csv errors of every estimator by SNR, one file for CBF and one for ATT, for `dvc plots`
    *.png              error_by_snr, strata, maps of some phantoms, calibration where variances were trained
    legacy.json        with legacy.mispaired_evaluation: the published, mis-paired score
"""

from pathlib import Path

from assay.engine.precision import pick_device
from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.files import write_csv, write_json
from assay.studies.asl import figures, map_figures
from assay.studies.asl.bootstrap import resamples
from assay.studies.asl.config import Params
from assay.studies.asl.estimators import (
    CONSTANT,
    LEAST_SQUARES,
    NETWORK,
    NOMINAL,
    NULL,
    Estimator,
    baselines,
    constant,
    estimate_all,
    load_for,
    network,
)
from assay.studies.asl.evaluation import ALL, QUANTITIES, Score, Scores, score_maps
from assay.studies.asl.heldout import HeldOut, brain, scan, voronoi
from assay.studies.asl.legacy import mispaired
from assay.studies.asl.trained import TrainedModel, untrained

OUT = Path("results/validate")
MODEL = Path("results/train/model")
PURPOSE = "evaluation"  # first part of the key of every phantom and noise
NULL_SEED = 0
CONTROLS = (LEAST_SQUARES, NULL, CONSTANT)
"""What the CBF MAE stands beside in metrics.json."""
HEADLINES = {"mae": "mae", "mae_ratio": "mae_ratio_ls", "mae_ratio_smoothed": "mae_ratio_smoothed_ls"}
"""Metric to its name in metrics.json, after the quantity; win rates follow."""


def run(params: Params, out: Path = OUT, model_dir: Path = MODEL) -> None:
    """Evaluate the model in `model_dir` and write tables and figures to `out`.

    Raises:
        CheckpointError: there is no model, it is damaged, or was trained with other physics.
        DataError: the brain family is asked for and asldro is missing, or the disk is full.
        Unfinished: stopped on request; no table has been written, pictures of an earlier run are gone.
    """
    device = pick_device(params.evaluation.device)
    trained = load_for(params, model_dir, device)
    estimators = all_estimators(params, trained, untrained(model_dir, NULL_SEED, device))
    remove_optional(out)
    rows: list[Score] = []
    levels = params.evaluation.snr
    count = len(params.evaluation.families) * len(levels)
    with StopRequest() as stop, phase("validate", count, unit="evaluations", stop=stop) as progress:
        for family in params.evaluation.families:
            phantoms = held_out(params, family)
            weights = resamples(len(phantoms.number), params.evaluation.bootstrap)
            for snr in levels:
                measured = scan(phantoms, snr, PURPOSE)
                maps = estimate_all(estimators, measured, device)
                rows += score_maps(phantoms, measured, snr, maps, weights)
                if family == "voronoi" and snr == params.evaluation.reference_snr:
                    map_figures.draw(out, phantoms, maps, params.evaluation.images, snr)
                    if params.legacy.mispaired_evaluation:
                        write_json(out / "legacy.json", mispaired(phantoms, maps))
                progress.advance(note=f"{family} SNR {snr:g}")
    write(params, Scores(rows), out)


def remove_optional(out: Path) -> None:
    """Remove what an earlier run with other options wrote and this one may not."""
    for path in (out / "legacy.json", out / "calibration.png", *out.glob("maps_*.png")):
        path.unlink(missing_ok=True)


def held_out(params: Params, family: str) -> HeldOut:
    """The phantoms that a family is judged on."""
    return brain(params, PURPOSE) if family == "brain" else voronoi(params, params.evaluation.phantoms, PURPOSE)


def all_estimators(params: Params, trained: TrainedModel, null: TrainedModel) -> dict[str, Estimator]:
    """The network, least squares and the other controls, by name."""
    return {
        NETWORK: network(trained),
        **baselines(params),
        NULL: network(null),
        CONSTANT: constant(trained.statistics),
    }


def write(params: Params, scores: Scores, out: Path) -> None:
    """Write tables and curves."""
    place = ("voronoi", params.evaluation.reference_snr, ALL)
    write_json(out / "metrics.json", headlines(scores, place))
    write_csv(out / "table.csv", Score._fields, scores.rows)
    write_csv(out / "summary.csv", *summary(scores, place))
    for quantity in QUANTITIES:
        write_csv(out / f"{quantity}_error_by_snr.csv", *errors_by_snr(scores, params.evaluation.snr, quantity))
    figures.error_by_snr(out / "error_by_snr.png", scores, params.evaluation.snr)
    figures.strata(out / "strata.png", scores, place[1])
    if scores.get(place, NETWORK, "cbf", "coverage_68") is not None:
        figures.calibration(out / "calibration.png", scores, params.evaluation.snr)


def headlines(scores: Scores, place: tuple[str, float, str]) -> dict[str, float]:
    """The network's few numbers, and the CBF MAE of the controls; MAE in ml/100 g/min and ms, ratios, win shares."""
    found = {
        f"{quantity}_{name}": scores.value(place, NETWORK, quantity, metric)
        for metric, name in HEADLINES.items()
        for quantity in QUANTITIES
    }
    if LEAST_SQUARES + NOMINAL in scores.estimators:
        found |= {f"{q}_mae_ratio_ls_nominal": against_nominal(scores, place, q) for q in QUANTITIES}
    controls = {f"cbf_mae_{name}": scores.value(place, name, "cbf", "mae") for name in CONTROLS}
    return found | controls | {f"{q}_win_rate": scores.value(place, NETWORK, q, "win_rate") for q in QUANTITIES}


def against_nominal(scores: Scores, place: tuple[str, float, str], quantity: str) -> float:
    """The network's MAE over that of least squares which, like the network, is not told each phantom's physics."""
    network, rival = (scores.value(place, name, quantity, "mae") for name in (NETWORK, LEAST_SQUARES + NOMINAL))
    return network / rival


def summary(scores: Scores, place: tuple[str, float, str]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: error with its interval, bias and win rate of every estimator."""
    header = ["estimator"]
    for quantity in QUANTITIES:
        header += [f"{quantity}_mae", f"{quantity}_mae_95%", f"{quantity}_bias", f"{quantity}_win_rate"]
    rows = []
    for estimator in scores.estimators:
        row = [estimator]
        for quantity in QUANTITIES:
            error = scores.get(place, estimator, quantity, "mae")
            others = [scores.value(place, estimator, quantity, metric) for metric in ("bias", "win_rate")]
            ends = f"{error.low:.4g} to {error.high:.4g}" if error else ""
            row += [f"{error.value:.4g}" if error else "", ends, f"{others[0]:+.3g}", f"{others[1]:.3f}"]
        rows.append(row)
    return header, rows


def errors_by_snr(scores: Scores, levels: tuple[float, ...], quantity: str) -> tuple[list[str], list[list[float]]]:
    """Header and rows: the SNR, then the MAE of every estimator on voronoi phantoms; a column per estimator."""
    rows = [
        [snr, *(scores.value(("voronoi", snr, ALL), name, quantity, "mae") for name in scores.estimators)]
        for snr in levels
    ]
    return ["snr", *scores.estimators], rows
