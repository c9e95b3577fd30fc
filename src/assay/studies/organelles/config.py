"""The parameters of the organelles study, and what each stage reads of them; the *section.py files have the keys.

`STAGES` names the stages in order and the sections or dotted keys that each one reads: `dvc.yaml` lists the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Annotated

from assay.config.fields import Bounds, Problem
from assay.engine.config import TrainConfig
from assay.studies.organelles.data_section import AugmentationConfig, DataConfig, SamplingConfig
from assay.studies.organelles.loss_section import LossConfig
from assay.studies.organelles.network_section import ModelConfig
from assay.studies.organelles.sections import CompareConfig, EvaluationConfig, MemoryConfig, PredictConfig

CROPS = (
    *(f"data.{key}" for key in ("source", "path", "volumes", "datasets", "shape", "fully_annotated", "context")),
    *(f"data.{key}" for key in ("faulty", "largest", "voxel_nm", "seed", "split", "validation_fraction", "held_out")),
)
"""What kept crops and their split are made with: all of `data` but the folder of zarr and the view of training."""
DEVICE = ("batch_size", "device")

STAGES: dict[str, tuple[str, ...]] = {
    "simulate": (*CROPS, "data.zarr"),
    "train": (
        "seed",
        *CROPS,
        "data.annotation",
        "sampling",
        "augmentation",
        "model",
        "loss",
        "train",
        "evaluation.logits",
        "evaluation.monitor_every",
        "evaluation.batch_size",
    ),
    "validate": (*CROPS, *(f"evaluation.{key}" for key in ("logits", "overlap", "every", "images", *DEVICE))),
    "predict": ("predict", "evaluation.overlap", *(f"evaluation.{key}" for key in DEVICE)),
    "memory": ("memory", "train.precision"),
    "compare": ("compare",),
}
SHARED_STAGES = ("train",)
"""Those that several processes can run together, each with its part of every batch."""
SMALL = {
    "data.volumes": 6,
    "data.shape": [32, 64, 64],
    "sampling.patch": [32, 32],
    "train.batch_size": 2,
    "evaluation.every": 16,
    "evaluation.monitor_every": 16,
    "evaluation.overlap": 0,
    "evaluation.images": 1,
}
"""Amounts with which every stage takes seconds: what `assay plan --probe` rehearses with."""


@dataclass(frozen=True, kw_only=True)
class Params:
    """Parameters of the organelles study: which network segments organelles if most labels are missing, and how?"""

    seed: Annotated[int, Bounds(ge=0)]
    """Replicate: changes initial weights, patches and augmentation; the data stay."""
    data: DataConfig
    """Crops."""
    sampling: SamplingConfig
    """Training patches."""
    augmentation: AugmentationConfig
    """What training patches go through."""
    model: ModelConfig
    """The network."""
    loss: LossConfig
    """The training objective."""
    train: TrainConfig
    """Budget, optimiser, precision."""
    evaluation: EvaluationConfig
    """Judgement."""
    predict: PredictConfig
    """A user's volume."""
    memory: MemoryConfig
    """Batch sizes for a GPU."""
    compare: CompareConfig
    """Cost of the networks of a study."""

    def conflicts(self) -> Iterator[Problem]:
        """Contradictions between sections."""
        yield from self._patch_conflicts()
        if self.train.ensemble_size > 1:
            yield Problem("train.ensemble_size", str(self.train.ensemble_size), "1", "train seeds instead")
        if self.evaluation.logits == "adjusted" and self.loss.adjust not in ("add", "subtract"):
            allowed = f"raw with loss.adjust {self.loss.adjust}"
            yield Problem("evaluation.logits", "adjusted", allowed, "the loss sees no others")
        for key in ("every", "monitor_every"):
            given = getattr(self.evaluation, key)
            if given > 1 and self.model.dimensions == 3:
                yield Problem(f"evaluation.{key}", str(given), "1 with model.dimensions 3", "volumes are judged whole")

    def _patch_conflicts(self) -> Iterator[Problem]:
        patch, shape = self.sampling.patch, self.data.shape
        unfit = self.model.unfit(patch)
        if unfit is not None:
            yield Problem("sampling.patch", str(list(patch)), unfit)
        if shape is not None and any(edge > whole for edge, whole in zip(self.sampling.edges, shape, strict=True)):
            yield Problem("sampling.patch", str(list(patch)), f"at most data.shape {list(shape)}")
        if self.augmentation.transpose and patch[-1] != patch[-2]:
            yield Problem("augmentation.transpose", "true", "false with a patch that is not square in x and y")


def describe(params: Params) -> str:
    """What a parameter file would run, in one line."""
    model, train, data = params.model, params.train, params.data
    start = f"{model.architecture} {model.dimensions}-D, {model.features} features, labels {data.annotation}"
    loss = f"prior {params.loss.adjust}" if params.loss.adjust != "none" else "no adjustment"
    edges = " x ".join(str(edge) for edge in params.sampling.patch)
    if train.steps is None:
        return f"{start}, {loss}: {train.epochs:g} epochs of patches of {edges} voxels, seed {params.seed}"
    patches = train.steps * train.samples_per_step
    seen = f"{patches} patches of {edges}, {patches * prod(params.sampling.patch) / 1e6:,.1f} million voxels"
    return f"{start}, {loss}: {train.steps} steps, {seen}, seed {params.seed}"
