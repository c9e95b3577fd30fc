"""Which classes of a simulated crop are annotated; open it for how often each group of classes is.

The probabilities follow how many of the challenge's 198 training crops show a class.
"""

import torch
from torch import Tensor

from assay.studies.organelles.classes import CLASSES, GROUPS
from assay.studies.organelles.draw import Draw

PROBABILITIES = (0.66, 0.53, 0.57, 0.24, 0.12, 0.75, 0.72, 0.78, 0.28)
"""Of each of GROUPS."""


def draw_annotation(fully: float, draw: Draw) -> Tensor:
    """(C,) bool: all classes with probability `fully`, else each group by its own, at least one."""
    if draw.chance(fully):
        return torch.ones(len(CLASSES), dtype=torch.bool)
    groups = draw.uniform(len(GROUPS)) < torch.tensor(PROBABILITIES)
    if not groups.any():
        groups[draw.whole(0, len(GROUPS) - 1)] = True
    chosen = {name for group, wanted in zip(GROUPS, groups.tolist(), strict=True) if wanted for name in group}
    return torch.tensor([name in chosen for name in CLASSES])
