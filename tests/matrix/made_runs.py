"""Runs with one metric, made up from numbers, and the verdict on a claim about them; open it for tests of verdicts."""

import math
from collections.abc import Mapping
from pathlib import Path

from assay.matrix.cells import CellResult
from assay.matrix.study import HypothesisConfig, MetricConfig
from assay.matrix.verdicts.hypotheses import Verdict, judge

FAILED = math.inf
"""Stands for a run that failed."""
MIN = MetricConfig(direction="min")


def claim(test="superior", margin=0.0, arm="a", versus: str | float = "b", margin_is="relative") -> HypothesisConfig:
    return HypothesisConfig(claim="", metric="m", arm=arm, versus=versus, test=test, margin=margin, margin_is=margin_is)


def runs(**arms: Mapping[int, float] | list[float]) -> list[CellResult]:
    """Runs of each arm with the metric m, by seed; an infinite value stands for a run that failed."""
    found = []
    for arm, values in arms.items():
        for seed, value in values.items() if isinstance(values, Mapping) else enumerate(values):
            state = "failed" if value == FAILED else "complete"
            metrics = {} if value == FAILED else {"m": value}
            found.append(CellResult(arm=arm, seed=seed, folder=Path(arm), state=state, metrics=metrics))
    return found


def verdict(hypothesis: HypothesisConfig, cells: list[CellResult], metric: MetricConfig = MIN) -> Verdict:
    return judge({"H": hypothesis}, {"m": metric}, cells)["H"]
