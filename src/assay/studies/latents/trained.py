"""Trained networks on disk: open it to load a model, or its untrained twin.

A folder holds `member-k.safetensors` for each member k of an ensemble, the best by validation error. Each carries the
parameters, shape and digest of its recording and the identity of its run, and is loaded strictly.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from assay.config import resolved
from assay.config.load import build as build_config
from assay.engine.checkpoint import read_tensors, write_tensors
from assay.engine.random import derive
from assay.engine.train import Trained
from assay.errors import CheckpointError, ConfigError
from assay.studies.latents.config import Params
from assay.studies.latents.model import LatentModel, build
from assay.studies.latents.task import LatentsTask

SCHEMA = 2


class Loaded(NamedTuple):
    """The members of an ensemble, and what they were trained with.

    channels: of the stimulus, None without one. data: digest of the recording.
    """

    members: list[LatentModel]
    params: Params
    neurons: int
    channels: int | None
    data: str
    identity: str


def save_trained(folder: Path, trained: Trained, params: Params, task: LatentsTask, identity: str) -> None:
    """Write every member's best weights with all that is needed to build it again."""
    for k, step in enumerate(trained.best_step):
        document = {
            "schema": SCHEMA,
            "params": resolved(params),
            "neurons": task.neurons,
            "channels": task.channels,
            "data": task.data,
            "identity": identity,
            "best_step": step,
        }
        tensors = {name: tensor[k] for name, tensor in trained.best.items()}
        write_tensors(folder / f"member-{k}.safetensors", tensors, document)
    for path in folder.glob("member-*.safetensors"):
        if int(path.stem.partition("-")[2]) >= len(trained.best_step):
            path.unlink()  # a member of an earlier, larger ensemble


def load_trained(folder: Path, device: torch.device) -> Loaded:
    """The members in a folder, in evaluation mode.

    Raises:
        CheckpointError: there is no model, a file is damaged, or does not fit the network that it names.
    """
    paths = sorted(folder.glob("member-*.safetensors"))
    if not paths:
        raise CheckpointError(f"{folder}: got no member-*.safetensors; allowed: a trained model; run the train stage")
    loaded = [_load_member(path, device) for path in paths]
    first = loaded[0]
    if len({each.identity for each in loaded}) > 1:
        raise CheckpointError(f"{folder}: holds members of different runs; remove it and run the train stage")
    wanted = first.params.train.ensemble_size
    if len(loaded) != wanted:
        raise CheckpointError(f"{folder}: got {len(loaded)} members; allowed: {wanted}; run the train stage again")
    return first._replace(members=[each.members[0] for each in loaded])


def untrained(loaded: Loaded, device: torch.device) -> LatentModel:
    """The null: the same network with fresh weights."""
    torch.manual_seed(derive(loaded.params.seed, "null"))
    return build(loaded.params.model, loaded.neurons, loaded.channels).to(device).eval()


def _load_member(path: Path, device: torch.device) -> Loaded:
    tensors, document = read_tensors(path)
    described = _described(path, document)
    module = build(described.params.model, described.neurons, described.channels)
    try:
        module.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: does not fit its network ({reason}); train again") from None
    return described._replace(members=[module.to(device).eval()])


def _described(path: Path, document: Mapping[str, Any]) -> Loaded:
    """What a file says of its model, which is still to be built."""
    try:
        if document["schema"] != SCHEMA:
            raise CheckpointError(f"{path}: got schema {document['schema']}; allowed: {SCHEMA}; train again")
        params = build_config(Params, document["params"])
        return Loaded([], params, document["neurons"], document["channels"], document["data"], document["identity"])
    except (KeyError, TypeError, ConfigError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a model of this study and version ({reason}); train again") from None
