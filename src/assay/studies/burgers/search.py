"""Stage search: does choosing among candidates by physics lower the error? Open it for the rivals of the reward.

From the first test trajectories, at the reference viscosity, candidates for the next field are drawn again and again.
`reward` keeps those of the highest analytical reward, `oracle` those of the lowest true error, `random` any (the mean
over several ways to pick), `ensemble_mean` their mean; all from the same random numbers. `operator` is the network
without candidates, `persistence` no change. Between oracle and random lies all that there is to win.

Writes to results/search:

    metrics.json        rollout nRMSE of every method, reward / random with its interval, what the search cost
    table.csv           one row per method: errors with intervals, mass and energy, calls per trajectory
    per_trajectory.csv  rollout nrmse_frame of every method and row of the data set
    terms.csv           mean violation of each term per step, unweighted, by method and of the true trajectories
    selection.csv       by step: how often the reward picks the candidate of least error, its rank correlation with it
    *.png               error_by_time, selection
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from assay.engine.precision import pick_device
from assay.engine.progress import Phase, phase
from assay.engine.stop import StopRequest
from assay.files import write_csv, write_json
from assay.studies.burgers import metrics, networks, predictors, search_figures
from assay.studies.burgers.baselines import persistence
from assay.studies.burgers.candidates import Candidates, Proposer, Rollouts, load_candidates, random_rollouts
from assay.studies.burgers.config import Params
from assay.studies.burgers.curves import times
from assay.studies.burgers.equation import kappa
from assay.studies.burgers.evaluation import Case, mean, open_case, ratio, resamples
from assay.studies.burgers.sections import SearchConfig
from assay.studies.burgers.selection import Agreement, Watched
from assay.studies.burgers.ttc import (
    RESIDUAL,
    TERMS,
    Reward,
    SearchOptions,
    mean_rollout,
    oracle_score,
    residual,
    search,
)

OUT = Path("results/search")
REWARD, RANDOM, ORACLE, MEAN, OPERATOR, PERSISTENCE = METHODS = (
    "reward",
    "random",
    "oracle",
    "ensemble_mean",
    "operator",
    "persistence",
)
DECODED = 2  # fields that a step of the operator decodes: the predicted one, and the reconstruction of the given one


def run(params: Params, out: Path = OUT) -> None:
    """Search, compare, and write tables and figures to `out`.

    Raises:
        Unfinished: stopped on request; nothing has been written.
        CheckpointError: operator or corrector are missing, damaged, or were trained for other fields or data.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
    """
    device = pick_device(params.evaluation.device)
    trajectories = networks.open_data(params)
    whole = open_case(trajectories, params.data, params.evaluation.reference_viscosity, device)
    count = params.search.trajectories
    case = whole._replace(rows=whole.rows[:count], truth=whole.truth[:count])
    candidates = load_candidates(params, trajectories.digest, device)
    reward = reward_of(params.search, case)
    watched = Watched(reward, oracle_score(case.truth[:, 1:]))
    with StopRequest() as stop, phase("search", 4 * params.data.steps, unit="steps", stop=stop) as progress:
        rollouts = all_rollouts(case, candidates, params, watched, progress)
    write(params, case, rollouts, watched.agreements, out)


def all_rollouts(
    case: Case, source: Candidates, params: Params, watched: Watched, progress: Phase
) -> dict[str, Rollouts]:
    """What every method makes of the first true fields."""
    options, start = options_of(params.search, params.data.steps), case.truth[:, 0]
    found = {}
    for name, score in ((REWARD, watched), (ORACLE, watched.oracle)):
        proposer = Proposer(source, case, progress)
        found[name] = proposer.rollouts(search(proposer, score, start, options).trajectory[None])
    proposer = Proposer(source, case, progress)
    found[MEAN] = proposer.rollouts(mean_rollout(proposer, start, options).trajectory[None])
    found[RANDOM] = random_rollouts(Proposer(source, case, progress), options)
    alone = predictors.operator(source.base, source.batch_size)(start, case.nu, options.steps)
    found[OPERATOR] = Rollouts(alone[None], operator_calls=options.steps)
    found[PERSISTENCE] = Rollouts(persistence(start, options.steps + 1)[None])
    return {name: found[name] for name in METHODS}


def options_of(config: SearchConfig, steps: int) -> SearchOptions:
    """How much is tried."""
    return SearchOptions(
        steps=steps,
        candidates=config.candidates,
        beam_width=config.beam_width,
        max_evaluations=config.max_evaluations,
    )


def reward_of(config: SearchConfig, case: Case) -> Reward:
    """The analytical reward at the viscosity and time step of the case."""
    each = case.truth.new_ones(len(case.truth))
    return Reward(config.reward, case.dt * each, kappa(case.nu) * each)


def write(params: Params, case: Case, rollouts: Mapping[str, Rollouts], agreements: list[Agreement], out: Path) -> None:
    """Write tables and figures."""
    weights = resamples(len(case.rows), params.evaluation.bootstrap)
    errors = {name: frame_errors(case, each.fields) for name, each in rollouts.items()}
    write_json(out / "metrics.json", headlines(errors, rollouts, agreements, weights))
    write_csv(out / "table.csv", *table(errors, rollouts, weights))
    rows = zip(case.rows, *(error.mean(1).tolist() for error in errors.values()), strict=True)
    long = [[str(row[0]), name, value] for row in rows for name, value in zip(errors, row[1:], strict=True)]
    write_csv(out / "per_trajectory.csv", ["row", "method", "nrmse_frame"], long)
    violations = {name: violation(case, each.fields) for name, each in rollouts.items()}
    violations["truth"] = violation(case, case.truth[None])
    write_csv(
        out / "terms.csv",
        ["method", *violations["truth"]],
        [[name, *terms.values()] for name, terms in violations.items()],
    )
    write_csv(out / "selection.csv", Agreement._fields, agreements)
    t = times(case)
    search_figures.error_by_time(out / "error_by_time.png", t, {name: each.mean(0) for name, each in errors.items()})
    search_figures.selection(out / "selection.png", t, agreements)


def frame_errors(case: Case, fields: Tensor) -> Tensor:
    """nRMSE of every frame after the first, the mean over picks, (B, K)."""
    errors = metrics.nrmse_frames(fields, case.truth.expand_as(fields))
    return errors[..., 1:].mean(0).cpu()


def violation(case: Case, fields: Tensor) -> dict[str, float]:
    """Mean over all steps of how far each term of the reward is from its best value, 0."""
    cells = fields.shape[-1]
    u, after = fields[..., :-1, :].reshape(-1, cells), fields[..., 1:, :].reshape(-1, cells)
    each = u.new_ones(len(u))
    terms = {name: term(u, after) for name, term in TERMS.items()}
    terms[RESIDUAL] = residual(u, after, case.dt * each, kappa(case.nu) * each)
    return {name: abs(float(term.mean())) for name, term in terms.items()}


def headlines(
    errors: Mapping[str, Tensor],
    rollouts: Mapping[str, Rollouts],
    agreements: Sequence[Agreement],
    weights: Tensor,
) -> dict[str, float | bool]:
    """Rollout nRMSE of every method, ratios with intervals, and what the search cost each trajectory.

    selectable: whether the oracle is better than chance, its whole interval below 1. If not, there is nothing to win.
    """
    by_trajectory = {name: error.mean(1) for name, error in errors.items()}
    found: dict[str, float | bool] = {name: float(each.mean()) for name, each in by_trajectory.items()}
    for name, other in ((REWARD, RANDOM), (ORACLE, RANDOM), (REWARD, OPERATOR)):
        estimate = ratio(by_trajectory[name], by_trajectory[other], weights)
        ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
        found |= {f"ratio_{name}_{other}{end}": value for end, value in ends.items()}
    found["selectable"] = bool(found[f"ratio_{ORACLE}_{RANDOM}_high"] < 1)
    choices = torch.tensor([each[1:] for each in agreements], dtype=torch.float64)
    found |= {"picked_best": float(choices[:, 1].nanmean()), "rank_correlation": float(choices[:, 2].nanmean())}
    cost = rollouts[REWARD]
    calls = {"decoder_calls": DECODED * cost.operator_calls, "corrector_calls": cost.corrector_calls}
    return {**found, "evaluations": cost.candidates, **calls}


def table(
    errors: Mapping[str, Tensor], rollouts: Mapping[str, Rollouts], weights: Tensor
) -> tuple[list[str], list[list[str | float]]]:
    """Header and rows: nrmse_frame of the first step and of the rollout, with 95 % intervals; calls per trajectory."""
    header = ["method", *(f"{task}{end}" for task in ("one_step", "rollout") for end in ("", "_low", "_high"))]
    header += ["mass_drift", "energy_growth", "candidates", "operator_calls", "decoder_calls", "corrector_calls"]
    rows: list[list[str | float]] = []
    for name, error in errors.items():
        fields, candidates, operator_calls, corrector_calls = rollouts[name]
        flat = fields.flatten(0, 1)
        rows.append([name, *mean(error[:, 0], weights), *mean(error.mean(1), weights)])
        rows[-1] += [float(metrics.mass_drift(flat)), float(metrics.energy_growth(flat))]
        rows[-1] += [candidates, operator_calls, DECODED * operator_calls, corrector_calls]
    return header, rows
