"""What the training stages of this study have in common; open it to see what becomes of a task and its result."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from assay import progress
from assay.config import code_digest, config_digest
from assay.engine.config import TrainConfig
from assay.engine.session import checkpoint_folder, run_training
from assay.engine.task import Batch, Task
from assay.engine.train import Trained
from assay.files import write_bytes
from assay.studies.burgers import networks
from assay.studies.burgers.config import STAGES, Params

STUDY = "burgers"


@dataclass(frozen=True, kw_only=True)
class Upstream:
    """What a training stage builds upon: the digest of the data, and of the networks of earlier stages by name."""

    data: str
    networks: dict[str, str]

    @property
    def digests(self) -> dict[str, str]:
        """All of them, by name."""
        return {"data": self.data, **self.networks}


def train_stage(  # noqa: PLR0913 - one stage: what is trained, how, from what, to where
    stage: networks.Stage,
    task: Task[Batch],
    config: TrainConfig,
    params: Params,
    facts: networks.Facts,
    upstream: Upstream,
    device: torch.device,
) -> Trained:
    """Train from the newest checkpoint of this very run, if there is one; write model, metrics and logs.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
    """
    out = networks.RESULTS / stage
    code = code_digest(STUDY)
    identity = config_digest(params, STAGES[stage], code=code, device=device.type, **upstream.digests)
    progress.announce(STUDY, stage, identity=identity, data=upstream.data)
    checkpoints = checkpoint_folder(f"{STUDY}-{stage}", identity)
    trained = run_training(task, config, params.seed, checkpoints, out / "log")
    networks.save(stage, out, trained, params, facts, upstream.digests, identity)
    write_metrics(out / "metrics.json", trained, task)
    checkpoints.complete()
    return trained


def write_metrics(path: Path, trained: Trained, task: Task[Batch]) -> None:
    """Write the budget spent and the monitored value that the kept weights reached."""
    found = {
        f"validation_{task.monitor.metric}": trained.best_value[0],
        "steps": trained.steps,
        "samples": trained.samples,
        "epochs": trained.epochs,
    }
    write_bytes(path, (json.dumps(found, indent=2) + "\n").encode())
