"""Is an arm better than the controls beside it? Open it to see what makes a verdict inadmissible for that."""

import math
from collections.abc import Sequence
from statistics import mean

from assay.matrix.cells import CellResult
from assay.matrix.study import StudyConfig

SAYS = {"null": "its own untrained network", "constant": "a constant"}
"""Controls that any trained network has to beat. A classical method may well be better: that is a result."""


def failed_controls(config: StudyConfig, cells: Sequence[CellResult]) -> dict[str, str]:
    """Arm to the reason why nothing follows from it: no better than a control in the first metric, or not compared.

    Means over the complete runs with the metric. One without the control that the study names was not compared with it.
    """
    if not config.metrics:
        return {}
    metric, rule = next(iter(config.metrics.items()))
    complete = [cell for cell in cells if math.isfinite(cell.metrics.get(metric, math.nan))]
    found: dict[str, str] = {}
    for control, words in SAYS.items():
        named = getattr(config.controls, control)
        for arm in dict.fromkeys(cell.arm for cell in complete if named):
            pairs = [(cell.metrics[metric], cell.metrics.get(named, math.nan)) for cell in complete if cell.arm == arm]
            values, others = (mean(side) for side in zip(*pairs, strict=True))
            if not math.isfinite(others):
                why = f"not compared with {words}: complete runs have no number {named}, controls.{control}"
                found.setdefault(arm, why)
            elif not _better(values, others, rule.direction):
                found.setdefault(arm, f"no better than {words} in {metric}")
    return found


def _better(value: float, other: float, direction: str) -> bool:
    return value < other if direction == "min" else value > other
