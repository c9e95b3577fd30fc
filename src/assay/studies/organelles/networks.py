"""Trained networks on disk and in memory; open it to load a model and segment a volume with it.

A model folder holds `model.safetensors`: the best weights, the parameters and facts of the data that it was trained
with, and the run's identity. It is loaded strictly.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from assay.config import resolved
from assay.config.load import build as build_config
from assay.engine.checkpoint import read_tensors, write_tensors
from assay.engine.distributed import Group
from assay.engine.random import derive
from assay.engine.train import Trained
from assay.errors import CheckpointError, ConfigError
from assay.studies.organelles.config import Params
from assay.studies.organelles.network_section import ModelConfig
from assay.studies.organelles.prior import Frequencies
from assay.studies.organelles.segmenter import Segmenter, segmenter
from assay.studies.organelles.windows import Piece, Windows

SCHEMA = 1
FOLDER = Path("results/train/model")
FILE = "model.safetensors"


class Facts(NamedTuple):
    """What the data say: voxels and crops of every class in the training part, digest of crops and split."""

    positive: list[float]
    annotated: list[float]
    crops: list[float]
    annotated_crops: list[float]
    data: str

    @property
    def frequencies(self) -> Frequencies:
        """The counts as tensors."""
        return Frequencies(*(torch.tensor(each, dtype=torch.float64) for each in self[:4]))


def facts(frequencies: Frequencies, data: str) -> Facts:
    """The counts as lists, which JSON can hold."""
    positive, annotated, crops, annotated_crops = (each.tolist() for each in frequencies)
    return Facts(positive, annotated, crops, annotated_crops, data)


class Model(NamedTuple):
    """A network in evaluation mode and what it was trained with."""

    module: Segmenter
    params: Params
    facts: Facts

    @torch.no_grad()
    def logits(self, image: Tensor, overlap: float, batch_size: int, every: int = 1) -> Iterator[Piece]:
        """Of a volume (Z, Y, X) uint8, the network's own: `module.deciding` says what is compared with 0."""
        device = next(self.module.parameters()).device
        windows = Windows(self.params.sampling.patch, overlap, batch_size, every)
        yield from windows.over(image, self.module.network, device)


def save(folder: Path, trained: Trained, params: Params, known: Facts, identity: str) -> None:
    """Write the best weights with all that is needed to build the network again."""
    document = {
        "schema": SCHEMA,
        "params": resolved(params),
        "facts": known._asdict(),
        "identity": identity,
        "best_step": trained.best_step[0],
    }
    write_tensors(folder / FILE, {name: tensor[0] for name, tensor in trained.best.items()}, document)


def load(folder: Path, device: torch.device) -> Model:
    """The best weights in a model folder.

    Raises:
        CheckpointError: there is no model, it is damaged, or it does not fit the network it names.
    """
    path = folder / FILE
    if not path.exists():
        raise CheckpointError(f"{folder}: got no {FILE}; allowed: a trained model; run the train stage")
    tensors, document = read_tensors(path)
    params, known = _described(path, document)
    module = _build(params, known)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit its network ({reason}); train again") from None
    return Model(module.to(device).eval(), params, known)


def untrained(trained: Model) -> Model:
    """The null: a network of the same kind with fresh weights, the same for every seed."""
    torch.manual_seed(derive(0, "null"))
    module = _build(trained.params, trained.facts).to(next(trained.module.parameters()).device)
    return trained._replace(module=module.eval())


def without_gpu(model: ModelConfig) -> ModelConfig:
    """A network of the same weights and operations that needs no GPU: with torch's attention in place of xformers'."""
    return replace(model, attention="sdpa") if model.attention == "xformers" else model


def _build(params: Params, known: Facts) -> Segmenter:
    """A single process's, however many trained it; without a GPU, torch's kernel takes the place of xformers'."""
    model, loss, edges = params.model, params.loss, params.sampling.patch
    model = model if torch.cuda.is_available() else without_gpu(model)
    return segmenter(model, loss, edges, known.frequencies, params.evaluation.logits, Group.alone())


def _described(path: Path, document: dict[str, Any]) -> tuple[Params, Facts]:
    try:
        if document["schema"] != SCHEMA:
            raise CheckpointError(f"{path}: got schema {document['schema']}; allowed: {SCHEMA}; train again")
        return build_config(Params, document["params"]), Facts(**document["facts"])
    except (KeyError, TypeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a model of this study and version ({reason}); train again") from None
