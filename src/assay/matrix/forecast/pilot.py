"""A few steps of every shape that no run tells about, measured; open it when a pilot takes long, or tells little.

    runs/<study>/.pilot/<arm>/<seed>/     the record of one pilot, as a run's, and its log

Of every stage whose rate is not known a pilot runs all but the training, which it cuts to 20 steps; the rest is at its
full size. Stages before it run as well. All happens in one temporary clone; its results are thrown away.
"""

import dataclasses
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from assay.config.load import assign, build, read
from assay.engine.config import training_sections
from assay.errors import ConfigError
from assay.machine import MachineConfig
from assay.matrix.arms import Resolved, ResolvedArm
from assay.matrix.forecast.bench import Bench, bench, refuse_elsewhere
from assay.matrix.forecast.forecast import Forecaster
from assay.matrix.forecast.pipeline import SEED, Parameters, leaves_of
from assay.matrix.forecast.quantities import duration
from assay.matrix.forecast.workload import PILOT
from assay.matrix.study import params_path
from assay.runs.journal import CHECKPOINTS
from assay.runs.store import RunFolder

STEPS = 20
"""Of a training stage: validated at the start, in the middle and at the end, saved in the middle and at the end."""
LEAST_S = 15.0
"""What is left of the time must be this much for another pilot to begin."""
Say = Callable[[str], None]


def pilot(path: Path, resolved: Resolved, machine: MachineConfig, minutes: float, say: Say) -> None:
    """Measure what the forecast lacks, arm by arm, the baseline first, until all is known or the time is over.

    Raises:
        UserError: the machine's jobs run elsewhere, or the study is not committed.
    """
    if not (minutes > 0 and math.isfinite(minutes)):
        raise ConfigError(f"--pilot: got {minutes:g}; allowed: > 0 minutes; leave it out for the default")
    refuse_elsewhere("--pilot: got a pilot", machine)
    until = time.monotonic() + 60 * minutes
    forecaster = Forecaster(path, resolved, machine)
    wanted = list(lacking(forecaster))
    if not wanted:
        say("pilot: nothing to measure: every shape is known")
        return
    say(f"pilot: {len(wanted)} shapes, {STEPS} steps of each training stage, {duration(60 * minutes)} at most")
    with bench(path, resolved.config.pipeline, forecaster.pipeline, f"pilot-{resolved.config.name}") as place:
        for number, (name, stages) in enumerate(wanted):
            left = until - time.monotonic()
            if left < LEAST_S:
                say(f"pilot: the time is over; not measured: {', '.join(arm for arm, _ in wanted[number:])}")
                return
            say(measure(path, resolved, resolved.arms[name], stages, place, left))


def lacking(forecaster: Forecaster) -> Iterator[tuple[str, list[str]]]:
    """Arms, the baseline first, and their stages of which neither a run nor an arm before has the form."""
    baseline, seen = forecaster.resolved.config.baseline, set()
    for name in sorted(forecaster.parameters, key=lambda arm: arm != baseline):
        unknown = []
        for stage in forecaster.pipeline.values():
            target = forecaster.laws.stage_target(stage, forecaster.parameters[name])
            if (stage.name, target.form) not in seen and not forecaster.laws.seconds[stage.name].knows(target):
                unknown.append(stage.name)
            seen.add((stage.name, target.form))
        if unknown and set(unknown) - forecaster.laws.silent:
            yield name, unknown


def measure(path: Path, resolved: Resolved, arm: ResolvedArm, stages: Sequence[str], place: Bench, left: float) -> str:
    """Run one pilot and keep its record; returns what became of it."""
    began, seed = time.monotonic(), resolved.config.seeds[0]
    data = assign(read(params_path(path, resolved.config)), {**arm.overrides, SEED: seed})
    params = type(arm.params)
    try:
        shortened = build(params, assign(data, shorter(params, data)))
    except ConfigError as error:
        return f"pilot: {arm.name}: not measured: {str(error).splitlines()[0]}"
    parameters = Parameters(dict(leaves_of(params, shortened)))
    needed = place.needed(stages, parameters, seed)
    place.write(assign(data, shorter(params, data)))
    for stage in needed:
        place.clear(stage, parameters)
    run = path.absolute().parent / "runs" / resolved.config.name / PILOT / arm.name / str(seed)
    shutil.rmtree(run, ignore_errors=True)
    code = _execute(place, run, " && ".join(place.stages[stage].command for stage in needed), left)
    done = needed if code == 0 else _ended_well(run)
    for stage in done:
        place.keep(stage, parameters, seed)
    _note_disk(run, {stage: sum(map(_size, place.outs(stage, parameters))) for stage in done})
    shutil.rmtree(run / CHECKPOINTS, ignore_errors=True)
    words = {0: "", 75: "; the time was over"}.get(code, f"; it ended with {code}: assay logs {shlex.quote(str(run))}")
    return f"pilot: {arm.name}: {', '.join(done) or 'nothing'} in {duration(time.monotonic() - began)}{words}"


def shorter(params: type, data: Any) -> dict[str, Any]:
    """Overrides that cut every training of a parameter file to a few steps."""
    changes: dict[str, Any] = {}
    for section in training_sections(params):
        given = data
        for key in section.split("."):
            given = given[key]
        steps = min(given["steps"] or STEPS, STEPS)
        cut = {"steps": steps, "epochs": None, "patience": None}
        cut |= dict.fromkeys(("validate_every", "checkpoint_every"), max(1, steps // 2))
        changes |= {f"{section}.{key}": value for key, value in cut.items()}
    return changes


def _execute(place: Bench, run: Path, command: str, left: float) -> int:
    """`assay exec` of the clone's own code; its exit code."""
    supervised = [sys.executable, "-m", "assay", "exec", "--run", str(run), "--deadline", f"{left:.0f}"]
    silent = subprocess.DEVNULL  # the log has it
    done = subprocess.run(
        [*supervised, "--", "sh", "-c", command],
        cwd=place.folder,
        env=place.environment(),
        stdin=silent,
        stdout=silent,
        stderr=silent,
        check=False,
    )
    return done.returncode


def _ended_well(run: Path) -> list[str]:
    attempts = RunFolder(run).read().attempts if run.is_dir() else []
    return [stage.stage for attempt in attempts for stage in attempt.stages if stage.code == 0]


def _note_disk(run: Path, disk: dict[str, int]) -> None:
    if (run / "run.json").is_file():
        folder = RunFolder(run)
        folder.write_run(dataclasses.replace(folder.read().run, disk=disk))


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())
