"""Candidates for the next field, and how a search asks for them; open it for what a call or a random pick is."""

from typing import NamedTuple

import torch
from torch import Tensor

from assay.engine.progress import Phase
from assay.engine.random import generator
from assay.studies.burgers import predictors
from assay.studies.burgers.config import Params
from assay.studies.burgers.evaluation import Case
from assay.studies.burgers.networks import Loaded, load_shared
from assay.studies.burgers.predictors import Draw
from assay.studies.burgers.ttc import SearchOptions, plan

PICKS = 5  # ways to pick at random


class Rollouts(NamedTuple):
    """Trajectories of a method, the candidates made for each of them, and the calls of networks that they cost."""

    fields: Tensor
    """(picks, B, K + 1, cells); one pick, but several of the method random."""
    candidates: float = 0.0
    operator_calls: float = 0.0
    corrector_calls: float = 0.0


class Candidates(NamedTuple):
    """Where candidates come from: the operator, errors drawn for its prediction, and the calls that one draw costs."""

    base: Loaded
    draw: Draw
    calls: int
    batch_size: int
    keep_operator: bool
    """Whether the first candidate is the operator's own prediction."""


def load_candidates(params: Params, data: str, device: torch.device) -> Candidates:
    """The operator and the corrector, or its distilled student; `data` is the digest of the data set.

    Raises:
        CheckpointError: one is missing, damaged, or was trained for other fields, other data or another operator.
    """
    config, size = params.corrector, params.evaluation.batch_size * params.search.candidates
    base = load_shared("operator", params, {"data": data}, device)
    here = {"data": data, "operator": base.digest}
    if params.search.source == "distilled":
        student = load_shared("distillation", params, here, device)
        draw = predictors.single_call(student.module, student.facts, size)
        return Candidates(base, draw, 1, size, params.search.keep_operator)
    corrector = load_shared("corrector", params, here, device)
    draw = predictors.flow(corrector.module, corrector.facts, config, size)
    calls = config.sampler_steps * (2 if config.sampler == "heun" else 1)
    return Candidates(base, draw, calls, size, params.search.keep_operator)


class Proposer:
    """Candidates for the fields after given ones, from random numbers that are the same for every proposer."""

    def __init__(self, source: Candidates, case: Case, progress: Phase) -> None:
        self.source, self.case, self.progress = source, case, progress
        self.step = predictors.one_step(source.base, source.batch_size)
        self.rng = generator("burgers search", device=case.truth.device)
        self.operator_calls = self.candidates = 0.0

    def __call__(self, fields: Tensor, count: int) -> Tensor:
        """`count` candidates for what follows each of fields (B, cells): (count, B, cells)."""
        number = torch.arange(count, device=fields.device)[:, None].expand(-1, len(fields))
        return self.follow(fields, self.noise(count, len(fields)), number)

    def noise(self, count: int, fields: int) -> Tensor:
        """What makes `count` candidates of each field differ, (count, fields, cells)."""
        shape = (count, fields, self.case.truth.shape[-1])
        return torch.randn(shape, generator=self.rng, device=self.rng.device, dtype=self.case.truth.dtype)

    def follow(self, fields: Tensor, noise: Tensor, number: Tensor) -> Tensor:
        """The candidates (count, B, cells) that noise of that shape makes; number (count, B): which of them each is."""
        predicted, count = self.step(fields, self.case.nu), len(noise)
        drawn = self.source.draw(noise.flatten(0, 1), predicted.repeat(count, 1), fields.repeat(count, 1))
        if self.source.keep_operator:
            drawn = torch.where((number == 0).reshape(-1, 1), torch.zeros_like(drawn), drawn)
        self.operator_calls += len(fields) / len(self.case.truth)
        self.candidates += count * len(fields) / len(self.case.truth)
        self.progress.advance()
        return predictors.correct(self.source.base, drawn.view_as(noise), predicted, fields)

    def rollouts(self, fields: Tensor) -> Rollouts:
        """Fields (picks, B, K, cells) after the given ones, with what each pick has cost so far."""
        start = self.case.truth[:, 0].expand(len(fields), -1, -1)[:, :, None]
        candidates, operator_calls = self.candidates / len(fields), self.operator_calls / len(fields)
        whole = torch.cat([start, fields], dim=2)
        return Rollouts(whole, candidates, operator_calls, candidates * self.source.calls)


def random_rollouts(proposer: Proposer, options: SearchOptions) -> Rollouts:
    """PICKS ways to choose any candidate at every step; those that are not chosen need not be made."""
    truth = proposer.case.truth
    rng, rows = generator("burgers search picks", device=truth.device), torch.arange(len(truth), device=truth.device)
    frames, spent = [truth[:, 0].repeat(PICKS, 1)], 0
    for step in range(options.steps):
        _, count = plan(options, step, spent, 1)
        spent += count
        noise = proposer.noise(count, len(truth))
        picked = torch.randint(count, (PICKS, len(truth)), generator=rng, device=truth.device)
        frames.append(proposer.follow(frames[-1], noise[picked, rows].flatten(0, 1)[None], picked.view(1, -1))[0])
    fields = torch.stack(frames[1:], dim=1).view(PICKS, len(truth), options.steps, -1)
    return proposer.rollouts(fields)
