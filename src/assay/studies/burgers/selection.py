"""How well a reward knows the better candidate; open it for what selection.csv counts."""

from typing import NamedTuple

import torch
from torch import Tensor

from assay.studies.burgers.ttc import Score


class Agreement(NamedTuple):
    """Reward against true error on the candidates of one step, over the fields that they follow.

    NaN where there is one candidate, and nothing to choose.
    """

    step: int
    candidates: int
    picked_best: float
    """Share of the fields where the reward is highest for the candidate of least error; 1 / candidates by chance."""
    rank_correlation: float
    """Spearman's, between reward and minus the error: 1 if they agree, 0 by chance; the mean over the fields."""


class Watched:
    """A score that, whenever it is asked, notes how well another one, the oracle's, agrees on the same candidates."""

    def __init__(self, score: Score, oracle: Score) -> None:
        self.score, self.oracle = score, oracle
        self.agreements: list[Agreement] = []

    def __call__(self, u: Tensor, candidates: Tensor, step: int) -> Tensor:
        scores = self.score(u, candidates, step)
        self.agreements.append(agreement(scores, self.oracle(u, candidates, step), step))
        return scores


def agreement(scores: Tensor, others: Tensor, step: int) -> Agreement:
    """How well two scores (n, B) of n candidates for what follows each of B fields agree."""
    count = len(scores)
    if count < 2:
        return Agreement(step, count, torch.nan, torch.nan)
    same = (scores.argmax(0) == others.argmax(0)).double().mean()
    return Agreement(step, count, float(same), float(rank_correlation(scores, others).mean()))


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman's rank correlation along dimension 0 of (n, B), n >= 2, (B,); ties in the order they stand in."""
    ranks = [each.argsort(0).argsort(0).double() for each in (one, other)]
    centred = [rank - rank.mean(0) for rank in ranks]
    correlation: Tensor = (centred[0] * centred[1]).sum(0) / centred[0].square().sum(0)
    return correlation
