"""Loss curves that runs have left behind, as DVCLive writes them: columns step and loss; open it for what is drawn."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assay.matrix.cells import LOSSES
from assay.reports.summary import ArmSummary

POINTS = 400
"""More could not be told apart."""


@dataclass(frozen=True)
class Curve:
    """One seed's trace of one stage."""

    steps: list[float]
    losses: list[float]


def read_curves(arms: Iterable[ArmSummary]) -> dict[str, dict[str, list[Curve]]]:
    """Arm -> stage -> one curve per seed; arms without any are left out."""
    found: dict[str, dict[str, list[Curve]]] = {}
    for arm in arms:
        for cell in arm.cells:
            for path in sorted(cell.folder.glob(LOSSES)):
                curve = read_curve(path)
                if curve.steps:
                    stage = path.relative_to(cell.folder).parts[1]
                    found.setdefault(arm.arm, {}).setdefault(stage, []).append(curve)
    return found


def read_curve(path: Path) -> Curve:
    """Finite losses by step, thinned; none from a file of another shape."""
    steps, losses = [], []
    try:
        for row in csv.DictReader(path.read_text(errors="replace").splitlines(), delimiter="\t"):
            step, loss = float(row["step"]), float(row["loss"])
            if math.isfinite(loss):
                steps.append(step)
                losses.append(loss)
    except (OSError, KeyError, TypeError, ValueError):
        return Curve([], [])
    stride = max(1, len(steps) // POINTS)
    return Curve(steps[::stride], losses[::stride])
