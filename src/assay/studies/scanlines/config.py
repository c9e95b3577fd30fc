"""The parameters of the scanlines study, and what each stage reads of them; sections.py has the single keys.

`STAGES` names the stages in order and the sections or dotted keys that each one reads: `dvc.yaml` lists the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from assay.config.fields import Bounds, Problem
from assay.engine.config import TrainConfig
from assay.studies.scanlines.network_section import ModelConfig, read_out_lines
from assay.studies.scanlines.sections import (
    AugmentationConfig,
    DataConfig,
    EvaluationConfig,
    LegacyConfig,
    LossConfig,
    WatchConfig,
)

STAGES: dict[str, tuple[str, ...]] = {
    "simulate": ("data",),
    "train": ("seed", "data", "augmentation", "model", "loss", "train", "legacy"),
    "validate": ("data", "evaluation"),
    "watch": ("watch",),
}
STACKABLE = ("line_encoder", "causal", "cnn", "paper_cnn", "single_line")
"""Architectures whose members are trained in one pass."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of the scanlines study: which state is the tip in, and after how many lines can one tell?"""

    seed: Annotated[int, Bounds(ge=0)]
    """Replicate: changes initial weights, order and augmentation; the data stay."""
    data: DataConfig
    """Images."""
    augmentation: AugmentationConfig
    """Training images."""
    model: ModelConfig
    """The network."""
    loss: LossConfig
    """The training objective."""
    train: TrainConfig
    """Budget, optimiser, precision."""
    evaluation: EvaluationConfig
    """The test part."""
    legacy: LegacyConfig
    """Published defects as switches."""
    watch: WatchConfig
    """A scan while it is made."""

    def conflicts(self) -> Iterator[Problem]:
        """Contradictions between sections."""
        yield from self._order_conflicts()
        lines = self.data.lines
        if self.evaluation.lines_seen[-1] != lines:
            yield Problem("evaluation.lines_seen", str(self.evaluation.lines_seen[-1]), f"data.lines {lines} at last")
        if len(self.evaluation.merge) != self.data.classes:
            given, allowed = f"{len(self.evaluation.merge)} classes", f"{self.data.classes}, those of data.merge"
            yield Problem("evaluation.merge", given, allowed, "give the judged class of each")
        if self.model.window is not None and self.model.window > lines:
            yield Problem("model.window", str(self.model.window), f"<= {lines}, data.lines")
        if self.train.ensemble_size > 1 and self.model.architecture not in STACKABLE:
            given, allowed = str(self.train.ensemble_size), f"1 with model.architecture {self.model.architecture}"
            yield Problem("train.ensemble_size", given, allowed, f"members are stacked of {', '.join(STACKABLE)}")
        if self.train.ensemble_size > 1 and self.model.backend == "xformers":
            allowed = f"sdpa, naive with train.ensemble_size {self.train.ensemble_size}"
            yield Problem("model.backend", "xformers", allowed, "its kernels cannot be stacked")
        yield from self._data_conflicts()
        if self.augmentation.truncate is not None and self.augmentation.truncate > lines:
            yield Problem("augmentation.truncate", str(self.augmentation.truncate), f"<= {lines}, data.lines")
        if self.evaluation.change_from > lines:
            yield Problem("evaluation.change_from", str(self.evaluation.change_from), f"<= {lines}, data.lines")
        if self.legacy.weights_from_all and not self.loss.class_weights and not self.loss.logit_adjustment:
            allowed = "false without loss.class_weights and loss.logit_adjustment"
            yield Problem("legacy.weights_from_all", "true", allowed, "nothing would be weighted")

    def _data_conflicts(self) -> Iterator[Problem]:
        """Keys that want simulated images, with images of the user's."""
        source = self.data.source
        if self.augmentation.redraw and source != "simulated":
            yield Problem("augmentation.redraw", "true", f"false with data.source {source}", "nothing draws them")
        if self.loss.line_targets == "switch" and source != "simulated":
            remedy = "its files do not say where a tip changes"
            yield Problem("loss.line_targets", "switch", f"image with data.source {source}", remedy)

    def _order_conflicts(self) -> Iterator[Problem]:
        """Keys that make sense only for models that read lines in order, or only for the others."""
        name, per_line = self.model.architecture, self.model.per_line
        for key in ("first_line", "rising", "line_targets"):
            given = getattr(self.loss, key)
            if per_line and given is None:
                yield Problem(
                    f"loss.{key}", "null", f"a value with model.architecture {name}", "it reads out each line"
                )
            if not per_line and given is not None:
                allowed = f"null with model.architecture {name}"
                yield Problem(f"loss.{key}", str(given).lower(), allowed, "it has one read-out")
        last = max(read_out_lines(self.model, self.data.lines), default=self.data.lines)
        if per_line and self.loss.first_line is not None and self.loss.first_line > last:
            yield Problem("loss.first_line", str(self.loss.first_line), f"<= {last}, the last line that is read out")
        for key, off in (("flip_vertical", False), ("truncate", None)):
            given = getattr(self.augmentation, key)
            if per_line and given != off:
                word = "false" if off is False else "null"
                allowed = f"{word} with model.architecture {name}"
                yield Problem(f"augmentation.{key}", str(given).lower(), allowed, "it reads lines in order")


def describe(params: Params) -> str:
    """What a parameter file would run, in one line."""
    model, data, train = params.model, params.data, params.train
    network = f"{model.architecture}{f' on {model.tokenizer} tokens' if model.tokenizer else ''}"
    network += f" x {train.ensemble_size}" if train.ensemble_size > 1 else ""
    start = f"{network}, {data.classes} classes"
    if data.images is None and train.steps is None:
        return f"{start}: {train.epochs:g} epochs of {data.file}, seed {params.seed}"
    samples = round((data.images or 0) * (1 - data.validation_fraction - data.test_fraction))
    steps = train.total_steps(samples)
    seen = steps * train.samples_per_step
    epochs = f", {seen / samples:.3g} epochs" if samples else ""
    return f"{start}: {steps} steps, {seen} samples{epochs}, seed {params.seed}"
