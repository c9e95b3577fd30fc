"""Stage validate: the latent operator beside its controls on the test trajectories; open it for what the stage writes.

Writes to results/validate:

    metrics.json        the few numbers by which arms are compared, at evaluation.reference_viscosity
    summary.csv         every estimator at every viscosity, for a person
    table.csv           every score: one row per viscosity, task, estimator and metric; see evaluation.py
    per_trajectory.csv  nrmse_frame of every test trajectory, by its row in the data set
    error_by_time.csv   rollout error at the reference viscosity against time, a column per estimator, for `dvc plots`
    spectrum.csv        energy by wave number at some times there, of the truth and of every estimator
    *.png               error_by_time, spectrum, shock, calibration, and spacetime_ROW of some trajectories
    legacy.json         with legacy.latent_metric: the published score; see legacy.py

Ensembles take one step from a few frames of each trajectory only (sampled_step) and are compared on these.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from assay.engine.precision import pick_device
from assay.engine.progress import Phase, phase
from assay.engine.stop import StopRequest
from assay.files import write_csv, write_json
from assay.studies.burgers import curves, figures, legacy, networks
from assay.studies.burgers.config import Params
from assay.studies.burgers.estimators import (
    CONSTANT,
    CORRECTED,
    DISTILLED,
    FNO,
    NETWORK,
    NULL,
    PERSISTENCE,
    REFERENCES,
    Estimators,
    Networks,
    estimators,
    load_networks,
)
from assay.studies.burgers.evaluation import (
    PRIMARY,
    Case,
    Judged,
    Score,
    Scores,
    Task,
    judge,
    open_case,
    per_trajectory,
    predicted,
    resamples,
    sampled,
    scores_of,
)
from assay.studies.burgers.metrics import nrmse_frames, nrmse_pooled
from assay.studies.burgers.model import Forecaster

OUT = Path("results/validate")
RECONSTRUCTION = "reconstruction"
"""The task of encoding and decoding true frames. Its error bounds that of a network whose encoder and decoder are
frozen; those trained with the operator may leave a part of the decoding to it, and give no bound."""
AUTOENCODER = "autoencoder"  # as its own stage left it; `network` stands for the pair within the operator
COLUMNS = ("nu", "estimator", "task", "row", PRIMARY)
SUMMARY = ("mass_drift", "energy_growth", "shock_position_error", "overshoot")
ENDS = ("", "_low", "_high")


class Found(NamedTuple):
    """What a viscosity gives: scores, their parts by trajectory, and the predicted fields by task and estimator.

    The fields, gigabytes at full size, are kept for the reference viscosity alone, which is drawn.
    """

    case: Case
    scores: list[Score]
    parts: list[list[float | str]]
    fields: dict[Task, dict[str, Tensor]]


def run(params: Params, out: Path = OUT) -> None:
    """Evaluate the networks of this pipeline and write tables and figures to `out`.

    Raises:
        CheckpointError: a network is missing, damaged, or of other data or networks than those that are here.
        DataError: the data set is missing, damaged, or was simulated with other parameters; or the disk is full.
        Unfinished: stopped on request; no table has been written.
    """
    device = pick_device(params.evaluation.device)
    trajectories = networks.open_data(params)
    trained = load_networks(params, trajectories.digest, device)
    levels = params.evaluation.viscosities
    cases = {nu: open_case(trajectories, params.data, nu, device) for nu in levels}
    judged_at = {nu: estimators(params, trained, trajectories, nu) for nu in levels}
    count = sum(2 * (len(each.single) + len(each.ensembles)) for each in judged_at.values())
    with StopRequest() as stop, phase("validate", count, unit="forecasts", stop=stop) as progress:
        found = [evaluate(params, cases[nu], judged_at[nu], trained, progress) for nu in levels]
    write(params, found, trained, out)


def evaluate(params: Params, case: Case, given: Estimators, trained: Networks, progress: Phase) -> Found:
    """Every estimator on every task it takes."""
    weights = resamples(len(case.rows), params.evaluation.bootstrap)
    fields = forecasts(case, given, progress)
    scores, parts = [], []
    for task, of_task in fields.items():
        judged = {name: judge(each, case.windows(task)) for name, each in of_task.items()}
        scores += scores_of(case, task, judged, REFERENCES, weights)
        parts += per_trajectory(case, task, judged)
    decoded = reconstructions(case, trained, params.evaluation.batch_size)
    scores += scores_of(case, RECONSTRUCTION, decoded, (), weights)
    return Found(case, scores, parts, fields if case.nu == params.evaluation.reference_viscosity else {})


def forecasts(case: Case, given: Estimators, progress: Phase) -> dict[Task, dict[str, Tensor]]:
    """Predicted fields by task and estimator."""
    found: dict[Task, dict[str, Tensor]] = {"one_step": {}, "sampled_step": {}, "rollout": {}}
    for name, forecast in given.single.items():
        found["one_step"][name] = predicted(forecast, case, "one_step")
        found["sampled_step"][name] = sampled(found["one_step"][name])
        progress.advance(note=name)
        found["rollout"][name] = predicted(forecast, case, "rollout")
        progress.advance()
    for name, forecast in given.ensembles.items():
        for task in ("sampled_step", "rollout"):
            found[task][name] = predicted(forecast, case, task)
            progress.advance(note=name)
    return found


@torch.no_grad()
def reconstructions(case: Case, trained: Networks, batch_size: int) -> dict[str, Judged]:
    """Errors of encoder and decoder alone, at all frames."""
    pairs = {AUTOENCODER: trained.autoencoder.module, NETWORK: cast(Forecaster, trained.operator.module).autoencoder}
    return {name: _reconstructed(case, module, batch_size) for name, module in pairs.items()}


def _reconstructed(case: Case, autoencoder: nn.Module, batch_size: int) -> Judged:
    parts = [autoencoder(u) for u in torch.split(case.truth.flatten(0, 1), batch_size)]
    fields = torch.cat(parts).view_as(case.truth)
    error = nrmse_frames(fields, case.truth).mean(1)
    return Judged({PRIMARY: error}, {"nrmse_pooled": nrmse_pooled(fields, case.truth)})


def write(params: Params, found: Sequence[Found], trained: Networks, out: Path) -> None:
    """Write tables, curves and figures."""
    scores = Scores(row for each in found for row in each.scores)
    nu = params.evaluation.reference_viscosity
    reference = next(each for each in found if each.case.nu == nu)
    write_json(out / "metrics.json", headlines(scores, nu) | controls(scores, nu, params.evaluation.viscosities))
    write_csv(out / "table.csv", Score._fields, scores.rows)
    write_csv(out / "summary.csv", *summary(scores, params.evaluation.viscosities))
    write_csv(out / "per_trajectory.csv", COLUMNS, [row for each in found for row in each.parts])
    write_curves(params, reference, out)
    figures.calibration(out / "calibration.png", scores, nu, params.corrector.members)
    figures.shock(out / "shock.png", reference.case, reference.fields["rollout"], params.evaluation.images)
    for path in (out / "legacy.json", *out.glob("spacetime_*.png")):
        path.unlink(missing_ok=True)  # of an earlier run with other options
    for place in range(min(params.evaluation.images, len(reference.case.rows))):
        path = out / f"spacetime_{reference.case.rows[place]}.png"
        figures.spacetime(path, reference.case, reference.fields["rollout"], place)
    if params.legacy.latent_metric:
        write_json(out / "legacy.json", published_scores(reference, trained))


def write_curves(params: Params, reference: Found, out: Path) -> None:
    """Write error_by_time and spectrum, as tables and as figures."""
    case, rollouts = reference.case, reference.fields["rollout"]
    weights = resamples(len(case.rows), params.evaluation.bootstrap)
    errors, spectra = curves.errors(case, rollouts, weights), curves.spectra(case, rollouts)
    times = curves.times(case)
    columns = [times, *(curve.value for curve in errors.values())]
    write_csv(out / "error_by_time.csv", ["t", *errors], torch.stack(columns, 1).tolist())
    write_csv(out / "spectrum.csv", ["t", "wave_number", *spectra], spectrum_rows(case, spectra))
    figures.error_by_time(out / "error_by_time.png", times, errors, case.nu)
    figures.spectrum(out / "spectrum.png", case, spectra)


def spectrum_rows(case: Case, spectra: Mapping[str, Tensor]) -> list[list[float]]:
    """A row per time and wave number, NaN for waves that the cells of an estimator cannot hold."""
    waves = spectra[curves.TRUTH].shape[1]
    full = {name: torch.full((len(each), waves), torch.nan) for name, each in spectra.items()}
    for name, each in spectra.items():
        full[name][:, : each.shape[1]] = each
    return [
        [frame * case.dt, wave, *(each[place, wave].item() for each in full.values())]
        for place, frame in enumerate(curves.spectrum_frames(case))
        for wave in range(waves)
    ]


def published_scores(reference: Found, trained: Networks) -> dict[str, object]:
    """The published score of the networks and of persistence, with latent states of the operator's size."""
    model = trained.operator.params.model
    steps = {name: reference.fields["one_step"][name] for name in (NETWORK, FNO, PERSISTENCE)}
    return legacy.latent_scores(steps, reference.case.windows("one_step"), model.tokens, model.latent_dim)


