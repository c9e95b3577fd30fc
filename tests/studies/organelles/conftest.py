"""The organelles study at a size that takes seconds: six crops of 16 x 64 x 64, a U-Net of four channels."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assay.config import load
from assay.studies.organelles.config import Params

PARAMS = Path(__file__).parents[3] / "studies/organelles/params.yaml"
TINY = [
    "data.volumes=6",
    "data.datasets=2",
    "data.shape=[16,64,64]",
    "data.validation_fraction=0.34",
    "sampling.patch=[32,32]",
    "model.features=4",
    "loss.adjust=add",  # so that a prior is part of what is tested
    "train.steps=6",
    "train.batch_size=2",
    "train.log_every=2",
    "train.validate_every=2",
    "train.checkpoint_every=2",
    "train.device=cpu",
    "evaluation.every=4",
    "evaluation.monitor_every=8",
    "evaluation.images=1",
    "evaluation.device=cpu",
]
VIT = ["model.hidden=24", "model.heads=3", "model.attention=sdpa"]
VOLUMES = ["model.dimensions=3", "evaluation.every=1", "evaluation.monitor_every=1"]
SLOTS = {
    "unet_2d": [],
    "resnet_2d": ["model.architecture=resnet", "model.features=8"],
    "swin_2d": [
        "model.architecture=swin",
        "model.features=12",
        "model.attention=sdpa",
        "sampling.patch=[64,64]",
        "train.batch_size=1",
    ],
    "vit_2d": ["model.architecture=vit", *VIT],
    "unet_3d": [*VOLUMES, "sampling.patch=[16,32,32]"],
    "resnet_3d": [*VOLUMES, "sampling.patch=[16,32,32]", "model.architecture=resnet", "model.features=8"],
    "swin_3d": [
        *VOLUMES,
        "data.shape=[32,64,64]",
        "sampling.patch=[32,32,64]",
        "augmentation.transpose=false",
        "model.architecture=swin",
        "model.features=12",
        "model.attention=sdpa",
        "train.batch_size=1",
    ],
    "vit_3d": [*VOLUMES, "sampling.patch=[16,32,32]", "model.architecture=vit", *VIT],
}
"""The overrides that make the tiny parameters those of each network."""


@pytest.fixture
def make_params(tmp_path: Path, monkeypatch) -> Callable[..., Params]:
    """The committed parameters at a tiny size, with further `dotted.key=value` overrides; results go to `tmp_path`."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> Params:
        return load(Params, PARAMS, [*TINY, *overrides])

    return make
