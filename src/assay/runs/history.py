"""How long things took in earlier attempts and in sibling runs; open it when a forecast inside a run is wrong."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from statistics import median

from assay.errors import DataError
from assay.runs.record import Attempt, Stage
from assay.runs.store import ATTEMPTS, RunFolder

SIBLINGS = 20
LOOKED_AT = 200
"""Among how many runs siblings are sought: a study may have thousands, and its files be slow to look at."""
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


def until_done(tries: Iterable[tuple[str, float, int | None]]) -> dict[str, list[float]]:
    """Stage to the seconds that it took, each time, until it ended with 0: those of tries that were cut off, too.

    tries: stage, seconds and exit code, oldest first. One that has not ended with 0 has no time yet.
    """
    spent: dict[str, float] = defaultdict(float)
    found: dict[str, list[float]] = defaultdict(list)
    for stage, seconds, code in tries:
        spent[stage] += seconds
        if code == 0:
            found[stage].append(spent.pop(stage))
    return dict(found)


def stage_tries(attempts: Iterable[Attempt]) -> Iterator[tuple[str, float, int | None]]:
    """Every try of a stage, as `until_done` takes them; one that was killed lasted as long as its attempt."""
    for attempt in attempts:
        for stage in attempt.stages:
            yield stage.stage, (stage.ended or attempt.ended or attempt.heartbeat) - stage.started, stage.code


def _family(run: Path) -> Iterator[Path]:
    """The run itself, then other seeds of its arm, then other arms of its study."""
    yield run
    arms = sorted(run.parent.parent.glob("*"), key=lambda arm: (arm != run.parent, arm))
    others = (seed for arm in arms for seed in sorted(arm.glob("*")) if seed != run)
    yield from (each for each in islice(others, LOOKED_AT) if (each / ATTEMPTS).is_dir())


def _stages(folder: Path) -> list[Stage]:
    try:
        return [stage for attempt in RunFolder(folder).read().attempts for stage in attempt.stages]
    except DataError:
        return []  # a damaged sibling must not keep this run from starting
