"""How well the forecast of `assay plan` does on runs that it has not seen, and how long it takes for a thousand arms.

    python benchmarks/forecast.py [FOLDER]     a scratch clone with runs of an earlier call; default: a new one, about
                                               10 minutes for 18 runs of the asl pipeline at tiny sizes, one at a time

Each run's stages are forecast from all other runs, and from those of other shapes alone. Reported: median absolute
error of a run's seconds (goal: at most 10 %) and the share of 90 % intervals that hold them (goal: at least 85 %).
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from assay.config.load import assign, read
from assay.matrix.arms import Resolved, resolve
from assay.matrix.forecast.forecast import forecast, machine_of
from assay.matrix.forecast.laws import Laws
from assay.matrix.forecast.pipeline import read_pipeline
from assay.matrix.forecast.scaling import Estimate, total
from assay.matrix.forecast.workload import Recorded, read_recorded
from assay.runs.provenance import hardware
from assay.runs.record import Attempt, Holder, Resources, Run, Stage, Work, to_json
from assay.studies import study_config

ROOT = Path(__file__).parents[1]
GOAL_ERROR, GOAL_COVERAGE = 0.10, 0.85
STUDY = """\
name: backtest
question: How long does it take?
study: asl
pipeline: dvc.yaml
baseline: base
seeds: [0, 1]
base:
  data.phantoms: 48
  data.validation_phantoms: 8
  data.image_size: 32
  model.hidden_sizes: [8, 16]
  train.steps: 120
  train.batch_size: 4
  train.validate_every: 40
  train.checkpoint_every: 40
  evaluation.phantoms: 4
  evaluation.snr: [10]
  evaluation.bootstrap: 100
  evaluation.images: 1
  sensitivity.phantoms: 2
  sensitivity.null_seeds: 1
arms:
  base: {reason: the reference}
  longer: {reason: steps, set: {train.steps: 400}}
  batch: {reason: samples a step, set: {train.batch_size: 12}}
  wide: {reason: channels, set: {model.hidden_sizes: [16, 32]}}
  members: {reason: an ensemble, set: {train.ensemble_size: 2}}
  data: {reason: phantoms, set: {data.phantoms: 400, data.validation_phantoms: 40}}
  judged: {reason: evaluated phantoms, set: {evaluation.phantoms: 24}}
  plain: {reason: no least squares, set: {model.least_squares_features: false}}
  both: {reason: two of them, set: {model.hidden_sizes: [16, 32], train.batch_size: 12, train.steps: 200}}
