"""The training objective under partial annotation; open it for what a term is and which voxels it counts.

Logits and targets are (B, C, *spatial); a target is 1, 0, or NaN where the class was not annotated or the voxel lies
outside the crop. Such voxels have no gradient. Sums are of float32 and over all ranks: the loss of two ranks is that of
one rank with the whole batch. With nothing annotated a term is 0 and stays part of the graph, so no rank waits.
"""

import torch
from torch import Tensor, nn

from assay.engine.distributed import Group, total
from assay.studies.organelles.loss_section import PUBLISHED, LossConfig
from assay.studies.organelles.loss_terms import (
    binary_cross_entropy,
    exclusion,
    focal,
    marginal_cross_entropy,
    one_against_rest,
)
from assay.studies.organelles.prior import Frequencies, Prior, adjustment, class_weights

TINY = 1e-12


class Counts:
    """Soft counts (..., C) of a batch or of samples: overlap p y, predicted p, positive y, annotated m."""

    def __init__(self, probabilities: Tensor, target: Tensor, per_sample: bool) -> None:
        known = ~target.isnan()
        truth = torch.where(known, target, 0.0)
        space = tuple(range(2, target.ndim))
        dims = space if per_sample else (0, *space)
        self.overlap = (probabilities * truth).sum(dims)
        self.predicted = (probabilities * known).sum(dims)
        self.positive = truth.sum(dims)
        self.annotated = known.sum(dims).float()

    def total(self, group: Group) -> "Counts":
        """Summed over the ranks."""
        if group.world > 1:
            every = torch.stack([self.overlap, self.predicted, self.positive, self.annotated])
            self.overlap, self.predicted, self.positive, self.annotated = total(every, group).unbind()
        return self

    def tversky(self, alpha: Tensor, beta: Tensor, smooth: float) -> Tensor:
        """(TP + s) / (TP + alpha FP + beta FN + s) (..., C), with FP = predicted - TP and FN = positive - TP."""
        rest = (1 - alpha - beta) * self.overlap + alpha * self.predicted + beta * self.positive
        return (self.overlap + smooth) / (rest + smooth)

    def compensation(self, exponent: float) -> Tensor:
        """Seesaw's 1 + (FP / (FP + FN))^q, without a gradient."""
        wrong, missed = self.predicted - self.overlap, self.positive - self.overlap
        return 1 + (wrong / (wrong + missed).clamp_min(TINY)).detach().clamp(0, 1) ** exponent


def weighted_mean(values: Tensor, weights: Tensor, dim: int = -1) -> Tensor:
    """Mean along a dimension; 0 where all weights are."""
    return (values * weights).sum(dim) / weights.sum(dim).clamp_min(TINY)


