"""One rate from those of other shapes, log-linear in the parameters that differ; open it to change what is assumed.

A Bayesian linear regression on differences to the shape in question, so that its intercept is what is asked for. What
the prior says of a parameter follows from its type: a whole number counts something, a real number (a rate, a weight)
seldom changes how much is computed, anything else may.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

NEAREST = 40
"""Most shapes that one is scaled from: those that differ in the fewest parameters."""
NOISE = 0.1
"""Standard deviation of the logarithm of a rate around its law."""
ANYWHERE = 3.0
"""Prior standard deviation of the logarithm of the rate itself, around the mean of those seen."""
COUNT, FACTOR, REAL, CHOICE, UNITS = (0.5, 0.5), (0.9, 0.2), (0.0, 0.05), (0.0, 0.25), (1.0, 0.05)
"""Prior mean and standard deviation of an exponent: of a whole number, of a batch or ensemble size, of a real number;
of the effect of any other change; and of the exponent of a whole number that the work itself counted."""
FACTORS = ("batch_size", "accumulate", "ensemble_size")
Leaves = Mapping[str, Any]
Column = tuple[list[float], tuple[float, float]]
"""A feature's difference to the target for each shape seen, and the prior of its effect."""


def extrapolate(target: Leaves, seen: Sequence[tuple[Leaves, float]], units: frozenset[str]) -> tuple[float, float]:
    """Mean and variance of the logarithm of a rate, from leaves and logarithms of the rates of other shapes.

    units: parameters that the work counted; with several of them it is unknown which.
    """
    near = sorted(seen, key=lambda each: len(_differing(target, each[0])))[:NEAREST]
    keys = sorted({key for leaves, _ in near for key in _differing(target, leaves)})
    counted = units if len(units) == 1 else frozenset()
    columns = [column for key in keys for column in _columns(key, target, [leaves for leaves, _ in near], counted)]
    y = np.array([rate for _, rate in near])
    features = np.array([[1.0] * len(near), *(column for column, _ in columns)]).T
    means = np.array([y.mean(), *(mean for _, (mean, _) in columns)])
    precision = np.diag([ANYWHERE**-2, *(spread**-2 for _, (_, spread) in columns)])
    covariance = np.linalg.inv(features.T @ features / NOISE**2 + precision)
    posterior = covariance @ (features.T @ y / NOISE**2 + precision @ means)
    return float(posterior[0]), float(covariance[0, 0])


def _differing(one: Leaves, two: Leaves) -> list[str]:
    return [key for key in {**one, **two} if one.get(key) != two.get(key)]


def _columns(key: str, target: Leaves, others: Sequence[Leaves], counted: frozenset[str]) -> Iterator[Column]:
    """The features of one parameter: its logarithm where it is a number or numbers, else one for each other value."""
    wanted, values = target.get(key), [leaves.get(key) for leaves in others]
    sizes = [_size(value) for value in values]
    size = _size(wanted)
    if size is not None and None not in sizes:
        yield [math.log(each / size) for each in sizes if each], _prior(key, [wanted, *values], counted)
        return
    for value in {repr(value): value for value in values if value != wanted}.values():
        yield [float(each == value) for each in values], CHOICE


def _size(value: Any) -> float | None:
    """A positive number; of a list of whole numbers the sum, of other lists the length."""
    if isinstance(value, list):
        whole = bool(value) and all(type(item) is int and item > 0 for item in value)
        return float(sum(value) if whole else len(value)) or None
    return float(value) if type(value) in (int, float) and value > 0 else None


def _prior(key: str, values: Sequence[Any], counted: frozenset[str]) -> tuple[float, float]:
    if key in counted:
        return UNITS
    if key.rpartition(".")[2] in FACTORS:
        return FACTOR
    return REAL if any(type(value) is float for value in values) else COUNT
