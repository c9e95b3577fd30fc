"""Class frequencies and what is made of them: logit adjustments, class weights, a head's first bias; open it for one.

f_c = positive / annotated voxels of class c. The adjustment is a_c = tau (ln f_c - mean_k ln f_k).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from assay.errors import DataError
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.loss_section import LossConfig

LEAST = 1e-8  # of a frequency, and of 1 - a frequency


class Frequencies(NamedTuple):
    """Of the training crops, (C,) float64 each: voxels and crops that show a class, and that are annotated for it."""

    positive: Tensor
    annotated: Tensor
    crops: Tensor
    annotated_crops: Tensor

    @property
    def shares(self) -> Tensor:
        """f (C,) float32; where nothing is annotated the geometric mean of the others, so that a is 0 there.

        Raises:
            DataError: no class is annotated at all.
        """
        known = self.annotated > 0
        if not bool(known.any()):
            raise DataError("training crops: got no annotated voxel of any class; allowed: one or more; add crops")
        shares = self.positive.clamp_min(1.0) / self.annotated.clamp_min(1.0)
        mean = shares[known].clamp(LEAST, 1 - LEAST).log().mean().exp()
        return torch.where(known, shares, mean).clamp(LEAST, 1 - LEAST).float()


def adjustment(frequencies: Tensor, tau: float) -> Tensor:
    """a (C,) of frequencies (C,)."""
    logarithms = frequencies.clamp(LEAST, 1 - LEAST).log()
    return tau * (logarithms - logarithms.mean())


def class_weights(section: LossConfig, frequencies: Frequencies) -> Tensor:
    """w (C,) float32 with mean 1; of seesaw its mitigation factors (median n / n)^p, the other ones depend on a batch.

    The effective number (1 - b^n) / (1 - b) is of crops: with voxels it is 1 / (1 - b) for every class.
    """
    shares, kind = frequencies.shares.double(), section.class_weights
    if kind == "inverse":
        weights = 1 / shares
    elif kind == "sqrt":
        weights = shares.rsqrt()
    elif kind == "log":
        weights = 1 / shares.log1p()
    elif kind == "effective" and section.effective_beta is not None:
        beta = section.effective_beta
        weights = (1 - beta) / (1 - beta ** frequencies.crops.double().clamp_min(1.0))
    elif kind == "manual" and section.manual_weights is not None:
        weights = torch.tensor(section.manual_weights, dtype=torch.float64)
    elif kind == "seesaw" and section.seesaw is not None:
        weights = (shares.quantile(0.5) / shares) ** section.seesaw[0]
    else:
        weights = torch.ones(len(shares), dtype=torch.float64)
    return (weights / weights.mean()).float()


def initialise_head(head: nn.Module, frequencies: Tensor) -> None:
    """Set a last layer's bias (C,) to ln(f / (1 - f)), so that an untrained network predicts the class frequencies.

    Raises:
        DataError: the layer has no bias, or not one per class.
    """
    bias = getattr(head, "bias", None)
    if not isinstance(bias, Tensor) or bias.shape != frequencies.shape:
        found = "none" if not isinstance(bias, Tensor) else f"{len(bias)} numbers"
        raise DataError(f"bias of the head: got {found}; allowed: {len(CLASSES)} numbers, one per class")
    with torch.no_grad():
        bias.copy_(frequencies.clamp(LEAST, 1 - LEAST).logit())


class Prior(nn.Module):
    """Class frequencies as a buffer of the loss, so that a checkpoint keeps them: fixed, or a running mean.

    The running one starts at 1 positive of 100 voxels. Every `every` batches a class with an annotated voxel in that
    batch moves: P <- m P + (1 - m) max(1, positives), T <- m T + (1 - m) annotated; f = P / T.
    """

    positive: Tensor
    annotated: Tensor
    calls: Tensor

    def __init__(self, section: LossConfig, frequencies: Tensor) -> None:
        super().__init__()
        self.momentum, self.every = section.prior_momentum, section.prior_every
        running = self.every is not None
        self.register_buffer("positive", torch.ones(len(frequencies)) if running else frequencies.float().clone())
        self.register_buffer("annotated", torch.full((len(frequencies),), 100.0 if running else 1.0))
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    @property
    def frequencies(self) -> Tensor:
        """f (C,)."""
        return (self.positive / self.annotated).clamp(LEAST, 1 - LEAST)

    @torch.no_grad()
    def observe(self, positives: Tensor, annotated: Tensor) -> None:
        """Take in a batch's voxels (C,), summed over the ranks; nothing happens to fixed frequencies."""
        if self.every is None or self.momentum is None:
            return
        self.calls += 1
        moves = (self.calls % self.every == 0) & (annotated > 0)
        for buffer, seen in ((self.positive, positives.clamp_min(1.0)), (self.annotated, annotated)):
            buffer.copy_(torch.where(moves, buffer * self.momentum + seen * (1 - self.momentum), buffer))
