"""The training objective's section of the organelles study's parameters; open it for a term, a weight or a prior.

Field docstrings are the help text and the JSON Schema's descriptions. Compared objectives are weights of the terms:
BCE + Dice + focal is tversky 0.5 with alpha and beta 0.5, bce 0.3, focal 0.2.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from assay.config.fields import Bounds, Problem
from assay.studies.organelles.classes import CLASSES

Weight = Annotated[float, Bounds(ge=0)]
PerClass = Annotated[tuple[float, ...], Bounds(ge=0, items=1)]
TERMS = ("tversky", "bce", "focal", "marginal", "exclusion")
PUBLISHED: dict[str, Any] = {
    "tversky": 1.0,
    "bce": 0.0,
    "focal": 0.0,
    "marginal": 0.0,
    "exclusion": 0.0,
    "adjust": "subtract",
    "prior": "running",
    "prior_momentum": 0.99,
    "prior_every": 50,
    "pooling": "batch",
    "smooth": 1e-6,
    "min_voxels": 10,
    "tau": 1.0,
    "alpha": (0.6,),
    "beta": (0.4,),
    "class_weights": "none",
}
"""What `as_published` stands for."""


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The training objective, of annotated voxels only."""

    tversky: Weight
    """Weight of 1 - TP / (TP + alpha FP + beta FN), a mean over classes; Dice with alpha and beta 0.5."""
    bce: Weight
    """Weight of the binary cross-entropy, a mean over annotated voxels and classes."""
    focal: Weight
    """Weight of the focal loss (Lin et al. 2017), a mean over annotated voxels and classes."""
    marginal: Weight
    """Weight of a softmax's cross-entropy in which classes that are not annotated count as other (Shi et al. 2021)."""
    exclusion: Weight
    """Weight of the overlap of classes that are not annotated with those that are (Shi et al. 2021)."""
    alpha: PerClass
    """Weight of false positives (tversky): one, or one per class."""
    beta: PerClass
    """Weight of false negatives (tversky): one, or one per class."""
    smooth: Annotated[float, Bounds(gt=0)]
    """Added to both sides of the Tversky ratio, voxels."""
    pooling: Literal["batch", "sample"]
    """Counts over the whole batch of all ranks, or of each sample, whose losses are averaged (tversky)."""
    min_voxels: Annotated[int, Bounds(ge=1)]
    """Annotated voxels below which a class is left out of the mean (tversky)."""
    focal_alpha: Annotated[float, Bounds(ge=0, le=1)]
    """Weight of positives (focal)."""
    focal_gamma: Weight
    """Exponent on the error (focal)."""
    adjust: Literal["none", "add", "subtract", "post-hoc"]
    """What tau log prior does: nothing; is added to logits in training (Ren et al. 2020); subtracted there, which is
    the other sign; or subtracted at prediction (Menon et al. 2021)."""
    tau: Weight
    """Strength of the adjustment."""
    prior: Literal["fixed", "running"]
    """Class frequencies of the training crops' annotated voxels, or a running mean over batches."""
    prior_momentum: Annotated[float, Bounds(ge=0, lt=1)] | None
    """Share that stays at an update (running)."""
    prior_every: Annotated[int, Bounds(ge=1)] | None
    """Batches between updates (running)."""
    class_weights: Literal["none", "inverse", "sqrt", "log", "effective", "manual", "seesaw"]
    """Weights w of the classes (tversky, bce, focal): 1/f; 1/sqrt f; 1/ln(1 + f); effective number of crops (Cui et al.
    2019); those given; seesaw's mitigation and, of tversky, compensation factors (Wang et al. 2021)."""
    effective_beta: Annotated[float, Bounds(ge=0, lt=1)] | None
    """beta of the effective number (effective)."""
    manual_weights: PerClass | None
    """One per class (manual)."""
    seesaw: Annotated[tuple[float, float], Bounds(ge=0)] | None
    """Exponents p of the mitigation and q of the compensation (seesaw)."""
    as_published: bool
    """The published study's loss with its defects: the prior also moves in validation."""

    def conflicts(self) -> Iterator[Problem]:
        """No term at all, keys that would not be read, lists of another length than that of the classes."""
        if not any(self.terms.values()):
            yield Problem("tversky", "0", "one of " + ", ".join(TERMS) + " above 0", "choose a term")
        yield from self._length_conflicts()
        readers = {
            "prior_momentum": self.prior == "running",
            "prior_every": self.prior == "running",
            "effective_beta": self.class_weights == "effective",
            "manual_weights": self.class_weights == "manual",
            "seesaw": self.class_weights == "seesaw",
        }
        for key, read in readers.items():
            value = getattr(self, key)
            if read and value is None:
                yield Problem(key, "null", "a value with these settings", "choose one")
            if not read and value is not None:
                yield Problem(key, str(value), "null with these settings", "it would not be read")
        yield from self._published_conflicts()
        yield from self._idle_conflicts()
        if self.marginal > 0 and self.adjust != "none":
            yield Problem("adjust", self.adjust, "none with marginal above 0", "it is defined for sigmoids here")

    def _length_conflicts(self) -> Iterator[Problem]:
        for key in ("alpha", "beta", "manual_weights"):
            value = getattr(self, key)
            single = key != "manual_weights"
            if value is not None and len(value) != len(CLASSES) and not (single and len(value) == 1):
                allowed = f"{'1 or ' if single else ''}{len(CLASSES)} numbers"
                yield Problem(key, f"{len(value)} numbers", allowed, "in the order " + ", ".join(CLASSES))
        if self.manual_weights is not None and not any(self.manual_weights):
            yield Problem("manual_weights", "zeros", "one or more above 0", "leave out classes with 0, not all of them")
        if any(a + b == 0 for a, b in zip(self.alphas, self.betas, strict=False)):
            yield Problem("beta", "0", "above 0 where alpha is 0", "the loss would not see mistakes")

    def _idle_conflicts(self) -> Iterator[Problem]:
        """Choices that no term and no adjustment would read."""
        if self.prior == "running" and self.adjust == "none":
            yield Problem("prior", "running", "fixed with adjust none", "it would not be read")
        if self.class_weights != "none" and not (self.tversky or self.bce or self.focal):
            allowed = "none with tversky, bce and focal 0"
            yield Problem("class_weights", self.class_weights, allowed, "the other terms have none")
        elif self.class_weights == "seesaw" and not self.tversky:
            yield Problem("class_weights", "seesaw", "others with tversky 0", "only that term has its compensation")

    def _published_conflicts(self) -> Iterator[Problem]:
        for key, value in PUBLISHED.items():
            if self.as_published and getattr(self, key) != value:
                yield Problem(key, str(getattr(self, key)), f"{value} with as_published true", "or set that to false")

    @property
    def terms(self) -> dict[str, float]:
        """Weight of each term."""
        return {name: getattr(self, name) for name in TERMS}

    @property
    def alphas(self) -> tuple[float, ...]:
        """alpha of every class."""
        return self.alpha * len(CLASSES) if len(self.alpha) == 1 else self.alpha

    @property
    def betas(self) -> tuple[float, ...]:
        """beta of every class."""
        return self.beta * len(CLASSES) if len(self.beta) == 1 else self.beta
