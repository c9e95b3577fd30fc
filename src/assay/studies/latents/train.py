"""Stage train: fit the network or ensemble, write the model and its loss curves."""

import json
from pathlib import Path

from assay import progress
from assay.config import code_digest, config_digest
from assay.engine.precision import pick_device
from assay.engine.session import checkpoint_folder, run_training
from assay.engine.train import Trained
from assay.files import write_bytes
from assay.studies.latents.config import STAGES, Params
from assay.studies.latents.dataset import Recording
from assay.studies.latents.task import LatentsTask
from assay.studies.latents.trained import save_trained

OUT = Path("results/train")


def run(params: Params, out: Path = OUT) -> None:
    """Train from the newest checkpoint of this very run, if there is one; write `model`, `metrics.json`, logs.

    `compile.json` has the mode of torch.compile that was asked for, the one used, and why if they differ.

    Raises:
        Unfinished: stopped on request, with a checkpoint.
        DataError: the recording is missing, damaged, or was made with other parameters.
    """
    device = pick_device(params.train.device)
    with progress.phase("load", 1, unit="recordings"):
        recording = Recording(params)
        task = LatentsTask(params, recording, device)
    code = code_digest("latents")
    identity = config_digest(params, STAGES["train"], code=code, data=recording.digest, device=device.type)
    progress.announce("latents", "train", identity=identity, data=recording.digest)
    checkpoints = checkpoint_folder("latents-train", identity)
    trained = run_training(task, params.train, params.seed, checkpoints, out / "log")
    save_trained(out / "model", trained, params, task, identity)
    write_bytes(out / "metrics.json", (json.dumps(metrics(trained), indent=2) + "\n").encode())
    compilation = {"wanted": params.train.compile, "used": trained.compiled, "reason": trained.fallback}
    write_bytes(out / "compile.json", (json.dumps(compilation, indent=2) + "\n").encode())
    checkpoints.complete()


def metrics(trained: Trained) -> dict[str, float]:
    """The budget spent, the validation error (mean over members) of the kept weights, and the last losses by term."""
    return {
        "validation_mse": sum(trained.best_value) / len(trained.best_value),
        "steps": trained.steps,
        "samples": trained.samples,
        "epochs": trained.epochs,
        **{name.replace("/", "_"): value for name, value in trained.rows[-1].items() if name.startswith("train/")},
    }