class PartialTversky(nn.Module):
    """1 - Tversky as a mean over classes with `min_voxels` annotated voxels, of logits that a prior may adjust."""

    alpha: Tensor
    beta: Tensor
    weights: Tensor

    def __init__(
        self, section: LossConfig, prior: Tensor, group: Group | None = None, weights: Tensor | None = None
    ) -> None:
        """prior (C,): class frequencies, with which a running prior does not begin. weights (C,): of the classes."""
        super().__init__()
        self.section, self.group = section, group or Group.alone()
        self.prior = Prior(section, prior)
        self.register_buffer("alpha", torch.tensor(section.alphas)[: len(prior)], persistent=False)
        self.register_buffer("beta", torch.tensor(section.betas)[: len(prior)], persistent=False)
        given = torch.ones(len(prior)) if weights is None else weights
        self.register_buffer("weights", given, persistent=False)

    @property
    def adjustment(self) -> Tensor:
        """a (C,)."""
        return adjustment(self.prior.frequencies, self.section.tau)

    def adjusted(self, logits: Tensor) -> Tensor:
        """The logits in the loss, float32."""
        logits, kind = logits.float(), self.section.adjust
        if kind not in ("add", "subtract"):
            return logits
        shift = self.adjustment.view(-1, *(1,) * (logits.ndim - 2))
        return logits + shift if kind == "add" else logits - shift

    def decision(self, logits: Tensor) -> Tensor:
        """The logits that decide at prediction: above 0 is positive."""
        if self.section.adjust != "post-hoc":
            return logits
        return logits - self.adjustment.view(-1, *(1,) * (logits.ndim - 2))

    def observe(self, target: Tensor) -> None:
        """Let a running prior see a batch."""
        known = ~target.isnan()
        dims = (0, *range(2, target.ndim))
        seen = torch.stack([(target > 0).sum(dims), known.sum(dims)]).float()
        self.prior.observe(*total(seen, self.group).unbind())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar."""
        if self.section.prior == "running" and (self.training or self.section.as_published):
            self.observe(target)
        return self.of_adjusted(self.adjusted(logits), target)

    def of_adjusted(self, adjusted: Tensor, target: Tensor) -> Tensor:
        """Scalar, of logits that are adjusted already."""
        per_sample = self.section.pooling == "sample"
        counts = Counts(adjusted.sigmoid(), target, per_sample)
        if not per_sample:
            counts.total(self.group)
        weights = self.weights * (counts.annotated >= self.section.min_voxels)
        if self.section.seesaw is not None:
            weights = weights * counts.compensation(self.section.seesaw[1])
        loss = weighted_mean(1 - counts.tversky(self.alpha, self.beta, self.section.smooth), weights)
        if not per_sample:
            return loss
        some = (weights.sum(-1) > 0).float()
        summed, count = total(torch.stack([(loss * some).sum(), some.sum()]), self.group).unbind()
        return summed / count.clamp_min(1.0)


class SegmentationLoss(nn.Module):
    """The terms that a section asks for, by name and not yet weighted; its buffers are part of a checkpoint."""

    def __init__(self, section: LossConfig, frequencies: Frequencies, group: Group | None = None) -> None:
        super().__init__()
        self.section, self.group = section, group or Group.alone()
        self.terms = {name: weight for name, weight in section.terms.items() if weight > 0}
        weights = class_weights(section, frequencies)
        self.tversky = PartialTversky(section, frequencies.shares, self.group, weights)

    def forward(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """A scalar per term."""
        section, weights = self.section, self.tversky.weights
        if section.prior == "running" and (self.training or section.as_published):
            self.tversky.observe(target)
        adjusted = self.tversky.adjusted(logits)
        found: dict[str, Tensor] = {}
        if "tversky" in self.terms:
            found["tversky"] = self.tversky.of_adjusted(adjusted, target)
        if "bce" in self.terms:
            found["bce"] = self._mean(binary_cross_entropy(adjusted, target, weights))
        if "focal" in self.terms:
            parts = focal(adjusted, target, weights, section.focal_alpha, section.focal_gamma)
            found["focal"] = self._mean(parts)
        if "marginal" in self.terms:
            found["marginal"] = self._mean(marginal_cross_entropy(adjusted, target))
        if "exclusion" in self.terms:
            probabilities = one_against_rest(adjusted).sigmoid() if section.marginal > 0 else adjusted.sigmoid()
            found["exclusion"] = self._mean(exclusion(probabilities, target))
        return found

    def decision(self, logits: Tensor) -> Tensor:
        """The logits that decide at prediction: above 0 is positive; of a softmax the log odds of each class."""
        return one_against_rest(logits.float()) if self.section.marginal > 0 else self.tversky.decision(logits)

    def _mean(self, parts: tuple[Tensor, Tensor]) -> Tensor:
        summed, count = total(torch.stack(parts), self.group).unbind()
        return summed / count.clamp_min(TINY)


def build_loss(section: LossConfig, frequencies: Frequencies, group: Group | None = None) -> SegmentationLoss:
    """The objective of a section; the weights of its terms are `section.terms`."""
    return SegmentationLoss(section, frequencies, group)


def balanced_softmax_partial_tversky(  # noqa: PLR0913 - the parameters of the published one
    logits: Tensor,
    target: Tensor,
    class_frequencies: Tensor,
    tau: float = PUBLISHED["tau"],
    alpha: float = PUBLISHED["alpha"][0],
    beta: float = PUBLISHED["beta"][0],
    smooth: float = PUBLISHED["smooth"],
    min_voxels: int = PUBLISHED["min_voxels"],
) -> Tensor:
    """The published study's loss of given frequencies (C,), its sign included: tau (ln f - mean ln f) is subtracted.

    There is no softmax in it. Classes with fewer than `min_voxels` annotated voxels in the batch are left out of the
    mean; with none left it is 0 and keeps the graph, which the original did not.
    """
    shift = adjustment(class_frequencies.to(logits.device, torch.float32), tau)
    adjusted = logits.float() - shift.view(-1, *(1,) * (logits.ndim - 2))
    counts = Counts(adjusted.sigmoid(), target, per_sample=False)
    weights = torch.full_like(shift, alpha), torch.full_like(shift, beta)
    return weighted_mean(1 - counts.tversky(*weights, smooth), (counts.annotated >= min_voxels).float())
