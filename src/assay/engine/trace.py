"""A training run that keeps a trace of every step, for `assay verify` to compare; open it to see what is compared.

    FILE             one JSON object a line: step, digest of every tensor of the state, every number of the state
    FILE/../objects  the tensors, a file for each digest: what runs have in common is kept once

What is compared is what a checkpoint holds, and the metrics logged so far are part of that.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from assay.engine.checkpoint import CheckpointFolder
from assay.engine.config import TrainConfig
from assay.engine.distributed import Group
from assay.engine.log import TrainingLog
from assay.engine.stop import StopRequest
from assay.engine.task import Batch, Task
from assay.engine.train import train
from assay.errors import Unfinished

TRACE, STEPS, UNTIL = "ASSAY_TRACE", "ASSAY_TRACE_STEPS", "ASSAY_TRACE_UNTIL"
"""Environment variables: the file a training run is traced to, the steps compared, the one after which it stops."""

Trace = dict[int, dict[str, str]]
"""Step -> name -> digest of a tensor (`tensor:...`), or the JSON text of a number."""
DIGEST = "tensor:"


class _TracedFolder(CheckpointFolder):
    """Checkpoints of which each is also a line of the trace."""

    def __init__(self, checkpoints: CheckpointFolder, path: Path) -> None:
        super().__init__(checkpoints.folder, checkpoints.identity)
        self.path, self.objects = path, path.parent / "objects"
        self.objects.mkdir(exist_ok=True)
        self.step = 0

    def save(self, step: int, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Save, and note the step."""
        super().save(step, tensors, document)
        if step == self.step:
            return  # the loop saves the step at which it is stopped once more
        digests = {name: self._keep(tensor.detach().cpu().contiguous()) for name, tensor in tensors.items()}
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "tensors": digests, "document": document}) + "\n")
        self.step = step

    def _keep(self, tensor: Tensor) -> str:
        total = hashlib.blake2b(f"{tensor.dtype}:{tuple(tensor.shape)}".encode(), digest_size=16)
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        path = self.objects / total.hexdigest()
        if not path.exists():
            save_file({"tensor": tensor}, path)
        return total.hexdigest()


class _StopAfter(StopRequest):
    """The request to stop that comes once a step has been saved."""

    def __init__(self, folder: _TracedFolder, until: int) -> None:
        super().__init__()
        self.folder, self.until = folder, until

    @property
    def requested(self) -> bool:
        """Whether the step has been saved."""
        return self.folder.step >= self.until


def train_traced(
    task: Task[Batch], config: TrainConfig, seed: int, checkpoints: CheckpointFolder, group: Group | None = None
) -> NoReturn:
    """Train as the environment says and leave only the trace. Logs every step, validates halfway at the latest.

    Raises:
        Unfinished: always, so that a stage writes no results.
    """
    steps, until = int(os.environ[STEPS]), int(os.environ[UNTIL])
    often = min(config.validate_every, steps // 2)
    config = dataclasses.replace(config, checkpoint_every=1, log_every=1, validate_every=often)
    folder = _TracedFolder(checkpoints, Path(os.environ[TRACE]))
    train(task, config, seed, folder, TrainingLog(None), _StopAfter(folder, until), group)
    raise Unfinished(f"train: the whole budget of {folder.step} steps has been traced")


def read_trace(path: Path) -> Trace:
    """The steps of a trace, in order."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return {
        line["step"]: {name: DIGEST + digest for name, digest in line["tensors"].items()} | _flat(line["document"])
        for line in lines
    }


def read_object(folder: Path, digest: str) -> Tensor:
    """The tensor of a digest, from the folder of the traces."""
    return load_file(folder / "objects" / digest.removeprefix(DIGEST))["tensor"]


def _flat(value: Any, name: str = "") -> dict[str, str]:
    """The leaves of a JSON document by their slash-separated names."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {leaf: text for key, below in items for leaf, text in _flat(below, f"{name}/{key}").items()}
    return {name.removeprefix("/"): json.dumps(value)}
