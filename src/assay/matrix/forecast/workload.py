"""Which recorded runs a forecast may learn from; open it when it leaves one out.

Runs of every study of the package count, below the folder of all runs, if they ran on hardware like the one in
question: the same processor, number of cores and GPUs. Pilots count where no run tells.
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.config.recorded import completed
from assay.errors import DataError
from assay.matrix.cells import METRICS, STACK
from assay.matrix.forecast.pipeline import SEED, Parameters, leaves_of
from assay.runs.record import Attempt, Run, Stage
from assay.runs.store import RunRecord, find

PILOT = ".pilot"
"""The folder of a study's pilots, beside its arms; hidden, so that no other verb takes them for runs."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """One run, or one pilot."""

    record: RunRecord
    parameters: Parameters
    pilot: bool

    @property
    def complete(self) -> bool:
        """Whether every stage has ended well, and its result was handed back."""
        attempts = self.record.attempts
        return bool(attempts) and attempts[-1].code == 0 and (self.pilot or (self.record.folder / METRICS).is_file())

    @property
    def stacked(self) -> bool:
        """Whether it was trained together with others, so that its own record tells nothing of that."""
        return (self.record.folder / STACK).is_file()

    @property
    def attempts(self) -> list[Attempt]:
        """Oldest first."""
        return self.record.attempts

    def stages(self) -> dict[str, list[Stage]]:
        """Stage to its tries over all attempts, in order."""
        found: dict[str, list[Stage]] = {}
        for attempt in self.attempts:
            for stage in attempt.stages:
                found.setdefault(stage.stage, []).append(stage)
        return found


def read_recorded(runs: Path, name: str, study: str, params: type) -> list[Recorded]:
    """The runs below a folder that ran stages of a study's package, and the pilots of the study `name`.

    Raises:
        DataError: a folder cannot be listed.
    """
    known: dict[str, Parameters] = {}
    found = []
    for folder, pilot in ((runs, False), (runs / name / PILOT, True)):
        for run in find(folder) if folder.is_dir() else ():
            try:
                record = run.read()
            except DataError:
                continue
            if record.run.params is not None and _is_of(record, study, name):
                found.append(Recorded(record=record, parameters=_parameters(params, record.run, known), pilot=pilot))
    return found


def _is_of(record: RunRecord, study: str, name: str) -> bool:
    """Whether its stages are the package's; where stages say nothing, the study's own runs count."""
    spoken = {stage.study for attempt in record.attempts for stage in attempt.stages}
    return study in spoken or (not spoken and record.run.study == name)


def _parameters(params: type, run: Run, known: dict[str, Parameters]) -> Parameters:
    """All leaves; none where the record has other keys than the study now has, so that it cannot be compared."""
    key = repr({**(run.params or {}), SEED: None})
    if key not in known:
        known[key] = Parameters({})
        with suppress(KeyError, TypeError):
            known[key] = Parameters(dict(leaves_of(params, completed(params, run.params))))
    return known[key]


def signature(hardware: Mapping[str, Any]) -> Hashable:
    """What a computer's speed is told by: processor, cores, GPUs."""
    gpus = hardware.get("gpus") or []
    return hardware.get("cpu"), hardware.get("cores"), tuple(gpu.get("name") for gpu in gpus)


def alike(recorded: Iterable[Recorded], scheduler: str, here: Mapping[str, Any]) -> list[Recorded]:
    """Those that ran on such hardware as a job of this scheduler gets: for `local` this one, else the most frequent."""
    whole = [each for each in recorded if each.attempts and each.parameters.leaves]
    mine = [each for each in whole if _scheduler(each) == scheduler]
    kinds = Counter(signature(each.record.run.hardware) for each in mine)
    if scheduler == "local":
        wanted: Hashable = signature(here)
    else:
        wanted = kinds.most_common(1)[0][0] if kinds else None
    return [each for each in mine if signature(each.record.run.hardware) == wanted]


def _scheduler(each: Recorded) -> str:
    job = each.attempts[-1].job
    return "local" if job is None else job.scheduler
