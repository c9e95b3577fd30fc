"""A clone in which stages of different arms are tried out one after another; open it for what pilots and probes share.

What a stage has left stays in place for the next arm that would run the very same stage: a data set is made once.
"""

import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from assay.errors import ConfigError
from assay.machine import MachineConfig
from assay.matrix.forecast.pipeline import Parameters, PipelineStage
from assay.matrix.forecast.sharing import Key, Sharing
from assay.matrix.git import git, refuse_uncommitted, repository
from assay.matrix.submission import Submission
from assay.matrix.workplace import prepare
from assay.runs.execute import scheduler_job

RESULTS = "results"
REFERENCE = re.compile(r"\$\{([\w.]+)\}")


class Bench:
    """The folder of a pipeline in the clone, and which parameters the outputs there are of."""

    def __init__(self, clone: Path, folder: Path, stages: Mapping[str, PipelineStage]) -> None:
        self.clone, self.folder, self.stages = clone, folder, stages
        self.sharing = Sharing(stages)
        self._there: dict[str, Key] = {}

    def write(self, params: Mapping[str, Any]) -> None:
        """Replace params.yaml; JSON is YAML."""
        (self.folder / "params.yaml").write_text(json.dumps(params, indent=1) + "\n", encoding="utf-8")

    def needed(self, wanted: Collection[str], parameters: Parameters, seed: int) -> list[str]:
        """The stages to run for the outputs of those wanted, in order: they and what they need, unless it is there."""
        closure = set(wanted)
        for stage in reversed(list(self.stages.values())):
            if stage.name in closure:
                closure |= set(stage.needs)
        return [name for name in self.stages if name in closure and not self._is_there(name, parameters, seed)]

    def clear(self, stage: str, parameters: Parameters) -> None:
        """Remove what an earlier run of a stage has left."""
        self._there.pop(stage, None)
        for path in [*self.outs(stage, parameters), self.folder / RESULTS / stage]:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def keep(self, stage: str, parameters: Parameters, seed: int) -> None:
        """A stage has ended well: its outputs are of these parameters."""
        self._there[stage] = self.sharing.key(stage, parameters, seed)

    def outs(self, stage: str, parameters: Parameters) -> list[Path]:
        """Where a stage writes, with `${key}` put in."""
        leaves = parameters.leaves
        texts = [REFERENCE.sub(lambda found: str(leaves[found[1]]), out) for out in self.stages[stage].outs]
        return [self.folder / text for text in texts]

    def environment(self) -> dict[str, str]:
        """That of a command in the clone: its own code, this Python's programs, one place for checkpoints."""
        source, path = self.clone / "src", os.environ.get("PYTHONPATH")
        searched = [*([str(source)] if source.is_dir() else []), *([path] if path else [])]
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": programs, "PYTHONPATH": os.pathsep.join(searched)}

    def _is_there(self, stage: str, parameters: Parameters, seed: int) -> bool:
        return self._there.get(stage) == self.sharing.key(stage, parameters, seed)


@contextmanager
def bench(path: Path, pipeline: str, stages: Mapping[str, PipelineStage], name: str) -> Iterator[Bench]:
    """A clone of the last commit, removed at the end. pipeline: the dvc.yaml, relative to the study file at `path`.

    Raises:
        UserError: there is no repository, or what the study names is not committed.
        DataError: git failed.
    """
    place = (path.absolute().parent / pipeline).resolve()
    root = repository(path.absolute().parent)
    refuse_uncommitted(root, place, path)
    submission = Submission(
        experiment=f".{name}-{os.getpid()}",
        repository=str(root),
        commit=git(root, "rev-parse", "HEAD"),
        pipeline=str(place.parent.relative_to(root.resolve())),
        overrides=[],
    )
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        prepare(submission)
        yield Bench(submission.clone, submission.clone / submission.pipeline, stages)
    finally:
        shutil.rmtree(submission.clone, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def refuse_elsewhere(given: str, machine: MachineConfig) -> None:
    """Raise ConfigError unless jobs of the machine run where this process does. given: the option, and what it got."""
    job = scheduler_job(os.environ)
    here = "local" if job is None else job.scheduler
    if here != machine.scheduler:
        got = f"{given} here ({here}) for {machine.name}, whose jobs run under {machine.scheduler}"
        raise ConfigError(f"{got}; allowed: where the jobs run; give it within one of its jobs")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """End as Ctrl-C does, by way of what removes the clone."""
    raise SystemExit(128 + number)
