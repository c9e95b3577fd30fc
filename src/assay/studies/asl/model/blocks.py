"""The parts that the U-Nets of this study share; open it to change a convolution block, a skip or a head.

Every size works: decoders zero-pad to their skip. Nothing writes in place or branches on values, so each
network can be stacked and trained K members at once through `torch.func.vmap`.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from assay.errors import DataError
from assay.studies.asl.model.outputs import LOG_VARIANCE_RANGE, UNTRAINED_LOG_VARIANCE

NORM_GROUPS = 8


class DoubleConv(nn.Sequential):
    """[3x3 convolution, GroupNorm(8), ReLU] twice, (B, C, H, W) to (B, width, H, W).

    Without `norm` the convolutions carry a bias instead, so the scale of the input survives.
    """

    def __init__(self, in_channels: int, width: int, *, norm: bool = True) -> None:
        layers: list[nn.Module] = []
        for channels in (in_channels, width):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=not norm))
            layers += [nn.GroupNorm(NORM_GROUPS, width)] if norm else []
            layers.append(nn.ReLU())
        super().__init__(*layers)


class Encoder(nn.Module):
    """Blocks of the given widths with 2x2 max-pooling between them."""

    def __init__(self, in_channels: int, hidden_sizes: Sequence[int], *, first_norm: bool = True) -> None:
        super().__init__()
        inputs = (in_channels, *hidden_sizes[:-1])
        self.blocks = nn.ModuleList(
            DoubleConv(channels, width, norm=first_norm or level > 0)
            for level, (channels, width) in enumerate(zip(inputs, hidden_sizes, strict=True))
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) to the features of every level, finest first. Raises `DataError` on tiny images."""
        smallest = 2 ** (len(self.blocks) - 1)
        if min(x.shape[-2:]) < smallest:
            raise DataError(
                f"model input: got {x.shape[-2]} x {x.shape[-1]} pixels, allowed at least {smallest} x "
                f"{smallest} for {len(self.blocks)} levels: pad the image or use fewer hidden_sizes"
            )
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(nn.functional.max_pool2d(x, 2) if features else x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """One level up: transposed convolution, zero-padding to the skips, concatenation, block."""

    def __init__(self, in_channels: int, width: int, *, skips: int = 1) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, width, 2, stride=2)
        self.block = DoubleConv(width * (1 + skips), width)

    def forward(self, x: Tensor, *skips: Tensor) -> Tensor:
        """x (B, C, h, w) and skips (B, width, H, W) with H // 2 = h to (B, width, H, W)."""
        up = _pad_to(self.up(x), skips[0].shape[-2:])
        out: Tensor = self.block(torch.cat([*skips, up], dim=1))
        return out


def _pad_to(x: Tensor, size: Sequence[int]) -> Tensor:
    rows, columns = size[0] - x.shape[-2], size[1] - x.shape[-1]
    return nn.functional.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class UNet(nn.Module):
    """Encoder and decoders without a head: (B, C, H, W) to (B, hidden_sizes[0], H, W)."""

    def __init__(self, in_channels: int, hidden_sizes: Sequence[int], *, first_norm: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(in_channels, hidden_sizes, first_norm=first_norm)
        self.decoders = decoders(hidden_sizes)

    def forward(self, x: Tensor) -> Tensor:
        *skips, x = self.encoder(x)
        for decoder, skip in zip(self.decoders, reversed(skips), strict=True):
            x = decoder(x, skip)
        return x


def decoders(hidden_sizes: Sequence[int], *, skips: int = 1) -> nn.ModuleList:
    """The decoders from the deepest level up, each `skips` skip connections wide."""
    deepest_first = list(reversed(hidden_sizes))
    return nn.ModuleList(Decoder(deep, width, skips=skips) for deep, width in pairwise(deepest_first))


class Heads(nn.Module):
    """1x1 convolutions from features (B, C, H, W) to (B, 4, H, W): CBF, ATT and their log variances.

    With `learned_variance` the log variances have their own convolution, clamped to [-5, 10]; it starts at
    0, for at the lower limit half the gradient would be lost. Without, they are the constant -5 and mean
    nothing.
    """

    def __init__(self, in_channels: int, *, learned_variance: bool) -> None:
        super().__init__()
        self.mean = nn.Conv2d(in_channels, 2, 1)
        self.log_variance = nn.Conv2d(in_channels, 2, 1) if learned_variance else None
        if self.log_variance is not None:
            nn.init.normal_(self.log_variance.weight, std=0.01)
            nn.init.zeros_(self.log_variance.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        mean: Tensor = self.mean(features)
        if self.log_variance is None:
            log_variance = torch.full_like(mean, UNTRAINED_LOG_VARIANCE)
        else:
            log_variance = self.log_variance(features).clamp(*LOG_VARIANCE_RANGE)
        return torch.cat([mean, log_variance], dim=1)
