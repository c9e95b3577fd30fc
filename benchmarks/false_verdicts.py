"""How often hypotheses pass that are not true, and how often true ones do.

    python benchmarks/false_verdicts.py [--studies 2000] [--tables alternatives at_the_margin whole_studies powers]

False PASS rates of the decision (Student's t over seeds) beside those of its alternatives, over spreads from normal to
Cauchy; of whole studies through `judge`; with failed seeds; and the power that was predicted beside the one found.
Exits with 1 if a rate that must hold is above its level by more than binomial chance (99 %), or power is off by more
than 5 points plus that chance. docs/hypotheses.md has the figures.
"""

import argparse
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy import stats

from assay.matrix.cells import CellResult
from assay.matrix.study import HypothesisConfig, MetricConfig
from assay.matrix.verdicts.hypotheses import judge
from assay.matrix.verdicts.power import power
from assay.matrix.verdicts.statistics import Array, excesses, flip_below, sides, sign_claim, t_claim

SEEDS = (3, 5, 10)
RNG = np.random.default_rng(0)
LEVEL = 0.05


def contaminated(shape: tuple[int, ...]) -> Array:
    """One seed in ten is far worse: 10 standard deviations, give or take 5."""
    bad = RNG.random(shape) < 0.1
    return np.where(bad, 10 + 5 * RNG.standard_normal(shape), RNG.standard_normal(shape)) - 1.0


SPREADS: dict[str, Callable[[tuple[int, ...]], Array]] = {
    "normal": RNG.standard_normal,
    "Student's t, 2 df": lambda shape: RNG.standard_t(2, shape),
    "Cauchy": RNG.standard_cauchy,
    "log-normal, CV 20 %": lambda shape: RNG.lognormal(0, 0.198, shape) - math.exp(0.198**2 / 2),
    "log-normal, CV 130 %": lambda shape: RNG.lognormal(0, 1, shape) - math.exp(0.5),
    "1 in 10 far worse": contaminated,
}


def hypothesis(
    test: str = "superior", margin: float = 0.0, versus: str | float = "b", arm: str = "a"
) -> HypothesisConfig:
    """A hypothesis with an absolute margin."""
    return HypothesisConfig(
        claim="", metric="m", arm=arm, versus=versus, test=test, margin=margin, margin_is="absolute"
    )


def t_rate(claim: HypothesisConfig, arm: Array, versus: Array | float) -> float:
    """Share of studies that pass by Student's t."""
    return float((t_claim(excesses(claim, "min", arm, versus), sides(claim))[0] <= LEVEL).mean())


