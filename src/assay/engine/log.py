"""Where losses and metrics go while training: TensorBoard and DVCLive; open it when a curve is missing.

Rows live in the checkpoint. A resumed run replays them into fresh files, so curves have neither gaps nor repeats.
"""

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

Row = dict[str, float]


class TrainingLog:
    """Scalars by step, written under `folder`/tensorboard and `folder`/live. Keys look like `train/loss`."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._board: Any = None
        self._live: Any = None

    def __enter__(self) -> "TrainingLog":
        if self.folder is not None:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            from dvclive.live import Live
            from torch.utils.tensorboard import SummaryWriter

            for name in ("tensorboard", "live"):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            self._board = SummaryWriter(str(self.folder / "tensorboard"))
            self._live = Live(str(self.folder / "live"), save_dvc_exp=False, dvcyaml=None, monitor_system=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board is not None:
            self._board.close()
            self._live.end()

    def replay(self, rows: list[Row]) -> None:
        """Write the rows of earlier attempts again."""
        for row in rows:
            self.write(row)

    def write(self, row: Row) -> None:
        """Log a row at its optimiser step; steps must not decrease."""
        if self._board is None:
            return
        step = self._live.step = int(row["step"])
        for key, value in sorted(row.items()):  # a restored row is sorted, and files are compared by their bytes
            if key == "step":
                continue
            self._board.add_scalar(key, value, step)
            self._live.log_metric(key, value)
        self._live.make_summary()
