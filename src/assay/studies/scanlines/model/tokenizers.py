"""From a line to a token; open it to see which of them keeps the lateral position, or sees the lines before.

    linear             a matrix, as published
    conv_pool          three convolutions, then the mean over the line: the lateral phase is lost; as coded there
    conv_pool_planned  the same with stride 2 and fewer channels; planned there
    conv_strided       strided convolutions, flattened: the lateral phase stays
    stem_2d            strided along the line, dilated over the lines until this one: 15 lines

All but the last see one line alone.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Rows = list[Tensor]
"""Rows before this one (B, C, (k - 1) dilation, P) that each layer of a stem keeps."""


def conv_pool(points: int, d_model: int, dropout: float) -> nn.Module:
    """1 -> d/2 (k5) -> d (k3) -> d (k3), mean over the line."""
    return nn.Sequential(
        nn.Conv1d(1, d_model // 2, 5, padding=2),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv1d(d_model // 2, d_model, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Conv1d(d_model, d_model, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )


def conv_pool_planned(points: int, d_model: int, dropout: float) -> nn.Module:
    """1 -> 32 (k7, stride 2) -> 64 (k3) -> 128 (k3), mean over the line, matrix."""
    return nn.Sequential(
        nn.Conv1d(1, 32, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv1d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv1d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(128, d_model),
    )


def conv_strided(points: int, d_model: int, dropout: float) -> nn.Module:
    """1 -> 32 (k7) -> 32 (k5) -> 32 (k3), stride 2 each, flattened, matrix."""
    width = points
    for _ in range(3):
        width = (width + 1) // 2
    return nn.Sequential(
        nn.Conv1d(1, 32, 7, stride=2, padding=3),
        nn.ReLU(),
        nn.Conv1d(32, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv1d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(32 * width, d_model),
    )


PER_LINE: dict[str, Callable[[int, int, float], nn.Module]] = {
    "conv_pool": conv_pool,
    "conv_pool_planned": conv_pool_planned,
    "conv_strided": conv_strided,
}


class LineTokenizer(nn.Module):
    """Tokens (B, N, d) of lines (B, N, P), each from its line alone."""

    def __init__(self, kind: str, points: int, d_model: int, dropout: float) -> None:
        super().__init__()
        self.linear = kind == "linear"
        self.net = nn.Linear(points, d_model) if self.linear else PER_LINE[kind](points, d_model, dropout)

    def forward(self, lines: Tensor) -> Tensor:
        """Tokens."""
        tokens: Tensor = self.net(lines if self.linear else lines.flatten(0, 1)[:, None])
        return tokens if self.linear else tokens.view(*lines.shape[:2], -1)

    def step(self, line: Tensor, rows: Rows | None) -> tuple[Tensor, Rows]:
        """The token (B, 1, d) of the next line (B, 1, P)."""
        return self(line), []


class CausalConv2d(nn.Module):
    """A convolution that is strided along the line and sees `dilation` x 2 lines before each, none after it."""

    def __init__(self, channels: int, out: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.before = 2 * dilation
        self.conv = nn.Conv2d(
            channels, out, (3, width), stride=(1, stride), padding=(0, width // 2), dilation=(dilation, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N, P) to (B, out, N, P / stride)."""
        y: Tensor = self.conv(functional.pad(x, (0, 0, self.before, 0)))
        return y

    def step(self, row: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """The next row (B, C, 1, P), and the rows to keep for the one after it."""
        if rows is None:
            rows = row.new_zeros(*row.shape[:2], self.before, row.shape[3])
        seen = torch.cat([rows, row], 2)
        return self.conv(seen), seen[:, :, 1:]


class StemTokenizer(nn.Module):
    """Tokens (B, N, d) of lines (B, N, P), each from its line and the 14 before it."""

    def __init__(self, points: int, d_model: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [CausalConv2d(1, 16, 9, 4, 1), CausalConv2d(16, 32, 3, 2, 2), CausalConv2d(32, 32, 3, 2, 4)]
        )
        width = points
        for stride in (4, 2, 2):
            width = (width + stride - 1) // stride
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(32 * width, d_model))

    def forward(self, lines: Tensor) -> Tensor:
        """Tokens."""
        x = lines[:, None]
        for layer in self.layers:
            x = functional.gelu(layer(x))
        return self._tokens(x)

    def step(self, line: Tensor, rows: Rows | None) -> tuple[Tensor, Rows]:
        """The token (B, 1, d) of the next line (B, 1, P), and the rows that each layer keeps."""
        x, kept = line[:, None], []
        earlier: Sequence[Tensor | None] = rows or [None] * len(self.layers)
        for module, before in zip(self.layers, earlier, strict=True):
            layer: CausalConv2d = module  # type: ignore[assignment]
            x, after = layer.step(x, before)
            x = functional.gelu(x)
            kept.append(after)
        return self._tokens(x), kept

    def _tokens(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.out(x.transpose(1, 2).flatten(2))
        return tokens


def build_tokenizer(kind: str, points: int, d_model: int, dropout: float) -> LineTokenizer | StemTokenizer:
    """The tokenizer of a name."""
    if kind == "stem_2d":
        return StemTokenizer(points, d_model, dropout)
    return LineTokenizer(kind, points, d_model, dropout)
