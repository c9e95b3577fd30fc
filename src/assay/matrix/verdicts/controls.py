"""Is an arm better than the controls beside it? Open it to see what makes a verdict inadmissible for that."""

import math
from collections.abc import Sequence
from statistics import mean

from assay.matrix.cells import CellResult
from assay.matrix.study import StudyConfig

SAYS = {"null": "its own untrained network", "constant": "a constant"}
"""Controls that any trained network has to beat. A classical method may well be better: that is a result."""


def failed_controls(config: StudyConfig, cells: Sequence[CellResult]) -> dict[str, str]:
    """Arm to the reason why nothing follows from it, for arms that are no better than a control in the first metric.

    Means over the complete runs where both numbers are finite.
    """
    if not config.metrics:
        return {}
    metric, rule = next(iter(config.metrics.items()))
    found: dict[str, str] = {}
    for control, words in SAYS.items():
        named = getattr(config.controls, control)
        for arm in dict.fromkeys(cell.arm for cell in cells if named):
            pairs = [
                (cell.metrics[metric], cell.metrics[named])
                for cell in cells
                if cell.arm == arm and all(math.isfinite(cell.metrics.get(name, math.nan)) for name in (metric, named))
            ]
            if pairs and not _better(mean(p[0] for p in pairs), mean(p[1] for p in pairs), rule.direction):
                found.setdefault(arm, f"no better than {words} in {metric}")
    return found


def _better(value: float, other: float, direction: str) -> bool:
    return value < other if direction == "min" else value > other
