"""A score that knows nothing, what every other is compared with; open it for how tests pick at random."""

import torch
from torch import Tensor

from assay.studies.burgers.ttc import Score


def random_score(rng: torch.Generator) -> Score:
    """The same chance for every candidate."""

    def score(u: Tensor, candidates: Tensor, step: int) -> Tensor:
        return torch.rand(candidates.shape[:2], generator=rng)

    return score
