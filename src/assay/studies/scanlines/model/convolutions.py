"""Convolutional networks over images, windows of lines and single lines; open it for a reference model.

`PaperCnn` is the two-dimensional network of Gordon et al. 2020 (doi 10.1088/2632-2153/ab42ec, arXiv 1907.13401).
`Lrcn` is after their recurrent one over windows, on the convolutions of `trunk` instead of theirs. The paper gives
3 x 3 strides for all convolutions, which cannot fit three blocks into 128 x 128 points and is read as a stride of 1 but
for the first. Its dense layer has no width there: 128.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from assay.studies.scanlines.model.lines import normalise
from assay.studies.scanlines.network_section import ModelConfig

GROUPS = 4
LSTM_UNITS = 256
DENSE = 128


def trunk(widths: Sequence[int]) -> nn.Sequential:
    """5 x 5 then 3 x 3 convolutions of stride 2 with group norms, and mean and maximum over what is left."""
    layers: list[nn.Module] = []
    channels = 1
    for place, width in enumerate(widths):
        size = 3 if place else 5
        layers += [nn.Conv2d(channels, width, size, stride=2, padding=size // 2), nn.GroupNorm(GROUPS, width)]
        layers.append(nn.GELU())
        channels = width
    return nn.Sequential(*layers, MeanMax())


class MeanMax(nn.Module):
    """Mean and maximum over the last two axes: (B, C, H, W) to (B, 2 C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Both, side by side."""
        return torch.cat([x.mean((-2, -1)), x.amax((-2, -1))], -1)


class Cnn(nn.Module):
    """One label for an image, from strided convolutions."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        widths = config.widths or ()
        self.normalisation = config.normalisation
        self.trunk = trunk(widths)
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(2 * widths[-1], classes))

    def forward(self, lines: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, 1, K) of images (B, N, P)."""
        logits: Tensor = self.head(self.trunk(normalise(lines, self.normalisation)[:, None]))
        return logits[:, None]


class PaperCnn(nn.Module):
    """Three blocks of two convolutions and a maximum, with 32, 64 and 128 channels, and a dense head."""

    def __init__(self, config: ModelConfig, lines: int, points: int, classes: int) -> None:
        super().__init__()
        self.normalisation = config.normalisation
        layers: list[nn.Module] = []
        channels, height, width = 1, (lines + 1) // 2, (points + 1) // 2
        for place, wide in enumerate((32, 64, 128)):
            first = nn.Conv2d(channels, wide, 3, padding=1) if place else nn.Conv2d(1, wide, 7, stride=2, padding=3)
            layers += [first, nn.ReLU(), nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = wide, height // 2, width // 2
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(128 * height * width, DENSE), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(DENSE, classes)
        )

    def forward(self, lines: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, 1, K) of images (B, N, P)."""
        logits: Tensor = self.head(self.trunk(normalise(lines, self.normalisation)[:, None]))
        return logits[:, None]


class SingleLine(nn.Module):
    """A label for every line alone; after n lines the image's is the mean of their probabilities."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        self.normalisation = config.normalisation
        layers: list[nn.Module] = []
        channels = 1
        for width in config.widths or ():
            layers += [nn.Conv1d(channels, width, 5, stride=2, padding=2), nn.GroupNorm(GROUPS, width), nn.GELU()]
            channels = width
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(2 * channels, classes))

    def forward(self, lines: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Log probabilities (B, N, K) after each line of (B, N, P)."""
        x = self.trunk(normalise(lines, self.normalisation).flatten(0, 1)[:, None])
        logits = self.head(torch.cat([x.mean(-1), x.amax(-1)], -1))
        return cumulative(logits.unflatten(0, lines.shape[:2]))


class Lrcn(nn.Module):
    """A convolutional network over every window of lines, and an LSTM or a running mean over the windows."""

    def __init__(self, config: ModelConfig, classes: int) -> None:
        super().__init__()
        if config.window is None or config.window_stride is None or config.widths is None:
            raise ValueError("windows need window, window_stride and widths")
        self.normalisation, self.window, self.stride = config.normalisation, config.window, config.window_stride
        self.trunk = trunk(config.widths)
        features = 2 * config.widths[-1]
        self.lstm = nn.LSTM(features, LSTM_UNITS, batch_first=True) if config.read_out == "lstm" else None
        self.head = nn.Linear(LSTM_UNITS if self.lstm else features, classes)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, lines: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits (B, R, K) after each window of (B, N, P); with a running mean they are log probabilities."""
        windows = normalise(lines, self.normalisation).unfold(1, self.window, self.stride).transpose(2, 3)
        features = self.trunk(windows.flatten(0, 1)[:, None]).unflatten(0, windows.shape[:2])
        if self.lstm is None:
            return cumulative(self.head(self.dropout(features)))
        logits: Tensor = self.head(self.dropout(self.lstm(features)[0]))
        return logits


def cumulative(logits: Tensor) -> Tensor:
    """Log of the mean probability over the first r of R read-outs (B, R, K)."""
    count = torch.arange(1, logits.shape[1] + 1, device=logits.device)[:, None]
    return torch.logcumsumexp(logits.log_softmax(-1), 1) - count.log()
