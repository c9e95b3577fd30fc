"""Checkpoints that a complete run needs no more; open it when they take room, or are gone too early.

The names are the engine's (assay/engine/checkpoint.py), which is not imported: a supervisor has no use for torch.
"""

from contextlib import suppress
from pathlib import Path

COMPLETE = "complete"
"""In a folder of checkpoints: the model that they led to has been written."""
MADE = ("step-*.safetensors", ".*.tmp", "lock", COMPLETE)
"""What the engine writes there, the mark last: whoever is killed in between leaves the rest to the next end."""


def drop_complete(folder: Path) -> None:
    """Remove what trainings marked as complete have left below a folder; what anybody else put there stays."""
    with suppress(OSError):  # what cannot be removed takes room, and harms nothing
        for mark in list(folder.glob(f"*/{COMPLETE}")):
            for path in [path for pattern in MADE for path in mark.parent.glob(pattern)]:
                path.unlink()
            _remove_empty(mark.parent)
        _remove_empty(folder)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
