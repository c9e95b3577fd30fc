"""What a network does to raw lines first: normalise them, and keep what that removes; open it for a z-score."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

FLAT = 1e-5  # a line whose sd is this share of its largest height is constant but for rounding
MEDIAN_OVER = 16  # lines
LARGEST = 5.0  # of a statistic; a lost line has a log sd of minus infinity


def normalise(x: Tensor, kind: Literal["none", "line", "image"]) -> Tensor:
    """Images (B, N, P) with mean 0 and sd 1 (unbiased) of every line or of the image; a constant line becomes 0."""
    if kind == "none":
        return x
    over = (-1,) if kind == "line" else (-2, -1)
    mean = x.mean(over, keepdim=True)
    sd = x.std(over, keepdim=True)
    flat = sd <= FLAT * x.abs().amax(over, keepdim=True)
    return torch.where(flat, 0.0, (x - mean) / torch.where(flat, 1.0, sd))


def moments(x: Tensor) -> Tensor:
    """Mean and sd of every line of (B, N, P), (B, N, 2), in the unit of x."""
    return torch.stack([x.mean(-1), x.std(-1)], -1)


def relative(history: Tensor, lines: int) -> Tensor:
    """Offset and log contrast (B, lines, 2) of the last `lines` lines against the median of up to 16 lines until each.

    history (B, M, 2): mean and sd of M >= lines lines in order, those before the scan being NaN. The offset is in
    units of the median sd.
    """
    wanted = lines + MEDIAN_OVER - 1
    padded = functional.pad(history, (0, 0, max(wanted - history.shape[1], 0), 0), value=torch.nan)[:, -wanted:]
    median = padded.unfold(1, MEDIAN_OVER, 1).nanmedian(-1).values
    now = padded[:, -lines:]
    scale = median[..., 1].clamp_min(1e-30)
    offset = (now[..., 0] - median[..., 0]) / scale
    contrast = (now[..., 1] / scale).clamp_min(1e-3).log()
    return torch.stack([offset, contrast], -1).clamp(-LARGEST, LARGEST)