def bootstrap_rate(x: Array, method: str) -> float:
    """Share of studies whose 95 % bootstrap interval of the mean lies below 0."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # degenerate intervals of three seeds
        found = stats.bootstrap((x,), np.mean, n_resamples=999, axis=-1, method=method, rng=0)
    return float((found.confidence_interval.high < 0).mean())


def limit(studies: int, level: float = LEVEL) -> float:
    """The rate that chance exceeds in 1 % of tries when the true one is the level."""
    return float(stats.binom.ppf(0.99, studies, level)) / studies


def alternatives(studies: int) -> bool:
    """No difference, superiority at 95 %: PASS rates in %. Paired ones must hold; those versus a number are shown."""
    print(f"\nPASS rate in % where nothing is true, superior at 95 %, {studies} studies a row")
    print("spread                 seeds   t   flips  sign  BCa  percentile | versus a number: t")
    met = True
    for name, draw in SPREADS.items():
        for n in SEEDS:
            x = draw((studies, n)) - draw((studies, n))
            rates = [
                t_rate(hypothesis(), x, 0.0),
                float(np.mean([2 * flip_below(each) <= LEVEL for each in x])),
                float((sign_claim([x], 2)[0] <= LEVEL).mean()),
                bootstrap_rate(x[: studies // 4], "BCa"),
                bootstrap_rate(x[: studies // 4], "percentile"),
                t_rate(hypothesis(), draw((studies, n)), 0.0),
            ]
            met &= rates[0] <= limit(studies)
            print(f"{name:22s} {n:4d} " + " ".join(f"{100 * rate:6.1f}" for rate in rates), flush=True)
    return met


def at_the_margin(studies: int) -> bool:
    """The truth lies exactly on the margin: PASS rates of the one-sided tests, and of a relative superiority test."""
    print("\nPASS rate in % where the truth lies on the margin (spread 0.02 around 1)")
    print("seeds  equivalent 5 %  non-inferior 5 %  superior 10 %, relative")
    met = True
    for n in SEEDS:
        versus, noise = 1 + 0.02 * RNG.standard_normal((studies, n)), 0.02 * RNG.standard_normal((studies, n))
        relative = HypothesisConfig(claim="", metric="m", arm="a", versus="b", test="superior", margin=0.1)
        rates = [
            t_rate(hypothesis("equivalent", 0.05), 1.05 + noise, versus),
            t_rate(hypothesis("non_inferior", 0.05), 1.05 + noise, versus),
            t_rate(relative, 0.9 * (1 + noise), versus),
        ]
        met &= max(rates) <= limit(studies)
        print(f"{n:4d}   " + "   ".join(f"{100 * rate:12.1f}" for rate in rates))
    return met


def cells(values: dict[str, Array]) -> list[CellResult]:
    """Runs with a metric; an infinite one is a run that failed."""
    return [
        CellResult(
            arm=arm,
            seed=seed,
            folder=Path(arm),
            state="complete" if math.isfinite(value) else "failed",
            metrics={"m": float(value)} if math.isfinite(value) else {},
        )
        for arm, each in values.items()
        for seed, value in enumerate(each)
    ]


def whole_studies(studies: int) -> bool:
    """Five arms against a baseline with which they agree, through `judge`: studies with one PASS or more."""
    print("\nstudies in % with a false PASS among five hypotheses (Student's t, 2 df), and with 20 % of seeds failing")
    print("seeds   Holm   none | failing: Holm   none")
    claims = {f"H{index}": hypothesis(arm=f"a{index}") for index in range(5)}
    met = True
    for n in SEEDS:
        rates = []
        for failing in (0.0, 0.2):
            passed = np.zeros(2)
            for _ in range(studies // 4):
                draws = {arm: RNG.standard_t(2, n) for arm in ("b", *(f"a{index}" for index in range(5)))}
                found = cells({arm: np.where(RNG.random(n) < failing, np.inf, x) for arm, x in draws.items()})
                verdicts = judge(claims, {"m": MetricConfig(direction="min")}, found).values()
                alone = [1.0 if each.p_value is None else each.p_value for each in verdicts]
                passed += [any(each.verdict == "PASS" for each in verdicts), min(alone) <= LEVEL]
            rates += [*(passed / (studies // 4))]
            met &= rates[-2] <= limit(studies // 4)
        print(f"{n:4d} " + " ".join(f"{100 * rate:8.1f}" for rate in rates), flush=True)
    return met


def powers(studies: int) -> bool:
    """Power predicted by `power` beside the PASS rate found, in %. Distances in standard deviations of a difference."""
    print("\npower in %: predicted, found")
    met = True
    for n in SEEDS:
        for test, distance in (("superior", 1.0), ("superior", 2.0), ("equivalent", 1.0), ("equivalent", 2.0)):
            claim = hypothesis(test, 0.0 if test == "superior" else distance)
            shift = -distance if test == "superior" else 0.0
            x = shift + RNG.standard_normal((studies, n))
            distances = [distance] if test == "superior" else [distance, distance]
            predicted = power(distances, 1.0, n, LEVEL / sides(claim))
            found = t_rate(claim, x, 0.0)
            met &= abs(found - predicted) <= 0.05
            print(f"{n:4d} seeds  {test:10s} {distance:.0f} s: {100 * predicted:5.1f} {100 * found:5.1f}")
    return met


def main() -> int:
    """Print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    tables = {check.__name__: check for check in (alternatives, at_the_margin, whole_studies, powers)}
    parser.add_argument("--tables", nargs="+", choices=tables, default=list(tables))
    parsed = parser.parse_args()
    print(f"a rate must be at most {100 * limit(parsed.studies):.1f} % (5 % and chance)")
    return 0 if all([tables[name](parsed.studies) for name in parsed.tables]) else 1


if __name__ == "__main__":
    sys.exit(main())
