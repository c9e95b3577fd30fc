"""Architectures that exist to be compared with: what do capacity and depth do? Open it to add a control."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from assay.studies.asl.model.amplitude_aware import AmplitudeAwareSpatialASLNet
from assay.studies.asl.model.blocks import NORM_GROUPS, Heads, UNet


class SmallCNN(nn.Module):
    """[3x3 convolution, GroupNorm(8), ReLU] per width, then a 1x1 head: (B, 2P, H, W) to (B, 4, H, W).

    22,210 parameters for six delays and widths 32-64. It sees 5x5 voxels and, as the baseline, ignores
    input scale.
    """

    def __init__(self, plds: int, hidden_sizes: Sequence[int] = (32, 64)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, width in zip((2 * plds, *hidden_sizes), hidden_sizes, strict=False):
            layers += [
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.GroupNorm(NORM_GROUPS, width),
                nn.ReLU(),
            ]
        self.features = nn.Sequential(*layers)
        self.heads = Heads(hidden_sizes[-1], learned_variance=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.heads(self.features(x))
        return out


class MatchedUNet(nn.Module):
    """The amplitude-aware network without amplitude paths, their parameters spent on a wider bottleneck.

    `hidden_sizes` are those of the network to match with all options on. The bottleneck is the multiple of
    8 that comes closest: 272 for 32-64-128-256 and six delays, 2,032,290 parameters beside 2,038,307.
    """

    def __init__(self, plds: int, hidden_sizes: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.unet = UNet(2 * plds, matched_sizes(plds, hidden_sizes), first_norm=False)
        self.heads = Heads(hidden_sizes[0], learned_variance=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.heads(self.unet(x))
        return out


def matched_sizes(plds: int, hidden_sizes: Sequence[int]) -> tuple[int, ...]:
    """`hidden_sizes` with the bottleneck that brings `MatchedUNet` closest to the amplitude-aware network."""
    target = _count(lambda: AmplitudeAwareSpatialASLNet(plds, hidden_sizes))

    def excess(bottleneck: int) -> int:
        sizes = (*hidden_sizes[:-1], bottleneck)
        body = _count(lambda: UNet(2 * plds, sizes, first_norm=False))
        return body + _count(lambda: Heads(hidden_sizes[0], learned_variance=False)) - target

    bottleneck = hidden_sizes[-1]
    while excess(bottleneck + NORM_GROUPS) < 0:
        bottleneck += NORM_GROUPS
    return (
        *hidden_sizes[:-1],
        min(bottleneck, bottleneck + NORM_GROUPS, key=lambda width: abs(excess(width))),
    )


def _count(build: Callable[[], nn.Module]) -> int:
    with torch.device("meta"):  # shapes alone: no memory, no random numbers
        return sum(parameter.numel() for parameter in build().parameters())
