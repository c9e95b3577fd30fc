"""Stage train: fit the network, write the model, what it was trained on, and its curves."""

import json
from pathlib import Path

import torch

from assay import progress
from assay.config import code_digest, config_digest
from assay.engine.precision import pick_device
from assay.engine.session import checkpoint_folder, run_training
from assay.engine.train import Trained
from assay.files import write_bytes
from assay.studies.scanlines import networks
from assay.studies.scanlines.config import STAGES, Params
from assay.studies.scanlines.dataset import open_dataset
from assay.studies.scanlines.losses import class_weights, entropy, priors, uninformed
from assay.studies.scanlines.task import ScanTask

OUT = Path("results/train")


def run(params: Params, out: Path = OUT) -> None:
    """Train from the newest checkpoint of this very run, if there is one; write `model`, `metrics.json`, logs.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        DataError: the data set is missing, damaged, or was simulated with other parameters.
        ConfigError: a package that the network needs is not installed.
    """
    device = pick_device(params.train.device)
    with progress.phase("load", 1, unit="data sets"):
        dataset = open_dataset(params.data)
        task = ScanTask(params, dataset, device)
    identity = config_digest(
        params, STAGES["train"], code=code_digest("scanlines"), data=dataset.digest, device=device.type
    )
    progress.announce("scanlines", "train", identity=identity, data=dataset.digest)
    checkpoints = checkpoint_folder("scanlines-train", identity)
    trained = run_training(task, params.train, params.seed, checkpoints, out / "log")
    facts = networks.Facts(task.points, task.own_counts.tolist(), dataset.digest)
    networks.save(out / "model", trained, params, facts, identity)
    write_bytes(out / "metrics.json", (json.dumps(metrics(trained), indent=2) + "\n").encode())
    write_bytes(out / "classes.json", (json.dumps(classes(task.own_counts, task.counts), indent=2) + "\n").encode())
    checkpoints.complete()


def metrics(trained: Trained) -> dict[str, float]:
    """The budget spent and the validation score (mean over members) that the kept weights reached."""
    return {
        "validation_balanced_accuracy": sum(trained.best_value) / len(trained.best_value),
        "steps": trained.steps,
        "samples": trained.samples,
        "epochs": trained.epochs,
    }


def classes(counts: torch.Tensor, weighed: torch.Tensor) -> dict[str, object]:
    """Counts (K,) of the training part and what a model that has learnt nothing else scores.

    weighed: the counts (K,) that the classes' weights come from, others with `legacy.weights_from_all`.
    """
    shares = priors(counts.double())
    return {
        "counts": counts.tolist(),
        "weights": [round(weight, 6) for weight in class_weights(weighed).tolist()],
        "majority_rate": float(shares.max()),
        "prior_entropy": entropy(shares),
        "uniform_entropy": uninformed(len(counts)),
    }
