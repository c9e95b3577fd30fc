"""Trained networks on disk and in memory; open it to load a model and classify images with it.

A model folder holds, for each member k, `member-k.safetensors`: its best weights, the parameters and facts of the
data that it was trained with, and the run's identity. It is loaded strictly.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from assay.config import resolved
from assay.config.load import build as build_config
from assay.engine.checkpoint import read_tensors, write_tensors
from assay.engine.random import derive
from assay.engine.train import Trained
from assay.errors import CheckpointError, ConfigError
from assay.studies.scanlines.config import Params
from assay.studies.scanlines.model import build

SCHEMA = 1
FOLDER = Path("results/train/model")


class Facts(NamedTuple):
    """What the data say: points of a line, class counts of the training part, digest of data and splits."""

    points: int
    counts: list[int]
    data: str


class Classifier:
    """The members of an ensemble and what they were trained with."""

    def __init__(self, modules: list[nn.Module], params: Params, facts: Facts) -> None:
        self.modules, self.params, self.facts = modules, params, facts

    @torch.no_grad()
    def probabilities(
        self, images: Tensor, batch_size: int, vote: Literal["mean", "majority"], scanned: int | None = None
    ) -> Tensor:
        """Of raw images (B, N, P) at every read-out: (B, R, K), on the CPU.

        scanned: number of their lines that have been, for models that keep attention from the others. With vote
        majority they are the shares of the members' votes; the mean probability breaks ties.
        """
        device = next(self.modules[0].parameters()).device
        parts = []
        for some in torch.split(images, batch_size):
            lengths = None if scanned is None else torch.full((len(some),), scanned, device=device)
            each = torch.stack([module(some.to(device), lengths).float().softmax(-1) for module in self.modules])
            parts.append(self._decide(each, vote).cpu())
        return torch.cat(parts)

    def _decide(self, each: Tensor, vote: Literal["mean", "majority"]) -> Tensor:
        """From probabilities of every member (M, B, R, K)."""
        mean = each.mean(0)
        if vote == "mean" or len(each) == 1:
            return mean
        votes = nn.functional.one_hot(each.argmax(-1), each.shape[-1]).float().mean(0)
        return (votes + 1e-3 * mean) / (1 + 1e-3)


def save(folder: Path, trained: Trained, params: Params, facts: Facts, identity: str) -> None:
    """Write every member's best weights with all that is needed to build it again."""
    for k in range(len(trained.best_value)):
        document = {
            "schema": SCHEMA,
            "params": resolved(params),
            "facts": facts._asdict(),
            "identity": identity,
            "best_step": trained.best_step[k],
        }
        tensors = {name: tensor[k] for name, tensor in trained.best.items()}
        write_tensors(folder / f"member-{k}.safetensors", tensors, document)
    for path in folder.glob("member-*.safetensors"):
        if int(path.stem.partition("-")[2]) >= len(trained.best_value):
            path.unlink()  # a member of an earlier, larger ensemble


def load(folder: Path, device: torch.device) -> Classifier:
    """The best weights of every member in a model folder.

    Raises:
        CheckpointError: there is no model, a file is damaged, or it does not fit the network it names.
    """
    paths = sorted(folder.glob("member-*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder}: got no member-*.safetensors; allowed: a trained model; run the train stage")
    loaded = [_member(path, device) for path in paths]
    if len({identity for *_, identity in loaded}) > 1 or len(loaded) != loaded[0][1].train.ensemble_size:
        raise CheckpointError(f"{folder}: holds members of different runs; remove it and run the train stage")
    return Classifier([module for module, *_ in loaded], loaded[0][1], loaded[0][2])


def untrained(trained: Classifier) -> Classifier:
    """The null: one network of the same kind with fresh weights, the same for every seed."""
    torch.manual_seed(derive(0, "null"))
    module = _build(trained.params, trained.facts).to(next(trained.modules[0].parameters()).device).eval()
    return Classifier([module], trained.params, trained.facts)


def _build(params: Params, facts: Facts) -> nn.Module:
    return build(params.model, params.data.lines, facts.points, params.data.classes)


def _member(path: Path, device: torch.device) -> tuple[nn.Module, Params, Facts, str]:
    tensors, document = read_tensors(path)
    params, facts = _described(path, document)
    module = _build(params, facts)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit its network ({reason}); train again") from None
    return module.to(device).eval(), params, facts, document["identity"]


def _described(path: Path, document: dict[str, Any]) -> tuple[Params, Facts]:
    try:
        if document["schema"] != SCHEMA:
            raise CheckpointError(f"{path}: got schema {document['schema']}; allowed: {SCHEMA}; train again")
        return build_config(Params, document["params"]), Facts(**document["facts"])
    except (KeyError, TypeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a model of this study and version ({reason}); train again") from None
