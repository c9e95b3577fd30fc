"""From which crop each training patch comes; open it for how rare classes are seen as often as common ones.

Balance has a price: a crop that shows nothing but what others show, too, is seldom or never the one that is needed.
Sample k of a training is a function of (seed, k) alone: neither the number of ranks nor a resumed run changes it.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from assay.engine.random import derive
from assay.studies.organelles.cache import Crops
from assay.studies.organelles.data_section import SamplingConfig

BLOCK = 512  # samples over which the balance is kept; each block starts to count anew


class CropOrder:
    """The crop of every sample: balanced over classes, or any crop alike."""

    def __init__(self, crops: Crops, ids: Sequence[int], section: SamplingConfig, seed: int) -> None:
        self.ids, self.seed = np.asarray(ids), seed
        shows = np.stack([crops[number].positives > 0 for number in ids])
        self.balanced = section.crops == "balanced" and bool(shows.any())
        # a class that no crop shows cannot be chosen
        self.shows = shows[:, shows.any(0)]
        self._block = lru_cache(maxsize=2)(self._draw)

    def at(self, sample: int) -> int:
        """Crop id of a sample."""
        block, place = divmod(sample, BLOCK)
        return int(self._block(block)[place])

    def _draw(self, block: int) -> NDArray[np.int64]:
        rng = np.random.default_rng(derive(self.seed, "crops", block))
        if not self.balanced:
            return self.ids[rng.integers(len(self.ids), size=BLOCK)]
        showing = [np.flatnonzero(column) for column in self.shows.T]
        # ties are broken at random, since what is added to a count is less than 1
        counts = rng.random(len(showing))
        rows = np.empty(BLOCK, np.int64)
        for place in range(BLOCK):
            candidates = showing[int(counts.argmin())]
            rows[place] = candidates[rng.integers(len(candidates))]
            counts += self.shows[rows[place]]
        return self.ids[rows]