"""


def make_runs(folder: Path) -> Path:
    """A clone with a study that has been run; one that is there is gone on with."""
    if not (folder / "backtest.yaml").exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        (folder / "backtest.yaml").write_text(STUDY)
    file = folder / "backtest.yaml"
    assay = [sys.executable, "-m", "assay"]
    subprocess.run([*assay, "submit", str(file)], cwd=folder, check=True)
    with (folder / "backtest.log").open("w") as log:
        subprocess.run([*assay, "status", str(file), "--watch"], cwd=folder, check=True, stdout=log)
    return file


def backtest(file: Path) -> bool:
    """Print error and coverage of both ways of leaving out; whether the goals are met."""
    config = resolve(file).config
    params = study_config(config.study).Params
    pipeline = read_pipeline(file.parent / config.pipeline, config.study)
    recorded = read_recorded(file.parent / "runs", config.name, config.study, params)
    runs = [each for each in recorded if each.complete and each.stages()]

    def run_left_out(run: Recorded) -> list[Recorded]:
        return [each for each in runs if each is not run]

    def shape_left_out(run: Recorded) -> list[Recorded]:
        return [each for each in runs if each.record.run.arm != run.record.run.arm]

    good = [
        report(what, runs, lambda run, others=others: expected(Laws(pipeline, others(run)), run))
        for what, others in (("the run", run_left_out), ("its whole arm", shape_left_out))
    ]
    return good[0]


def expected(laws: Laws, run: Recorded) -> Estimate | None:
    """The forecast of those stages that ran; others came from the cache."""
    found = [laws.expect_seconds(stage, run.parameters) for stage in run.stages()]
    between = laws.expect_between(run.parameters)
    return total([each for each in (*found, between) if each], together=True) if all(found) else None


def report(what: str, runs: list[Recorded], expect: Callable[[Recorded], Estimate | None]) -> bool:
    """Print one line; whether the goals are met."""
    errors, held, factors = [], 0, []
    for run in runs:
        attempt = run.attempts[0]
        seconds, found = (attempt.ended or 0) - attempt.started, expect(run)
        if found is not None:
            errors.append(abs(found.value / seconds - 1))
            held += found.low <= seconds <= found.high
            factors.append(found.high / found.value)
    error, coverage = statistics.median(errors), held / len(errors)
    print(
        f"{what} left out: {len(errors)} of {len(runs)} runs forecast, median absolute error {100 * error:.1f} %, "
        f"90 % interval holds {100 * coverage:.0f} %, reaching a factor {statistics.median(factors):.2f} (median)"
    )
    return error <= GOAL_ERROR and coverage >= GOAL_COVERAGE


def many(folder: Path, records: bool) -> float:
    """Seconds to resolve and forecast 1,000 arms x 5 seeds, without records or with one for each run."""
    widths = [8 * n for n in range(1, 21)]
    arms = [
        f"  a{n}: {{reason: r, set: {{train.optimizer.lr: {1e-5 * (n + 1):g}, "
        f"model.hidden_sizes: [{widths[n % 20]}, 64]}}}}"
        for n in range(1000)
    ]
    head = STUDY[: STUDY.index("arms:")].replace("[0, 1]", "[0, 1, 2, 3, 4]").replace("baseline: base", "baseline: a0")
    file = folder / "many.yaml"
    file.write_text(head.replace("name: backtest", "name: many") + "arms:\n" + "\n".join(arms) + "\n")
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_text((ROOT / name).read_text())
    resolved = resolve(file)
    if records:
        write_records(folder / "runs/many", resolved)
    began = time.perf_counter()
    resolved = resolve(file)
    found = forecast(file, resolved, machine_of(file, resolved))
    seconds = time.perf_counter() - began
    print(f"1,000 arms x 5 seeds with {found.learnt_from['runs']} records: {seconds:.1f} s")
    return seconds


def write_records(folder: Path, resolved: Resolved) -> None:
    """One run for each arm and seed."""
    data, here = read(ROOT / "params.yaml"), hardware()
    holder = Holder(host="here", pid=1, start_ticks=1, boot_id="0")
    for name, arm in resolved.arms.items():
        for seed in resolved.config.seeds:
            seconds = 100.0 + sum(arm.params.model.hidden_sizes or ()) + seed
            work = {"train": Work(passes=1, seconds=seconds, units=120, of=120)}
            stage = Stage(study="asl", stage="train", started=0.0, ended=seconds + 3, code=0, work=work)
            ended = {"ended": seconds + 5, "heartbeat": seconds + 5, "code": 0, "resources": Resources(rss_peak=10**9)}
            attempt = Attempt(number=1, holder=holder, command=["dvc"], started=0.0, stages=[stage], **ended)
            params = json.loads(json.dumps(assign(data, {**arm.overrides, "seed": seed})))
            run = Run(study="many", arm=name, seed=str(seed), params=params, hardware=here, stages=["train"])
            place = folder / name / str(seed)
            (place / "attempts").mkdir(parents=True)
            (place / "run.json").write_text(json.dumps(to_json(run)))
            (place / "attempts/0001.json").write_text(json.dumps(to_json(attempt)))


def main(folder: Path) -> int:
    """Print the figures; exit 1 if a goal is missed."""
    good = backtest(make_runs(folder))
    with tempfile.TemporaryDirectory() as scratch:
        slow = [many(Path(scratch), records) > 10 for records in (False, True)]
    return int(not good or any(slow))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="assay-forecast-"))))
