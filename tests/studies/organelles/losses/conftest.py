"""Loss sections from the committed parameters, and batches with classes and voxels that were not annotated."""

import math
from collections.abc import Callable

import pytest
import torch

from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.loss_section import LossConfig
from assay.studies.organelles.prior import Frequencies

COUNT = len(CLASSES)


@pytest.fixture
def section(make_params) -> Callable[..., LossConfig]:
    """The plain Tversky section with other settings."""

    def make(**settings: object) -> LossConfig:
        plain = {"adjust": "none", "smooth": 1e-6, "alpha": [0.6], "beta": [0.4], **settings}
        return make_params(*(f"loss.{key}={_text(value)}" for key, value in plain.items())).loss

    return make


def _text(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def draw_batch(seed: int = 0, samples: int = 3, space: tuple[int, ...] = (8, 9), annotated: float = 0.6):
    """Logits and a target of disjoint classes: some not annotated, and a corner outside of the crop."""
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, COUNT, *space, generator=rng) * 2
    label = torch.randint(0, COUNT + 1, (samples, *space), generator=rng)
    target = torch.stack([(label == place + 1).float() for place in range(COUNT)], 1)
    hidden = torch.rand(samples, COUNT, generator=rng) >= annotated
    target[hidden] = math.nan
    target[..., :2, :3] = math.nan
    return logits, target


@pytest.fixture
def frequencies() -> Frequencies:
    """Of classes that differ by a factor of ten thousand."""
    positive = torch.logspace(2, 6, COUNT, dtype=torch.float64)
    crops = torch.arange(1.0, COUNT + 1, dtype=torch.float64)
    return Frequencies(positive, torch.full_like(positive, 1e7), crops, torch.full_like(crops, 20))
