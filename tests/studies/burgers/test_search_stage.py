"""The stage search: rivals get the same candidates, the oracle bounds them, and what is written says what it cost."""

import csv
import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tests.studies.burgers.chance import random_score
from tests.studies.burgers.conftest import PARAMS, TINY

from assay.config import load as load_params
from assay.engine.progress import phase
from assay.engine.random import generator
from assay.errors import CheckpointError, Unfinished
from assay.studies.burgers import (
    autoencoder,
    candidates,
    corrector,
    distillation,
    fno,
    networks,
    operator,
    search,
    simulate,
)
from assay.studies.burgers.candidates import PICKS, Proposer, load_candidates, random_rollouts
from assay.studies.burgers.config import Params
from assay.studies.burgers.estimators import load_networks
from assay.studies.burgers.evaluation import Case, open_case, resamples
from assay.studies.burgers.search import METHODS, frame_errors, headlines, violation
from assay.studies.burgers.selection import Watched, agreement, rank_correlation
from assay.studies.burgers.ttc import SearchOptions, oracle_score

CPU = torch.device("cpu")
MORE = ["search.candidates=4", "search.trajectories=3"]
OPTIONS = SearchOptions(steps=5, candidates=4, beam_width=1, max_evaluations=50)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with data, operator, corrector and student, and a search in results/search."""
    folder, params = tmp_path_factory.mktemp("made"), load_params(Params, PARAMS, TINY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in (simulate, autoencoder, operator, corrector, distillation):
            stage.run(params)
        search.run(load_params(Params, PARAMS, [*TINY, *MORE]))
    return folder


@pytest.fixture
def prepared(made, make_params, tmp_path):
    """The same in this folder; a function that gives parameters."""
    for name in ("data", "results"):
        shutil.copytree(made / name, tmp_path / name)
    return lambda *overrides: make_params(*MORE, *overrides)


@pytest.fixture
def propose(prepared):
    """A function that gives proposers on the test trajectories."""

    def make(*overrides: str) -> Proposer:
        params = prepared(*overrides)
        trajectories = networks.open_data(params)
        case = open_case(trajectories, params.data, 0.01, CPU)
        with phase("search", 1000) as progress:
            return Proposer(load_candidates(params, trajectories.digest, CPU), case, progress)

    return make


def written(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((Path("results/search") / name).read_text().splitlines()))


def test_it_writes_every_method_and_what_it_cost(prepared):
    params = prepared()
    metrics = json.loads(Path("results/search/metrics.json").read_text())
    table = {row["method"]: row for row in written("table.csv")}
    assert list(table) == list(METHODS)
    assert all(float(table[name]["rollout"]) == pytest.approx(metrics[name], rel=1e-4) for name in METHODS)
    steps, calls = params.data.steps, 2 * params.corrector.sampler_steps  # heun
    assert metrics["evaluations"] == 4 * steps and metrics["corrector_calls"] == 4 * steps * calls
    assert metrics["decoder_calls"] == 2 * steps
    assert float(table["random"]["corrector_calls"]) == steps * calls
    assert float(table["operator"]["operator_calls"]) == steps and float(table["operator"]["corrector_calls"]) == 0
    assert {path.name for path in Path("results/search").glob("*.png")} == {"error_by_time.png", "selection.png"}
    assert len(written("selection.csv")) == steps


def test_errors_are_listed_by_row_of_the_data_set(prepared):
    rows = written("per_trajectory.csv")
    assert [row["row"] for row in rows if row["method"] == "oracle"] == ["0", "1", "2"]  # the test rows come first
    metrics = json.loads(Path("results/search/metrics.json").read_text())
    for name in METHODS:
        errors = [float(row["nrmse_frame"]) for row in rows if row["method"] == name]
        assert sum(errors) / 3 == pytest.approx(metrics[name], rel=1e-4)


def test_the_first_choice_of_the_oracle_bounds_every_rival_that_chooses(prepared):
    search.run(prepared("search.trajectories=4"))
    first = {row["method"]: float(row["one_step"]) for row in written("table.csv")}
    assert first["oracle"] < first["random"] and first["oracle"] <= first["reward"]
    assert first["oracle"] <= first["operator"] * 1.001  # whose prediction is a candidate


def test_the_search_repeats_itself(prepared, made):
    search.run(prepared())
    for path in (made / "results/search").iterdir():
        assert path.read_bytes() == (Path("results/search") / path.name).read_bytes()


@pytest.mark.parametrize(("source", "calls"), [("corrector", 4), ("distilled", 1)])
def test_a_candidate_costs_what_its_source_needs(propose, source, calls):
    proposer = propose(f"search.source={source}")
    start = proposer.case.truth[:, 0]
    proposed = proposer(start, 3)
    assert proposed.shape == (3, *start.shape)
    found = proposer.rollouts(proposed[:, :, None])
    assert found.candidates == 1 and found.corrector_calls == calls  # of each of the three
    assert torch.equal(found.fields[:, :, 0], start.expand(3, -1, -1))


@pytest.mark.parametrize("kept", [True, False])
def test_the_operators_own_prediction_is_the_first_candidate_if_it_is_kept(propose, kept):
    proposer = propose(f"search.keep_operator={str(kept).lower()}")
    start = proposer.case.truth[:, 0]
    proposed, alone = proposer(start, 3), proposer.step(start, proposer.case.nu)
    assert torch.allclose(proposed[0], alone, atol=1e-6) is kept
    assert not torch.allclose(proposed[1], alone, atol=1e-6)


def test_all_proposers_draw_the_same_candidates(propose):
    one, other = propose(), propose()
    start = one.case.truth[:, 0]
    for _ in range(2):
        assert torch.equal(one(start, 4), other(start, 4))


def test_random_picks_are_candidates_of_the_common_ones(propose):
    """Making only those that are picked changes nothing: the first frames are among the candidates of a search."""
    proposer, rival = propose(), propose()
    fields = random_rollouts(proposer, OPTIONS).fields
    assert fields.shape == (PICKS, *proposer.case.truth.shape)
    common = rival(rival.case.truth[:, 0], 4)
    distance = (fields[:, None, :, 1] - common).abs().amax(-1)  # (picks, candidates, trajectories)
    assert float(distance.amin(1).max()) < 1e-6
    assert len(distance.argmin(1).unique()) > 1


def test_a_short_budget_is_kept_by_all(prepared):
    search.run(prepared("search.max_evaluations=7"))
    spent = {row["method"]: float(row["candidates"]) for row in written("table.csv")}
    assert spent["reward"] == spent["oracle"] == 7 and spent["ensemble_mean"] <= 7 and spent["random"] == 5
    chosen = written("selection.csv")
    assert [row["candidates"] for row in chosen] == ["3", "1", "1", "1", "1"]
    assert chosen[1]["picked_best"] == ""  # nothing to choose


def test_beams_are_searched_and_paid_for(prepared):
    params = prepared("search.beam_width=2")
    search.run(params)
    metrics = json.loads(Path("results/search/metrics.json").read_text())
    assert metrics["decoder_calls"] == 2 * (1 + 2 * (params.data.steps - 1))


def test_violations_of_the_truth_stand_beside_those_of_the_methods(prepared):
    terms = {row["method"]: row for row in written("terms.csv")}
    assert list(terms) == [*METHODS, "truth"]
    assert float(terms["truth"]["energy"]) == pytest.approx(0.0, abs=1e-6)
    assert float(terms["persistence"]["residual"]) > float(terms["truth"]["residual"]) > 0


def test_a_violation_is_counted_in_its_unit():
    truth = torch.zeros(2, 3, 8)
    rising = truth + torch.arange(3.0)[:, None]  # 0, 1, 2 everywhere
    found = violation(Case(0.01, 0.1, range(2), truth), rising[None])
    assert found["mass"] == pytest.approx(1.0) and found["maximum"] == pytest.approx(1.0)
    assert found["energy"] == pytest.approx((0.5 + 1.5) / 2)


def test_errors_are_means_over_the_ways_to_pick():
    truth = torch.ones(2, 3, 8)
    fields = torch.stack([1.1 * truth, 1.3 * truth])
    torch.testing.assert_close(frame_errors(Case(0.01, 0.1, range(2), truth), fields), torch.full((2, 2), 0.2).double())


@pytest.mark.parametrize(("best", "selectable"), [(0.5, True), (1.0, False)])
def test_candidates_that_are_all_alike_are_not_selectable(best, selectable):
    """An oracle that is no better than chance has nothing to choose from."""
    each = torch.rand(6, 4, generator=generator("errors"), dtype=torch.float64) + 0.5
    errors = {name: each for name in METHODS} | {"oracle": best * each}
    rollouts = dict.fromkeys(METHODS, candidates.Rollouts(torch.zeros(1, 6, 5, 8)))
    found = headlines(errors, rollouts, [agreement(torch.zeros(1, 6), torch.zeros(1, 6), 0)], resamples(6, 100))
    assert found["selectable"] is selectable
    assert found["ratio_oracle_random"] == pytest.approx(best)
    assert found["ratio_reward_random_low"] <= found["ratio_reward_random"] == 1 <= found["ratio_reward_random_high"]


def test_agreement_is_one_for_the_oracle_and_chance_for_a_random_score():
    truth = torch.randn(400, 1, 16, generator=generator("truth"))
    proposed = torch.randn(4, 400, 16, generator=generator("proposed"))
    oracle = oracle_score(truth)
    watched = [Watched(score, oracle) for score in (oracle, random_score(generator("score")))]
    for score in watched:
        score(proposed[0], proposed, 0)
    (same,), (chance,) = (score.agreements for score in watched)
    assert (same.picked_best, same.rank_correlation) == (1.0, 1.0)
    assert chance.picked_best == pytest.approx(0.25, abs=0.08)
    assert chance.rank_correlation == pytest.approx(0.0, abs=0.1)


def test_rank_correlation_is_spearmans():
    one = torch.tensor([[1.0, 3.0], [2.0, 2.0], [9.0, 1.0]])
    other = torch.tensor([[0.0, 0.0], [0.1, 0.1], [0.2, 0.2]])
    assert rank_correlation(one, other).tolist() == [1.0, -1.0]
    assert float(rank_correlation(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[1.0], [3.0], [2.0]]))) == 0.5


def test_a_request_to_stop_leaves_nothing(prepared, monkeypatch):
    original = search.random_rollouts

    def stopped(*inputs):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*inputs)

    monkeypatch.setattr(search, "random_rollouts", stopped)
    params = prepared()
    shutil.rmtree("results/search")
    with pytest.raises(Unfinished, match=r"search: stopped at 16 of 20 steps; it starts anew next time"):
        search.run(params)
    assert not Path("results/search").exists()


@pytest.mark.parametrize(("source", "stage"), [("corrector", "corrector"), ("distilled", "distillation")])
def test_a_missing_source_is_refused(prepared, source, stage):
    params = prepared(f"search.source={source}")
    networks.model_path(stage).unlink()
    with pytest.raises(CheckpointError, match=rf"results/{stage}/model.safetensors: no such file"):
        search.run(params)


@pytest.mark.parametrize(("source", "stage"), [("corrector", "corrector"), ("distilled", "distillation")])
def test_a_source_of_another_operator_is_refused(prepared, source, stage):
    params = prepared(f"search.source={source}")
    operator.run(dataclasses.replace(params, seed=1))
    with pytest.raises(CheckpointError, match=rf"{stage}/model.safetensors: trained with operator \w{{12}}, not"):
        search.run(params)


def test_networks_are_judged_together_only_if_they_were_made_together(prepared):
    params = prepared()
    fno.run(params)
    data = networks.open_data(params).digest
    assert load_networks(params, data, CPU).corrector.upstream["data"] == data
    with pytest.raises(CheckpointError, match=r"autoencoder/model.safetensors: trained with data \w{12}, not another"):
        load_networks(params, "another", CPU)
    operator.run(dataclasses.replace(params, seed=1))
    with pytest.raises(
        CheckpointError, match=r"corrector/model.safetensors: trained with operator \w{12}, not \w{12},"
    ):
        load_networks(params, data, CPU)
