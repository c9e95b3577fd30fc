"""The network's section of the organelles study's parameters; open it for an architecture and the sizes it takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from assay.config.fields import Bounds, Problem

Architecture = Literal["unet", "residual_unet", "resnet", "resnet_deep", "swin", "vit"]


class Rule(NamedTuple):
    """What an architecture asks of a patch, and of its first layer's channels.

    stride: every edge is a multiple of it. normed: its coarsest level is normalised over space, so it needs two voxels.
    """

    stride: int
    normed: bool
    features: int


RULES: dict[str, Rule] = {
    "unet": Rule(stride=16, normed=True, features=1),
    "residual_unet": Rule(stride=16, normed=True, features=1),
    "resnet": Rule(stride=8, normed=False, features=8),
    "resnet_deep": Rule(stride=16, normed=True, features=1),
    "swin": Rule(stride=32, normed=True, features=12),
    "vit": Rule(stride=16, normed=False, features=1),
}
BACKENDS: dict[str, tuple[str, ...]] = {"swin": ("naive", "sdpa"), "vit": ("naive", "sdpa", "xformers")}
"""Attention kernels of the architectures that attend; Swin's windows have a bias, which xformers is not given here."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network, from MONAI. An option that the architecture does not have must be null."""

    architecture: Architecture
    """BasicUNet, UNet with residual units, SegResNet, SegResNetDS, SwinUNETR (version 2), UNETR, in this order."""
    dimensions: Annotated[int, Bounds(ge=2, le=3)]
    """2: slices; 3: volumes. As many edges has sampling.patch."""
    features: Annotated[int, Bounds(ge=1)]
    """Channels of the first level. Full size: unet 64, residual_unet, resnet, resnet_deep 32, swin 48, vit 16."""
    hidden: Annotated[int, Bounds(ge=8)] | None
    """Channels of a token (vit); full size 768. Its feed-forward part has four times as many units."""
    heads: Annotated[int, Bounds(ge=1)] | None
    """Attention heads (vit); full size 12."""
    attention: Literal["naive", "sdpa", "xformers"] | None
    """Attention kernel (swin, vit): matrix products; torch's; xformers, which wants an NVIDIA GPU (vit)."""
    dropout: Annotated[float, Bounds(ge=0, lt=1)]
    """Share of activations that are dropped, where MONAI's network has it; resnet_deep has none."""
    recompute: bool
    """Keep no activations inside of blocks but compute them again in the backward pass: less memory, more time."""
    channels_last: bool
    """Weights of 3-D convolutions in channels-last order, which tensor cores want; 2-D ones always are."""
    prior_bias: bool
    """Initial bias of the head = log odds of each class among the annotated voxels of the training crops."""

    def conflicts(self) -> Iterator[Problem]:
        """Options that the architecture does not read, or that it needs."""
        for key in ("hidden", "heads"):
            yield from self._only("vit", key)
        allowed = BACKENDS.get(self.architecture)
        if allowed is None and self.attention is not None:
            yield Problem("attention", self.attention, f"null with architecture {self.architecture}", "it has none")
        if allowed is not None and self.attention not in allowed:
            given = "null" if self.attention is None else self.attention
            yield Problem("attention", given, f"{' or '.join(allowed)} with architecture {self.architecture}")
        unit = RULES[self.architecture].features
        if self.features % unit:
            allowed_features = f"a multiple of {unit} with architecture {self.architecture}"
            yield Problem("features", str(self.features), allowed_features)
        if self.hidden is not None and self.heads is not None and self.hidden % self.heads:
            yield Problem("heads", str(self.heads), f"divisors of hidden {self.hidden}")
        if self.dropout > 0 and self.architecture == "resnet_deep":
            yield Problem("dropout", f"{self.dropout:g}", "0 with architecture resnet_deep", "MONAI's has none")
        if self.channels_last and self.dimensions == 2:
            yield Problem("channels_last", "true", "false with dimensions 2", "2-D weights always are in that order")

    def _only(self, architecture: str, key: str) -> Iterator[Problem]:
        value = getattr(self, key)
        if self.architecture == architecture and value is None:
            yield Problem(key, "null", f"a number with architecture {architecture}", "give one")
        if self.architecture != architecture and value is not None:
            allowed = f"null with architecture {self.architecture}"
            yield Problem(key, str(value), allowed, "it would not be read")

    def unfit(self, edges: Sequence[int]) -> str | None:
        """Why the network cannot take a patch of these edges, as what is allowed; None if it can."""
        rule = RULES[self.architecture]
        if len(edges) != self.dimensions:
            return f"{self.dimensions} edges with model.dimensions {self.dimensions}"
        if any(edge % rule.stride for edge in edges):
            return f"multiples of {rule.stride} with model.architecture {self.architecture}"
        if rule.normed and all(edge == rule.stride for edge in edges):
            return f"more than one {rule.stride} with model.architecture {self.architecture}, which norms over space"
        return None
