"""The eight networks of the comparison at full size, four of slices and four of volumes; open it for a size.

Their patches are those of the published plan: 256 x 256, and 32 x 256 x 256 voxels.
"""

from typing import Any

from assay.studies.organelles.network_section import ModelConfig

PATCHES = {2: (256, 256), 3: (32, 256, 256)}
OFF: dict[str, Any] = {
    "hidden": None,
    "heads": None,
    "attention": None,
    "dropout": 0.0,
    "recompute": False,
    "channels_last": False,
    "prior_bias": False,
}
OWN: dict[str, dict[str, Any]] = {
    "unet": {"architecture": "unet", "features": 64},
    "resnet": {"architecture": "resnet", "features": 32},
    "swin": {"architecture": "swin", "features": 48, "attention": "sdpa"},
    "vit": {"architecture": "vit", "features": 16, "hidden": 768, "heads": 12, "attention": "sdpa"},
}
SLOTS = {
    f"{name}_{dimensions}d": ModelConfig(dimensions=dimensions, **{**OFF, **own})
    for dimensions in PATCHES
    for name, own in OWN.items()
}
"""Name as an arm of study.yaml to the network's section."""
