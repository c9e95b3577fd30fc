"""Which missing runs of a study can be trained in one pass, and their training: `assay submit --stack`.

    runs/<study>/.stack/<arm>/<seed>/     the record of such a training, named by its first arm, and its log
    runs/<study>/<arm>/<seed>/stack.json  of each run that took part: the attempts there, and how many runs shared each

Open it when arms that should be stacked are not. A stack is trained here, in a temporary clone, before its runs are
submitted; these find their checkpoints, and have only the rest of the pipeline to do.
"""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from assay.config.load import assign
from assay.engine.config import FREE_IN_STACK
from assay.errors import AssayError, ConfigError, Unfinished
from assay.files import write_bytes
from assay.machine import MachineConfig
from assay.matrix.cells import STACK
from assay.matrix.forecast.bench import Bench, bench, refuse_elsewhere
from assay.matrix.forecast.pipeline import SEED, Leaves, PipelineStage, leaves_of, read_pipeline
from assay.matrix.submit import SUBMIT, Decision, Study
from assay.progress import SOCKET, UNFINISHED
from assay.runs.execute import CHECKPOINTS_AT
from assay.runs.journal import CHECKPOINTS
from assay.runs.processes import set_parent_death_signal
from assay.runs.store import RunFolder
from assay.stages import TRAINED

STACKS = ".stack"
NOTHING = "no two of the missing runs differ in their optimisation alone"
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Arms of one shape at one seed, the first stage that trains them, and the stages before it."""

    arms: tuple[str, ...]
    seed: int
    stage: PipelineStage

    def __str__(self) -> str:
        return f"{', '.join(self.arms)} at seed {self.seed}"


def groups(study: Study, decisions: Sequence[Decision]) -> list[Group]:
    """Runs to submit that differ only in how their first stage that trains is optimised, and in what comes after it."""
    stages = _stages(study)
    stage = next((stage for stage in stages.values() if stage.train), None)
    if stage is None:
        return []
    found: dict[tuple[int, str], dict[str, str]] = defaultdict(dict)
    for each in decisions:
        if each.what == SUBMIT and isinstance(each.seed, int):
            shape, whole = _of_training(study, each.arm, stage)
            found[each.seed, shape].setdefault(whole, each.arm)  # what is trained alike is trained once
    return [
        Group(arms=tuple(arms.values()), seed=seed, stage=stage) for (seed, _), arms in found.items() if len(arms) > 1
    ]


def train_stacks(study: Study, decisions: Sequence[Decision], say: Say, dry: bool = False) -> None:
    """Train here, group after group, what can be trained together of the runs to submit; or only say what that is.

    Raises:
        ConfigError: the machine's jobs run elsewhere, in a container, or in several processes.
        Unfinished: stopped on request; what has been trained so far is kept.
        AssayError: a group could not be trained; its log says why.
    """
    refuse_elsewhere("--stack: got training", study.place)
    _refuse_company(study.place)
    found = groups(study, decisions)
    if dry or not found:
        for line in [f"would train {group}" for group in found] or [NOTHING]:
            say(f"stack: {line}")
        return
    name = f"stack-{study.resolved.config.name}"
    with bench(study.path, study.resolved.config.pipeline, _stages(study), name) as place:
        for group in found:
            say(f"stack: trains {group}")
            _train(study, group, place)


def _stages(study: Study) -> dict[str, PipelineStage]:
    config = study.resolved.config
    return read_pipeline(study.path.parent / config.pipeline, config.study)


def _of_training(study: Study, arm: str, stage: PipelineStage) -> tuple[str, str]:
    """What the shape of a run's training is told by, and all that decides its result but the seed."""
    params = study.resolved.arms[arm].params
    leaves: Leaves = dict(leaves_of(type(params), params))
    read = {key: value for key, value in leaves.items() if any(each.reads(key) for each in (stage, *stage.behind))}
    read.pop(SEED, None)
    free = tuple(f"{stage.train}.{key}." for key in FREE_IN_STACK)
    shape = {key: value for key, value in read.items() if not f"{key}.".startswith(free)}
    return json.dumps(shape, sort_keys=True, default=str), json.dumps(read, sort_keys=True, default=str)


