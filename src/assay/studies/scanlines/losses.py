"""Class weights and the training objective; open it for how imbalance, labeller noise and lines are weighted."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from assay.studies.scanlines.sections import LossConfig


def class_weights(counts: Sequence[int] | Tensor) -> Tensor:
    """w_k = N / (K n_k) of K classes with n_k of N samples, (K,); 0 for a class without samples.

    Give the counts of the training part: those of all images tell the network how frequent classes are in the test.
    """
    number = torch.as_tensor(counts, dtype=torch.float64)
    weights = number.sum() / (len(number) * number)
    return torch.where(number > 0, weights, 0.0).float()


def priors(counts: Tensor) -> Tensor:
    """Shares (K,) of the classes."""
    return counts / counts.sum()


def entropy(shares: Tensor) -> float:
    """Entropy of class shares in nat: the cross-entropy of a model that has learnt the shares and nothing else."""
    seen = shares[shares > 0].double()
    return float(-(seen * seen.log()).sum())


def uninformed(classes: int) -> float:
    """Cross-entropy of a model that gives all classes the same probability, in nat."""
    return math.log(classes)


def position_weights(lines: Tensor, first_line: int | None, rising: bool | None) -> Tensor:
    """Weight (R,) of read-outs after `lines` (R,) lines: 0 before `first_line`, then 1, or rising to 1 at the last."""
    if first_line is None:
        return torch.ones_like(lines, dtype=torch.float32)
    counted = (lines >= first_line).float()
    return counted * (lines / lines.max() if rising else 1.0)


class Truth(NamedTuple):
    """Labels (B,) of images of `lines` lines, wrong ones among them; those of the first surface are always right.

    switch: the line of the tip change, `lines` where there is none, more where it lies beyond a cropped image.
    """

    labels: Tensor
    first_labels: Tensor
    switch: Tensor
    lines: int


def targets(truth: Truth, read_outs: Tensor, kind: str | None) -> Tensor:
    """Target (B, R) after each of `read_outs` (R,) lines: the image's label; until the switch, the first surface's."""
    labels, switch = truth.labels[:, None], truth.switch[:, None]
    if kind != "switch":
        return labels.expand(-1, len(read_outs))
    before = (switch != truth.lines) & (read_outs <= switch)
    return torch.where(before, truth.first_labels[:, None], labels)


def classification(
    logits: Tensor, target: Tensor, positions: Tensor, counts: Tensor, config: LossConfig
) -> dict[str, Tensor]:
    """The term `cross_entropy` of logits (B, R, K) and targets (B, R), weighted by class and by read-out (R,).

    sum w_y p_r (-log softmax(z)_y) / sum w_y p_r, as of torch's CrossEntropyLoss(weight).
    """
    weights = class_weights(counts).to(logits) if config.class_weights else None
    if config.logit_adjustment > 0:
        logits = logits + config.logit_adjustment * priors(counts).clamp_min(1e-12).log().to(logits)
    each = functional.cross_entropy(
        logits.flatten(0, 1),
        target.flatten(),
        weight=weights,
        label_smoothing=config.label_smoothing,
        reduction="none",
    ).view(target.shape)
    share = positions.expand(target.shape) if weights is None else weights[target] * positions
    return {"cross_entropy": (each * positions).sum() / share.sum()}
