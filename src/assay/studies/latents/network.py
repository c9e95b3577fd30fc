"""Type-structured networks on a hexagonal sheet: who drives whom; simulator.py makes them run.

A type has one neuron in every column. A pair of types shares its sign, its offsets between columns and its counts, so
connectivity is the same everywhere but at the border. Types are ordered by depth, the input types being at depth 0:
connections from shallower types are forward, all others recurrent.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.engine.random import derive
from assay.studies.latents.sizes import Size

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

REACH = 2  # columns; the farthest source of a connection
MEAN_EXTRA_OFFSETS = 2.5  # of a pair, beyond its first
P_RECURRENT = 0.2  # that a type of equal or greater depth is a source
P_EXCITATORY = 0.62  # share of excitatory pairs in the connectome of the fly's visual system
COUNT_SIGMA, STRENGTH_SIGMA = 1.0, 0.5  # of the logarithms of counts and of a pair's strength
MOST_FEEDBACK = 0.8  # bound on the Perron root of the absolute weights; below 1 rates cannot run away


class Network(NamedTuple):
    """Connections (E,) from neuron `source` to neuron `target`; neuron = type * columns + column.

    weight: signed, normalised so that a type's forward weights sum to 1 in absolute value, and its recurrent ones too.
    forward: whether the source's type is shallower. type_forward, type_recurrent: (K, K), the absolute weights summed
    over offsets, target by source.
    """

    size: Size
    target: Integers
    source: Integers
    weight: Floats
    forward: NDArray[np.bool_]
    type_forward: Floats
    type_recurrent: Floats


class Pair(NamedTuple):
    """What the neurons of one type get from those of another: signed weights (n,) at column offsets (n, 2)."""

    target: int
    source: int
    offsets: Integers
    weights: Floats


def hexagon(radius: int) -> Integers:
    """Axial coordinates (C, 2) of all columns within `radius` of the middle."""
    u, v = (axis.ravel() for axis in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    inside: Integers = np.stack([u, v], axis=1)[np.abs(u + v) <= radius].astype(np.int64)
    return inside


def positions(coordinates: Integers) -> Floats:
    """Places in the plane (C, 2), in units of the distance between neighbouring columns."""
    u, v = coordinates[:, 0], coordinates[:, 1]
    return np.stack([u + 0.5 * v, np.sqrt(0.75) * v], axis=1)


def build_network(size: Size, seed: int) -> Network:
    """The network of a seed."""
    rng = np.random.default_rng(derive(seed, "network"))
    pairs = [pair for target in range(size.input_types, size.types) for pair in _pairs(size, target, rng)]
    sums = np.zeros((2, size.types, size.types))
    for pair in pairs:
        sums[int(pair.source < pair.target), pair.target, pair.source] = np.abs(pair.weights).sum()
    totals = sums.sum(2)
    edges = [_edges(size.columns, pair, hexagon(size.radius)) for pair in pairs]
    target, source, weight = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    forward = source // size.columns < target // size.columns
    scale = totals[forward.astype(np.int64), target // size.columns]
    normalised = sums / np.where(totals > 0, totals, 1)[:, :, None]
    return Network(size, target, source, weight / scale, forward, normalised[1], normalised[0])


def _pairs(size: Size, target: int, rng: np.random.Generator) -> list[Pair]:
    """The sources of one type."""
    count = min(1 + rng.poisson(size.sources - 1), target)
    shallower = rng.choice(target, count, replace=False)
    others = np.arange(target, size.types)
    chosen = [*np.sort(shallower), *others[rng.random(len(others)) < P_RECURRENT]]
    offsets = hexagon(REACH)
    likely = np.exp(-np.hypot(*positions(offsets).T))
    pairs = []
    for source in chosen:
        several = min(1 + rng.poisson(MEAN_EXTRA_OFFSETS), len(offsets))
        places = rng.choice(len(offsets), several, replace=False, p=likely / likely.sum())
        strength = np.exp(STRENGTH_SIGMA * rng.standard_normal()) * (1 if rng.random() < P_EXCITATORY else -1)
        counts = np.exp(COUNT_SIGMA * rng.standard_normal(several))
        pairs.append(Pair(target, int(source), offsets[places], strength * counts))
    return pairs


def _edges(columns: int, pair: Pair, sheet: Integers) -> tuple[Integers, Integers, Floats]:
    """A pair at every column that has the source's column beside it."""
    index = {tuple(place): number for number, place in enumerate(sheet.tolist())}
    found = [
        (here, index[there], weight)
        for offset, weight in zip(pair.offsets, pair.weights, strict=True)
        for here, there in enumerate(map(tuple, (sheet + offset).tolist()))
        if there in index
    ]
    here, there, weights = (np.array(column) for column in zip(*found, strict=True))
    return pair.target * columns + here, pair.source * columns + there, weights.astype(np.float64)


def feedback_factor(network: Network, gain: Floats) -> float:
    """The largest factor in [0, 1] on recurrent weights that keeps the Perron root at MOST_FEEDBACK or below.

    gain: (K,), on the forward weights of each target type. The root of the types' summed weights bounds that of the
    neurons' (Collatz and Wielandt), which a border only lowers.
    """
    forward = gain[:, None] * network.type_forward

    def root(factor: float) -> float:
        return float(np.abs(np.linalg.eigvals(forward + factor * network.type_recurrent)).max())

    low, high = 0.0, 1.0
    if root(high) <= MOST_FEEDBACK:
        return high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if root(middle) <= MOST_FEEDBACK else (low, middle)
    return low


def weights(network: Network, gain: Floats) -> Floats:
    """Weight of every connection (E,) under the gains (K,) of the target types."""
    types = network.target // network.size.columns
    return network.weight * np.where(network.forward, gain[types], feedback_factor(network, gain))
