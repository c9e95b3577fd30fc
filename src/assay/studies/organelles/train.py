"""Stage train: fit the network, alone or as one of several processes; write the model, the prior, and its curves."""

import json
from math import prod
from pathlib import Path

from assay import progress
from assay.config import code_digest, config_digest
from assay.engine.distributed import join
from assay.engine.session import checkpoint_folder, run_training
from assay.engine.train import Trained
from assay.files import write_bytes, write_csv
from assay.studies.organelles import networks
from assay.studies.organelles.cache import open_crops
from assay.studies.organelles.classes import CLASSES
from assay.studies.organelles.config import STAGES, Params
from assay.studies.organelles.prior import Frequencies, adjustment, class_weights
from assay.studies.organelles.splits import open_split
from assay.studies.organelles.task import OrganelleTask

OUT = Path("results/train")


def run(params: Params, out: Path = OUT) -> None:
    """Train from the newest checkpoint of this very run, if there is one; write `model`, `metrics.json`, logs.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        DataError: the crops are missing, damaged, or were made with other parameters.
        ConfigError: a package that the network needs is not installed, or the ranks cannot train this together.
    """
    group = join(params.train.device)
    with progress.phase("load", 1, unit="data sets"):
        crops = open_crops(params.data)
        split = open_split(params.data, crops.names)
        task = OrganelleTask(params, crops, split, group)
    data = f"{crops.digest}-{split.digest}"
    identity = config_digest(
        params, STAGES["train"], code=code_digest("organelles"), data=data, device=group.device.type
    )
    progress.announce("organelles", "train", identity=identity, data=data)
    checkpoints = checkpoint_folder("organelles-train", identity)
    trained = run_training(task, params.train, params.seed, checkpoints, out / "log", group)
    if not group.leads:
        return
    networks.save(out / "model", trained, params, networks.facts(task.frequencies, data), identity)
    numbers = metrics(trained, prod(params.sampling.patch))
    write_bytes(out / "metrics.json", (json.dumps(numbers, indent=2) + "\n").encode())
    write_classes(out / "classes.csv", params, task.frequencies)
    checkpoints.complete()


def metrics(trained: Trained, voxels: int) -> dict[str, float]:
    """The budget spent, the validation score that the best weights reached, and at which step."""
    return {
        "validation_dice": trained.best_value[0],
        "best_step": trained.best_step[0],
        "steps": trained.steps,
        "samples": trained.samples,
        "voxels": trained.samples * voxels,
        "epochs": trained.epochs,
    }


def write_classes(path: Path, params: Params, frequencies: Frequencies) -> None:
    """What the training crops show of every class, tau log prior of that, and the weight of the class in the loss.

    The adjustment is that of these frequencies whether `loss.adjust` uses it or not; of a running prior the log has it.
    """
    columns = ("class", "crops", "annotated_crops", "voxels", "annotated_voxels", "frequency", "adjustment", "weight")
    shares = frequencies.shares
    made = shares, adjustment(shares, params.loss.tau), class_weights(params.loss, frequencies)
    numbers = (frequencies.crops, frequencies.annotated_crops, frequencies.positive, frequencies.annotated, *made)
    rows = zip(CLASSES, *(each.tolist() for each in numbers), strict=True)
    write_csv(path, columns, rows)
