"""Terms of the objective other than Tversky, each as (weighted sum, sum of weights) so that ranks can be pooled.

Open it to change one. Logits and targets are (B, C, *spatial), NaN where nothing is known; see losses.py.
"""

import torch
from torch import Tensor
from torch.nn import functional

Parts = tuple[Tensor, Tensor]
"""A weighted sum of a loss over voxels or classes, and the sum of the weights, both scalars."""


def _known(target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Targets with 0 where nothing is known, and the weight of each voxel and class, 0 there."""
    known = ~target.isnan()
    return torch.where(known, target, 0.0), known * weights.view(-1, *(1,) * (target.ndim - 2))


def binary_cross_entropy(logits: Tensor, target: Tensor, weights: Tensor) -> Parts:
    """Of annotated voxels, with class weights (C,)."""
    truth, weight = _known(target, weights)
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (each * weight).sum(), weight.sum()


def focal(logits: Tensor, target: Tensor, weights: Tensor, alpha: float, gamma: float) -> Parts:
    """alpha_t (1 - p_t)^gamma (-ln p_t), Lin et al. 2017 (arXiv 1708.02002), with class weights (C,)."""
    truth, weight = _known(target, weights)
    each = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    # 1 - p_t = exp(ln(1 - p_t)); the logarithm keeps the gradient finite where p_t is 1
    wrong = functional.logsigmoid(torch.where(truth > 0, -logits, logits))
    balance = torch.where(truth > 0, alpha, 1 - alpha)
    return (balance * (gamma * wrong).exp() * each * weight).sum(), weight.sum()


def with_other(logits: Tensor) -> Tensor:
    """Logits (B, 1 + C, *spatial) of a softmax: 0 for other, then those of the classes."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)


def one_against_rest(logits: Tensor) -> Tensor:
    """ln p_c / (1 - p_c) (B, C, *spatial) of the softmax over other and the classes."""
    every = with_other(logits)
    shares = every.log_softmax(1)[:, 1:]
    rest = torch.log1p(-shares.exp().clamp_max(1 - 1e-7))
    return shares - rest


def marginal_cross_entropy(logits: Tensor, target: Tensor) -> Parts:
    """-ln of a softmax's probability of what is known: the class, or other together with all not annotated ones.

    Shi et al. 2021, Marginal loss and exclusion loss for partially supervised multi-organ segmentation (arXiv
    2007.03868). A voxel counts if at least one class is annotated there.
    """
    known = ~target.isnan()
    every = with_other(logits)
    share = every.logsumexp(1)
    positive = target > 0
    found = positive.any(1)
    of_class = torch.where(positive, logits, 0.0).sum(1)
    merged = torch.cat([torch.ones_like(known[:, :1]), ~known], 1)
    of_other = torch.where(merged, every, -torch.inf).logsumexp(1)
    counted = known.any(1)
    each = share - torch.where(found, of_class, of_other)
    return (each * counted).sum(), counted.sum().to(each)


def exclusion(probabilities: Tensor, target: Tensor, smooth: float = 1.0) -> Parts:
    """Dice overlap of each class that is not annotated with all positives of the others, a mean over such classes.

    Shi et al. 2021. Only voxels where some class is annotated count, and only samples that show one.
    """
    known = ~target.isnan()
    inside = known.any(1, keepdim=True)
    taken = (target > 0).any(1, keepdim=True)
    dims = tuple(range(2, target.ndim))
    guess = probabilities * (inside & ~known)
    overlap = (guess * taken).sum(dims)
    dice = (2 * overlap) / (guess.sum(dims) + taken.sum(dims) + smooth)
    missing = (inside & ~known).flatten(2).any(2)
    counted = missing & taken.flatten(1).any(1)[:, None]
    return (dice * counted).sum(), counted.sum().to(dice)
