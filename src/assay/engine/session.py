"""One training stage from config to result: where checkpoints live, who listens for signals, what is logged.

Open it when a run that should go on starts anew: checkpoints are kept outside the pipeline's outputs, in a folder
named by the run's identity, so any way of starting the same run again finds them and no other run does.
"""

import os
from pathlib import Path

from assay.engine.checkpoint import CHECKPOINTS, CheckpointFolder
from assay.engine.config import TrainConfig
from assay.engine.distributed import Group, refuse_unjoined, together
from assay.engine.log import TrainingLog
from assay.engine.stack import StackedRun, put_by
from assay.engine.stop import StopRequest
from assay.engine.task import Batch, Task
from assay.engine.trace import TRACE, train_traced
from assay.engine.train import Trained, train


def checkpoint_folder(name: str, identity: str) -> CheckpointFolder:
    """The checkpoints of the run with this identity."""
    root = Path(os.environ.get(CHECKPOINTS, ".assay/checkpoints"))
    return CheckpointFolder(root / f"{name}-{identity[:16]}", identity)


def run_training(
    task: Task[Batch],
    config: TrainConfig,
    seed: int,
    checkpoints: CheckpointFolder,
    log_folder: Path,
    group: Group | None = None,
) -> Trained:
    """Train with signals, logs and checkpoints in place; errors as of `train`. Under `assay verify` it only traces.

    group: what `distributed.join` gave, of a task that shares its batches out; all ranks call this and get the same,
    and only the one that leads may write it anywhere.

    Raises:
        CheckpointError: also if another process trains this run.
        ConfigError: also if several processes were started and the task was not given their group.
    """
    put_by(StackedRun(task=task, config=config, seed=seed, checkpoints=checkpoints))
    if group is None:
        refuse_unjoined()
    if TRACE in os.environ:
        train_traced(task, config, seed, checkpoints, group)
    if group is not None and not group.leads:
        with StopRequest() as stop, together(group):
            return train(task, config, seed, checkpoints, TrainingLog(None), stop, group)
    with (
        StopRequest() as stop,
        checkpoints.locked(),
        TrainingLog(log_folder) as log,
        together(group or Group.alone()),
    ):
        checkpoints.drop_complete()
        return train(task, config, seed, checkpoints, log, stop, group)
