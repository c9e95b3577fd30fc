"""Stage validate: the latent model beside its baselines on the test range; open it for what the stage writes.

Writes to results/validate:

    metrics.json   the few numbers by which arms are compared; means over the members of an ensemble
    summary.csv    every predictor: one-step error, share of the constant prediction's, skill above the floor
    members.csv    the same numbers of every member of the ensemble
    horizon.csv    error by steps ahead of the model, of principal components and of constants
    rollout.csv    error by step of latent and activity rollouts: mean, percentiles over neurons, largest
    types.csv      median R2, variance and error by cell type
    *.png          horizon, rollout, variance, traces, latents
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.precision import pick_device
from assay.engine.progress import phase
from assay.engine.stop import StopRequest
from assay.errors import CheckpointError
from assay.files import write_csv, write_json
from assay.studies.latents import baselines, figures
from assay.studies.latents.baselines import CONSTANT, ORACLE, PCA_STIMULUS, PrincipalRidge, Splits, constant_model_mse
from assay.studies.latents.config import Params
from assay.studies.latents.dataset import Recording
from assay.studies.latents.evaluation import (
    Dynamics,
    Rollout,
    encoded,
    horizon_curve,
    is_bounded,
    neuron_errors,
    of_components,
    of_model,
    one_per_type,
    participation_ratio,
    r2,
    rollout,
    rollout_starts,
)
from assay.studies.latents.linear import Split
from assay.studies.latents.trained import load_trained, untrained

OUT = Path("results/validate")
MODEL = Path("results/train/model")
NETWORK, RECONSTRUCTION, NULL = "network", "network_reconstruction", "untrained"


class Judged(NamedTuple):
    """What is found of one network: numbers by name, the curve, rollouts, errors of neurons (N,), latent states."""

    numbers: dict[str, float]
    curve: list[float]
    latent: Rollout
    activity: Rollout
    errors: Tensor
    states: Tensor


def run(params: Params, out: Path = OUT) -> None:
    """Judge the trained network on the test range and write tables and figures.

    Raises:
        CheckpointError: the model is missing, damaged, or was trained on another recording.
        DataError: the recording is missing, damaged, or was made with other parameters; or the disk is full.
        Unfinished: stopped on request; no table has been written.
    """
    device = pick_device(params.evaluation.device)
    recording = Recording(params)
    loaded = load_trained(MODEL, device)
    if loaded.data != recording.digest:
        raise CheckpointError(
            f"{MODEL}: trained on another recording than {params.data.path}; run the train stage again"
        )
    splits = read_splits(params, recording, device)
    count = 3 + len(loaded.members)
    with StopRequest() as stop, phase("validate", count, unit="predictors", stop=stop) as progress:
        penalties, dim = params.evaluation.ridge, min(loaded.params.model.latent_dim, recording.neurons)
        sizes = (params.evaluation.ridge_neurons, params.evaluation.stimulus_window)
        errors = baselines.baselines(splits, penalties, dim, *sizes)
        progress.advance(note="baselines")
        fitted = of_components(PrincipalRidge(splits, penalties, dim, stimulus=True))
        linear_curve = horizon_curve(fitted, splits.test, params.evaluation.horizons)
        progress.advance(note="horizons")
        judged = []
        for model in loaded.members:
            judged.append(judge(params, of_model(model), splits, recording.types))
            progress.advance(note="networks")
        errors[NULL] = horizon_curve(of_model(untrained(loaded, device)), splits.test, 1)[1]
        progress.advance(note="null")
    errors |= oracle(params, recording, splits.test)
    write(params, splits.test, recording.types, errors, linear_curve, judged, out)


def read_splits(params: Params, recording: Recording, device: torch.device) -> Splits:
    """All three parts of the recording on the device."""
    parts = []
    for key in Splits._fields:
        first, end = getattr(params.data, key)
        parts.append(Split(*(recording.rows(name, first, end).to(device) for name in ("activity", "stimulus"))))
    return Splits(*parts)


def oracle(params: Params, recording: Recording, test: Split) -> dict[str, float]:
    """The error of the simulator's own noise-free step: the floor. Empty for a published recording."""
    if not recording.has_mean:
        return {}
    mean = recording.rows("mean", *params.data.test)[:-1]
    error = test.activity[1:].cpu() - mean
    return {ORACLE: float(error.double().square().mean())}


def judge(params: Params, dynamics: Dynamics, splits: Splits, types: Tensor) -> Judged:
    """Everything about one network."""
    evaluation, test = params.evaluation, splits.test
    curve = horizon_curve(dynamics, test, evaluation.horizons)
    first = rollout_starts(len(test.activity) - 1, evaluation.rollout_steps, evaluation.rollout_starts)
    chosen = one_per_type(types).to(test.activity.device)
    latent, activity = (
        rollout(dynamics, test, first, evaluation.rollout_steps, latent=kind, traced=chosen) for kind in (True, False)
    )
    errors, states = neuron_errors(dynamics, test), encoded(dynamics, test)
    variance = float(test.activity.double().var(0, correction=0).mean())
    numbers = {
        "mse": float(errors.mean()),
        "reconstruction_mse": curve[0],
        "r2_median": float(r2(errors, test).median()),
    }
    numbers["mse_validation"] = horizon_curve(dynamics, splits.validation, 1)[1]
    for name, rolled in (("latent", latent), ("activity", activity)):
        numbers[f"{name}_rollout_mse"] = float(rolled.errors.double().mean())
        numbers[f"{name}_rollout_final_mse"] = float(rolled.errors[-1].double().mean())
        numbers[f"{name}_rollout_unbounded"] = float(not is_bounded(rolled, variance))
    numbers["participation_ratio"] = participation_ratio(states)
    return Judged(numbers, curve, latent, activity, errors, states)


