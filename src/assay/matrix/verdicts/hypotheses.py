"""The verdict on each registered hypothesis, from the cells of a study; open it to see what decides.

PASS: the claim holds at its confidence. FAIL: its opposite does. INCONCLUSIVE: neither, with the seeds that would
settle it. INADMISSIBLE: the runs cannot answer it. Student's t decides over the seeds; as soon as a failed seed counts
as the worst, the exact sign test does, for then there is no mean. docs/hypotheses.md measures both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from assay.matrix.cells import CellResult
from assay.matrix.study import HypothesisConfig, MetricConfig
from assay.matrix.verdicts.comparison import Effect, Paired, effect, gaps, pair, unusable
from assay.matrix.verdicts.power import seeds_for, seeds_to_reach, sign_seeds_for, smallest_p
from assay.matrix.verdicts.replicates import FailureRate, replicates
from assay.matrix.verdicts.statistics import (
    Array,
    excesses,
    flip_below,
    holm,
    interval_level,
    sides,
    sign_claim,
    t_claim,
)

Answered = Literal["PASS", "FAIL", "INCONCLUSIVE", "INADMISSIBLE"]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the study says about one hypothesis."""

    name: str
    hypothesis: HypothesisConfig
    verdict: Answered
    reason: str
    """One sentence."""
    method: Literal["t", "sign"] | None = None
    effect: Effect | None = None
    p_value: float | None = None
    """For the claim."""
    p_against: float | None = None
    """For the claim's opposite."""
    p_adjusted: float | None = None
    """p_value after Holm across the study; equal to it without correction."""
    p_against_adjusted: float | None = None
    p_permutation: float | None = None
    """For the claim, by sign-flip permutation of the same per-seed numbers: shown beside, decides nothing."""
    n: int = 0
    """Seeds that count."""
    n_arm: int = 0
    """Finite values of the arm."""
    n_versus: int = 0
    """Finite values of what it is compared with; 0 for a number."""
    failed_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Arm to its failed seeds."""
    failures: Mapping[str, FailureRate] = field(default_factory=dict)
    seeds_needed: int | None = None
    """If INCONCLUSIVE: seeds that settle it with probability 0.8 if effect and spread are as seen; None: not known."""


def judge(
    hypotheses: Mapping[str, HypothesisConfig],
    metrics: Mapping[str, MetricConfig],
    cells: Sequence[CellResult],
    *,
    correction: Literal["holm", "none"] = "holm",
    objections: Mapping[str, str] | None = None,
) -> dict[str, Verdict]:
    """The verdict on every hypothesis of a study, by name.

    objections: arm to the reason why nothing can be concluded from it, e.g. inert, or a failed control.
    """
    found = {
        name: _measure(name, each, metrics[each.metric], cells, objections or {}) for name, each in hypotheses.items()
    }
    p = [[each.p_for for each in found.values()], [each.p_against for each in found.values()]]
    adjusted = [holm(values) if correction == "holm" else values for values in p]
    return {
        name: _decide(each, p_for, p_against)
        for (name, each), p_for, p_against in zip(found.items(), *adjusted, strict=True)
    }


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """A verdict without its decision, for which the p values of the other hypotheses may be needed."""

    verdict: Verdict
    parts: Sequence[Array] = ()
    """Per-seed excesses; none where there is nothing to test."""
    all_failed: bool = False
    """Every seed of the arm failed, and that counts."""

    @property
    def p_for(self) -> float:
        return 1.0 if self.verdict.p_value is None else self.verdict.p_value

    @property
    def p_against(self) -> float:
        return 1.0 if self.verdict.p_against is None else self.verdict.p_against


def _measure(
    name: str,
    hypothesis: HypothesisConfig,
    metric: MetricConfig,
    cells: Sequence[CellResult],
    objections: Mapping[str, str],
) -> _Measured:
    arms = [hypothesis.arm] + ([hypothesis.versus] if isinstance(hypothesis.versus, str) else [])
    found = {arm: replicates(cells, arm, hypothesis.metric) for arm in arms}
    blank = Verdict(
        name=name,
        hypothesis=hypothesis,
        verdict="INADMISSIBLE",
        reason="",
        n_arm=len(found[hypothesis.arm].values),
        n_versus=len(found[arms[1]].values) if len(arms) > 1 else 0,
        failed_seeds={arm: each.failed for arm, each in found.items() if each.failed},
        failures={arm: each.failures for arm, each in found.items() if each.failures},
    )
    objection = next((f"{arm}: {objections[arm]}" for arm in arms if arm in objections), None)
    reason = objection or gaps(hypothesis, found)
    if reason:
        return _Measured(verdict=replace(blank, reason=reason))
    paired = pair(hypothesis, metric, found)
    blank = replace(blank, n=len(paired.seeds))
    reason = unusable(hypothesis, paired)
    if reason:
        return _Measured(verdict=replace(blank, reason=reason))
    return _tested(blank, metric, paired)


def _tested(blank: Verdict, metric: MetricConfig, paired: Paired) -> _Measured:
    """p values and effect. No p value from one seed, which has no spread."""
    hypothesis, both = blank.hypothesis, sides(blank.hypothesis)
    parts = excesses(hypothesis, metric.direction, paired.arm, paired.versus)
    open_ = replace(blank, verdict="INCONCLUSIVE", effect=effect(paired, interval_level(hypothesis)))
    if len(paired.seeds) < 2:
        return _Measured(verdict=open_)
    p_for, p_against = sign_claim(parts, both) if paired.failed else t_claim(parts, both)
    verdict = replace(
        open_,
        method="sign" if paired.failed else "t",
        p_value=float(p_for),
        p_against=float(p_against),
        p_permutation=None if paired.failed else min(1.0, both * max(map(flip_below, parts))),
    )
    return _Measured(verdict=verdict, parts=parts, all_failed=bool(np.isinf(paired.arm).all()))


def _decide(measured: _Measured, p_for: float, p_against: float) -> Verdict:
    """p_for, p_against: after the correction."""
    verdict = measured.verdict
    if verdict.verdict == "INADMISSIBLE":
        return verdict
    if verdict.p_value is None:
        reason = f"one seed only{_shown(verdict)}: without replicates there is no interval and no test; run at least 3"
        return replace(verdict, reason=reason)
    verdict = replace(verdict, p_adjusted=p_for, p_against_adjusted=p_against)
    level = 1 - verdict.hypothesis.confidence
    if p_for <= level:
        reason = f"{_claim(verdict.hypothesis)}{_shown(verdict)}, {p_text(p_for)}{_assumed(verdict)}"
        return replace(verdict, verdict="PASS", reason=reason)
    if measured.all_failed:
        reason = (
            f"every seed of {verdict.hypothesis.arm} failed ({verdict.n} of {verdict.n}), which counts as the worst"
        )
        return replace(verdict, verdict="FAIL", reason=reason)
    if p_against <= level:
        shown = f"{_claim(verdict.hypothesis)}{_shown(verdict)}"
        reason = f"it is not so that {shown}, {p_text(p_against)} for the opposite"
        return replace(verdict, verdict="FAIL", reason=reason)
    return _inconclusive(measured, verdict, level)


def _inconclusive(measured: _Measured, verdict: Verdict, level: float) -> Verdict:
    """The level that Holm leaves to this hypothesis decides how many seeds it needs."""
    p, adjusted = min(
        (measured.p_for, verdict.p_adjusted or 1.0), (measured.p_against, verdict.p_against_adjusted or 1.0)
    )
    left = level * (p / adjusted if 0 < p < adjusted else 1.0)
    seeds = _seeds_needed(measured, left / sides(verdict.hypothesis))
    reachable = smallest_p("sign", verdict.n) * sides(verdict.hypothesis) / 2
    if verdict.method == "sign" and reachable > left:
        fewest = seeds_to_reach("sign", left * 2 / sides(verdict.hypothesis))
        reason = (
            f"a seed failed, so the sign test decides, which cannot reach {left:.3g} with {verdict.n} seeds"
            f" (p >= {reachable:.3g}): {fewest} could"
        )
    elif min(measured.p_for, measured.p_against) <= level:
        reason = f"p = {p:.2g} alone, but {adjusted:.2g} after Holm's correction over the study's hypotheses"
    else:
        reason = f"neither the claim nor its opposite is shown{_shown(verdict)}, {p_text(verdict.p_adjusted or 1.0)}"
    more = f"; about {seeds} seeds would settle it if effect and spread are as seen" if seeds else ""
    return replace(verdict, reason=reason + more, seeds_needed=seeds)


def _seeds_needed(measured: _Measured, one_sided: float) -> int | None:
    if measured.verdict.method == "sign":
        return sign_seeds_for(min(float((x < 0).mean()) for x in measured.parts), one_sided)
    spread = float(max(x.std(ddof=1) for x in measured.parts))
    return seeds_for([-float(x.mean()) for x in measured.parts], spread, one_sided)


def _claim(hypothesis: HypothesisConfig) -> str:
    """The tested claim in words."""
    margin = f"{100 * hypothesis.margin:.3g} %" if hypothesis.margin_is == "relative" else f"{hypothesis.margin:.3g}"
    arm, versus = hypothesis.arm, hypothesis.versus
    if hypothesis.test == "equivalent":
        return f"{arm} is within {margin} of {versus}"
    if hypothesis.test == "non_inferior":
        return f"{arm} is not worse than {versus} by {margin} or more"
    return (
        f"{arm} is better than {versus} by more than {margin}"
        if hypothesis.margin
        else f"{arm} is better than {versus}"
    )


def _shown(verdict: Verdict) -> str:
    """The effect for a sentence, in the margin's measure: a leading comma, or nothing."""
    found = verdict.effect
    if found is None:
        return ""
    what, value, ends = measured(verdict, found)
    low, high = ("unbounded" if end is None else f"{end:.3g}" for end in ends)
    size = "not finite" if value is None else f"{value:.3g}"
    if not verdict.method:
        return f", {what} {size}"
    return f", {what} {size} [{low}, {high}] at {100 * found.level:.3g} % over {verdict.n} seeds"


def measured(verdict: Verdict, effect: Effect) -> tuple[str, float | None, tuple[float | None, float | None]]:
    """What an effect is shown as, in the margin's measure, with its interval: a ratio without bounds says nothing."""
    relative = verdict.hypothesis.margin_is == "relative" and effect.ratio is not None
    if relative and (None not in effect.ratio_interval or not verdict.method):
        return "ratio", effect.ratio, effect.ratio_interval
    what = "difference of means" if effect.of == "mean" else "median difference"
    return what, effect.difference, effect.difference_interval


def _assumed(verdict: Verdict) -> str:
    """What a t test against a number rests on; between two arms, skewness cancels."""
    alone = verdict.method == "t" and not isinstance(verdict.hypothesis.versus, str)
    return ", if seeds scatter symmetrically" if alone else ""


def p_text(value: float) -> str:
    """As it is shown to a reader."""
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.2g}"
