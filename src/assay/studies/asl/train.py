"""Stage train: fit the network or ensemble, write the model and its loss curves."""

import json
from pathlib import Path

from assay import progress
from assay.config import code_digest, config_digest
from assay.engine.precision import pick_device
from assay.engine.session import checkpoint_folder, run_training
from assay.engine.train import Trained
from assay.files import write_bytes
from assay.studies.asl.config import STAGES, Params
from assay.studies.asl.source import open_source
from assay.studies.asl.task import AslTask
from assay.studies.asl.trained import save_trained

OUT = Path("results/train")


def run(params: Params, out: Path = OUT) -> None:
    """Train from the newest checkpoint of this very run, if there is one; write `model`, `metrics.json`, logs.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
    """
    device = pick_device(params.train.device)
    with progress.phase("load", 1, unit="data sets"):
        source = open_source(params, device)
    task = AslTask(params, source, device)
    identity = config_digest(params, STAGES["train"], code=code_digest("asl"), data=source.digest, device=device.type)
    progress.announce("asl", "train", identity=identity, data=source.digest)
    checkpoints = checkpoint_folder("asl-train", identity)
    trained = run_training(task, params.train, params.seed, checkpoints, out / "log")
    save_trained(out / "model", trained, params, task.statistics, identity)
    write_bytes(out / "metrics.json", (json.dumps(metrics(trained), indent=2) + "\n").encode())
    checkpoints.complete()


def metrics(trained: Trained) -> dict[str, float]:
    """The budget spent and the validation loss (mean over members) that the kept weights reached."""
    return {
        "validation_loss": sum(trained.best_value) / len(trained.best_value),
        "steps": trained.steps,
        "samples": trained.samples,
        "epochs": trained.epochs,
    }