def write(  # noqa: PLR0913 - one page of results: of which run, on what, beside what, where
    params: Params,
    test: Split,
    types: Tensor,
    errors: dict[str, float],
    linear_curve: Sequence[float],
    judged: Sequence[Judged],
    out: Path,
) -> None:
    """Write tables and figures; those of a single network are of the first member."""
    constant = [constant_model_mse(test.activity, ahead) for ahead in range(params.evaluation.horizons + 1)]
    curves = {NETWORK: _mean_curve(judged), PCA_STIMULUS: list(linear_curve), CONSTANT: constant}
    metrics = headlines(errors, judged, curves)
    write_json(out / "metrics.json", metrics)
    write_csv(out / "summary.csv", *summary(errors | {NETWORK: metrics["mse"], RECONSTRUCTION: curves[NETWORK][0]}))
    write_csv(
        out / "members.csv", ["member", *judged[0].numbers], ([k, *j.numbers.values()] for k, j in enumerate(judged))
    )
    rows = ([ahead, *(curve[ahead] for curve in curves.values())] for ahead in range(len(constant)))
    write_csv(out / "horizon.csv", ["steps_ahead", *curves], rows)
    write_csv(out / "rollout.csv", *rollout_table(judged[0]))
    write_csv(out / "types.csv", *type_table(types, judged[0], test))
    figures.horizon(out / "horizon.png", curves)
    figures.rollouts(out / "rollout.png", judged[0].latent, judged[0].activity, test)
    figures.variance(out / "variance.png", types, judged[0].errors, test)
    figures.traces(out / "traces.png", judged[0].latent, test, one_per_type(types))
    figures.latents(out / "latents.png", judged[0].states)


def _mean_curve(judged: Sequence[Judged]) -> list[float]:
    return [sum(column) / len(judged) for column in zip(*(each.curve for each in judged), strict=True)]


def headlines(
    errors: Mapping[str, float], judged: Sequence[Judged], curves: Mapping[str, Sequence[float]]
) -> dict[str, float]:
    """The few numbers; `unbounded` and `worse_than_constant` are shares of the members."""
    names = judged[0].numbers
    found = {name: sum(each.numbers[name] for each in judged) / len(judged) for name in names}
    floor = errors.get(ORACLE)
    if floor is not None:
        found["skill"] = baselines.skill(errors, found["mse"], floor)
    found["ratio_constant"] = found["mse"] / errors[CONSTANT]
    found["ratio_pca_ridge_stimulus"] = found["mse"] / errors[PCA_STIMULUS]
    found["worse_than_constant"] = sum(each.numbers["mse"] > errors[CONSTANT] for each in judged) / len(judged)
    found |= {f"mse_{name}": value for name, value in errors.items()}
    return found | {f"mse_ahead_{ahead}": value for ahead, value in enumerate(curves[NETWORK]) if ahead > 1}


def summary(errors: Mapping[str, float]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, the smallest error first."""
    floor = errors.get(ORACLE)
    rows = []
    for name, mse in sorted(errors.items(), key=lambda item: item[1]):
        reached = "" if floor is None else f"{100 * baselines.skill(errors, mse, floor):.1f} %"
        rows.append([name, f"{mse:.5f}", f"{mse / errors[CONSTANT]:.3f}", reached])
    return ["predictor", "one_step_mse", "over_constant", "skill_above_floor"], rows


def rollout_table(judged: Judged) -> tuple[list[str], list[list[float]]]:
    """Error over neurons by step."""
    kinds = {"latent": judged.latent, "activity": judged.activity}
    header = ["step", *(f"{kind}_{what}" for kind in kinds for what in ("mean", "p5", "p95", "max"))]
    columns: list[Tensor] = []
    for rolled in kinds.values():
        errors = rolled.errors.double().cpu()
        columns += [errors.mean(1), errors.quantile(0.05, dim=1), errors.quantile(0.95, dim=1), errors.amax(1)]
    return header, [[step + 1, *values] for step, values in enumerate(torch.stack(columns, 1).tolist())]


def type_table(types: Tensor, judged: Judged, test: Split) -> tuple[list[str], list[list[float]]]:
    """One row per cell type: its pooled errors hide those of little variance."""
    variance = test.activity.double().var(0, correction=0).cpu()
    scores, errors = r2(judged.errors, test).cpu(), judged.errors.cpu()
    rows = []
    for kind in torch.unique(types).tolist():
        own = types == kind
        rows.append([kind, int(own.sum()), *(float(each[own].median()) for each in (scores, variance, errors))])
    return ["type", "neurons", "median_r2", "median_variance", "median_mse"], rows