def controls(scores: Scores, nu: float, viscosities: Sequence[float]) -> dict[str, float]:
    """Rollout errors beside that of the network at `nu`: of every control there, and of the network elsewhere."""
    names = [name for name in scores.estimators(nu, "rollout") if name not in (NETWORK, CORRECTED, DISTILLED)]
    found = {f"rollout_nrmse_{name}": scores.get(nu, "rollout", name, PRIMARY).value for name in names}
    others = [other for other in viscosities if other != nu]
    return found | {
        f"rollout_nrmse_at_{other:g}": scores.get(other, "rollout", NETWORK, PRIMARY).value for other in others
    }


def headlines(scores: Scores, nu: float) -> dict[str, float]:
    """The few numbers: nrmse_frame of the network, its ratio to each control, and what the corrector adds."""

    def of(task: Task, estimator: str, metric: str) -> Score:
        return scores.get(nu, task, estimator, metric)

    found = {"reconstruction_nrmse": scores.get(nu, RECONSTRUCTION, AUTOENCODER, PRIMARY).value}
    found["network_reconstruction_nrmse"] = scores.get(nu, RECONSTRUCTION, NETWORK, PRIMARY).value
    tasks: tuple[Task, ...] = ("one_step", "rollout")
    for task in tasks:
        found[f"{task}_nrmse"] = of(task, NETWORK, PRIMARY).value
        for control in (PERSISTENCE, CONSTANT, FNO, NULL):
            found[f"{task}_ratio_{control}"] = of(task, NETWORK, f"ratio_{control}").value
    ensemble_tasks: tuple[tuple[Task, str], ...] = (("sampled_step", "one_step"), ("rollout", "rollout"))
    for task, name in ensemble_tasks:
        ratio = of(task, CORRECTED, f"ratio_{NETWORK}")
        found |= {f"corrected_{name}_ratio{end}": value for end, value in zip(ENDS, ratio[4:7], strict=True)}
        crps = of(task, CORRECTED, f"crps_ratio_{NETWORK}")
        found |= {f"corrected_{name}_crps_ratio{end}": value for end, value in zip(ENDS, crps[4:7], strict=True)}
        found[f"corrected_{name}_crps"] = of(task, CORRECTED, "crps").value
        found[f"{name}_crps"] = of(task, NETWORK, "crps").value
        found[f"distilled_{name}_ratio_corrected"] = of(task, DISTILLED, f"ratio_{CORRECTED}").value
    return found


def summary(scores: Scores, viscosities: Sequence[float]) -> tuple[list[str], list[list[str]]]:
    """Header and rows, errors with their intervals; one step of ensembles is sampled_step."""
    header = ["nu", "estimator", "one_step", "one_step_95%", "rollout", "rollout_95%", "rollout/persistence", *SUMMARY]
    rows = []
    for nu in viscosities:
        for name in scores.estimators(nu, "rollout"):
            is_single = name in scores.estimators(nu, "one_step")
            row = [f"{nu:g}", name]
            for task in ("one_step" if is_single else "sampled_step", "rollout"):
                error = scores.get(nu, task, name, PRIMARY)
                row += [f"{error.value:.4g}", f"{error.low:.4g} to {error.high:.4g}"]
            ratio = scores.get(nu, "rollout", name, f"ratio_{PERSISTENCE}").value
            row.append("1" if name == PERSISTENCE else f"{ratio:.3g}")
            row += [f"{scores.get(nu, 'rollout', name, metric).value:.3g}" for metric in SUMMARY]
            rows.append(row)
    return header, rows