def _refuse_company(machine: MachineConfig) -> None:
    """Raise ConfigError if the machine's jobs run in a container, or share a training among processes."""
    if machine.resources.nodes * machine.resources.processes > 1:
        got = f"{machine.name}, whose jobs share a training among several processes"
        raise ConfigError(f"--stack: got {got}; allowed: one process; submit without")
    if machine.container.kind != "none":
        raise ConfigError(f"--stack: got {machine.name}, whose jobs run in a container; allowed: none; submit without")


def _train(study: Study, group: Group, place: Bench) -> None:
    runs = {arm: study.runs / arm / str(group.seed) for arm in group.arms}
    record = study.runs / STACKS / group.arms[0] / str(group.seed)
    record.mkdir(parents=True, exist_ok=True)
    plan = record / "plan.json"
    write_bytes(plan, json.dumps({arm: _told(study, arm, group.seed, run) for arm, run in runs.items()}).encode())
    place.write(_params(study, group.arms[0], group.seed))
    commands = [["dvc", "repro", *(each.name for each in group.stage.behind)]] if group.stage.behind else []
    commands.append(["assay", "stage", study.resolved.config.study, group.stage.name, "--stack", str(plan)])
    (record / TRAINED).unlink(missing_ok=True)
    code = _execute(study, place, record, " && ".join(map(shlex.join, commands)))
    _note_cost(record, runs)
    if code == UNFINISHED:
        raise Unfinished(f"stack: stopped while {group} were trained; the same command goes on from there")
    if code:
        raise AssayError(
            f"stack: {group} were not trained, it ended with {code}: assay logs {shlex.quote(str(record))}"
        )


def _note_cost(record: Path, runs: Mapping[str, Path]) -> None:
    """To the runs that were trained: the attempt in which they were, and how many they are."""
    if not (record / TRAINED).is_file():
        return
    trained, attempts = json.loads((record / TRAINED).read_bytes()), RunFolder(record).read().attempts
    for run in [runs[name] for name in trained]:
        run.mkdir(parents=True, exist_ok=True)
        noted = json.loads((run / STACK).read_bytes()) if (run / STACK).is_file() else []
        noted.append({"record": os.path.relpath(record, run), "attempt": attempts[-1].number, "runs": len(trained)})
        write_bytes(run / STACK, json.dumps(noted).encode())


def _told(study: Study, arm: str, seed: int, run: Path) -> dict[str, Any]:
    """What a run is trained by, and where `assay exec` will have its job look for checkpoints."""
    own = CHECKPOINTS_AT not in os.environ or SOCKET in os.environ
    place = run / CHECKPOINTS if own else Path(os.environ[CHECKPOINTS_AT]).absolute()
    return {"params": _params(study, arm, seed), "checkpoints": str(place)}


def _params(study: Study, arm: str, seed: int) -> dict[str, Any]:
    params: dict[str, Any] = assign(study.params, {**study.resolved.arms[arm].overrides, SEED: seed})
    return params


def _execute(study: Study, place: Bench, record: Path, command: str) -> int:
    """`assay exec` of the clone's own code; its exit code, that of an unfinished run if there was a request to stop.

    It has a session of its own, to be asked only once. What it prints goes where messages go.
    """
    machine = ["--machine", str(study.machine)] if study.machine else []
    supervised = [sys.executable, "-m", "assay", "exec", "--run", str(record), *machine, "--", "sh", "-c", command]
    with (
        subprocess.Popen(
            supervised,
            cwd=place.folder,
            env=place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__,
            start_new_session=True,
            preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
        ) as child,
        _passed_on(child) as asked,
    ):
        code = child.wait()
    return UNFINISHED if asked else code


@contextmanager
def _passed_on(child: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Requests to stop are the child's business; the list gets those that came."""
    asked: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        child.send_signal(signal.SIGTERM)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
