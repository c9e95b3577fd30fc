"""How long things took in earlier attempts and in sibling runs; open it when a forecast inside a run is wrong."""

from collections import defaultdict
from itertools import islice
from pathlib import Path
from statistics import median

from assay.errors import DataError
from assay.runs.record import Stage
from assay.runs.store import RunFolder

SIBLINGS = 20
CHECKPOINT = "checkpoint"


def known_seconds(run: Path) -> dict[str, float]:
    """Longest `checkpoint` of this run and up to 20 siblings, in s; of this run the time of each stage without any.

    A stage that keeps checkpoints goes on from them, so that it need not fit into one job.
    """
    durations: dict[str, list[float]] = defaultdict(list)
    for folder in islice(_family(run), SIBLINGS + 1):
        for stage in _stages(folder):
            durations[CHECKPOINT] += stage.seconds.get(CHECKPOINT, [])
            if folder == run and stage.code == 0 and stage.ended is not None and CHECKPOINT not in stage.seconds:
                durations[stage.stage].append(stage.ended - stage.started)
    return {name: max(values) if name == CHECKPOINT else median(values) for name, values in durations.items() if values}


def _family(run: Path) -> list[Path]:
    """The run itself, then other arms and seeds of its study."""
    siblings = [path.parent for path in run.parent.parent.glob("*/*/attempts") if path.parent != run]
    return [run, *sorted(siblings)]


def _stages(folder: Path) -> list[Stage]:
    try:
        return [stage for attempt in RunFolder(folder).read().attempts for stage in attempt.stages]
    except DataError:
        return []  # a damaged sibling must not keep this run from starting
