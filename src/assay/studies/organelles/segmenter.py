"""A network together with its objective: one module, so that a checkpoint holds the loss's running prior too.

Open it for which logits decide. Called with targets it gives the terms of the loss, which is what DDP wants to see;
called without, the logits that are compared with 0.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from assay.engine.distributed import Group
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.loss_section import LossConfig
from assay.studies.organelles.losses import SegmentationLoss, build_loss
from assay.studies.organelles.model import build
from assay.studies.organelles.model.library import head
from assay.studies.organelles.network_section import ModelConfig
from assay.studies.organelles.prior import Frequencies, initialise_head

Logits = Literal["raw", "adjusted"]


class Segmenter(nn.Module):
    """Images (B, 1, *spatial) in 0 to 1; targets and logits (B, C, *spatial)."""

    def __init__(self, network: nn.Module, objective: SegmentationLoss, logits: Logits) -> None:
        super().__init__()
        self.network, self.objective, self.logits = network, objective, logits

    def forward(self, image: Tensor, target: Tensor | None = None) -> Tensor | dict[str, Tensor]:
        """The terms of the loss with a target, the logits that decide without."""
        logits = self.network(image)
        if target is None:
            return self.deciding(logits)
        terms: dict[str, Tensor] = self.objective(logits, target)
        return terms

    def deciding(self, logits: Tensor, kind: Logits | None = None) -> Tensor:
        """What is compared with 0, of the network's logits; of a softmax, which nothing adjusts, both kinds are one."""
        if (kind or self.logits) == "adjusted" and self.objective.section.marginal == 0:
            return self.objective.tversky.adjusted(logits)
        return self.objective.decision(logits)

    def prior(self) -> Mapping[str, float]:
        """Frequency and adjustment of every class as the objective now has them."""
        tversky = self.objective.tversky
        both = {"frequency": tversky.prior.frequencies, "adjustment": tversky.adjustment}
        return {
            f"{kind}/{name}": value
            for kind, values in both.items()
            for name, value in zip(CLASSES, values.tolist(), strict=True)
        }


def segmenter(
    model: ModelConfig, loss: LossConfig, edges: Sequence[int], frequencies: Frequencies, logits: Logits, group: Group
) -> Segmenter:
    """The network of a section with fresh weights, and its objective.

    Raises:
        ConfigError: a package that the network needs is not installed, or an attention kernel is not to be had.
        DataError: nothing is annotated.
    """
    network = build(model, len(CLASSES), edges)
    if model.prior_bias:
        initialise_head(head(network, len(CLASSES)), frequencies.shares)
    return Segmenter(network, build_loss(loss, frequencies, group), logits)
