"""Records of runs that never were: a study of any size on disk, as submit leaves it, in well under a minute.

python -m tests.reports.records 20 3 DIR     20 arms x 3 seeds below DIR; then: assay report DIR/study.yaml
"""

import json
import random
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from assay.config.load import assign, read
from assay.runs.record import Attempt, Holder, Progress, Resources, Run, Stage, Stop, Try, to_json

ROOT = Path(__file__).parents[2]
DATA = read(ROOT / "params.yaml")
HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)> | `x` [a](javascript:1)"
METRIC, SECOND = "validate/cbf_mae", "validate/att_mae"
NULL = "validate/null_cbf_mae"
STAGES = ("simulate", "train", "validate")
OUTCOMES = ("complete",) * 17 + ("failed", "partial", "lost")
NOW = 1_760_000_000.0
HEAD = """\
name: made
question: Which ingredient matters?
study: asl
pipeline: dvc.yaml
baseline: arm-0000
seeds: {seeds}
metrics:
  {metric}: {{direction: min, unit: ml/100 g/min, failed: worst}}
  {second}: {{direction: min, unit: ms}}
controls: {{"null": {null}}}
hypotheses:
  H1: {{claim: A higher rate helps, metric: {metric}, arm: arm-0001, versus: arm-0000, test: superior, margin: 0.0}}
  H2: {{claim: It stays below one, metric: {metric}, arm: arm-0000, versus: 1.0, test: superior, margin: 0.1}}
arms:
"""


def make_study(folder: Path, arms: int, seeds: int, *, runs: bool = True) -> Path:
    """Write study.yaml, its pipeline and, if asked for, a record for every arm x seed; returns the study file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    chance = random.Random(0)
    head = HEAD.format(seeds=list(range(seeds)), metric=METRIC, second=SECOND, null=NULL)
    lines = [f"  arm-{index:04d}: {{reason: Rate {index}., set: {changes(index)}}}\n" for index in range(arms)]
    file = folder / "study.yaml"
    file.write_text(head + "".join(lines))
    for index in range(arms if runs else 0):
        for seed in range(seeds):
            outcome = "complete" if index < 2 else chance.choice(OUTCOMES)
            make_run(folder / f"runs/made/arm-{index:04d}/{seed}", index, outcome, chance)
    return file


def changes(index: int) -> str:
    """The overrides of an arm, as YAML; the first arm is the baseline."""
    return json.dumps({"train.optimizer.lr": rate(index)} if index else {})


def rate(index: int) -> float:
    """Different for each arm, and never the default."""
    return (index + 1) / 2**20


def make_run(folder: Path, index: int, outcome: str, chance: random.Random, log: Sequence[str] = ()) -> None:
    """One run's folder: record, log, and where it is complete metrics and a loss trace."""
    (folder / "attempts").mkdir(parents=True)
    run = Run(
        study="made",
        arm=folder.parent.name,
        seed=folder.name,
        stages=list(STAGES),
        params=assign(DATA, {**json.loads(changes(index)), "seed": int(folder.name)}),
        command=["dvc", "repro"],
        commit="0123456789abcdef",
        identity=f"{index:08x}",
    )
    (folder / "run.json").write_text(json.dumps(to_json(run)))
    (folder / "attempts/0001.json").write_text(json.dumps(to_json(attempt(index, outcome, chance))))
    lines = log or [f"2025-10-09T08:00:{n:02d}.000Z step {n * 20} of 1000: loss {1 / (n + 1):.4f}" for n in range(40)]
    (folder / "logs").mkdir()
    (folder / "logs/0001.log").write_text("\n".join(lines) + "\n")
    if outcome == "complete":
        leave_results(folder, index, chance)


def attempt(index: int, outcome: str, chance: random.Random) -> Attempt:
    """One attempt of about half an hour that ended as asked for."""
    code = {"complete": 0, "failed": 1, "partial": 75}.get(outcome)
    started = NOW - 2000
    train_s = 900 + 20 * (index % 30) + chance.uniform(-40, 40)
    stages = [Stage(study="asl", stage="simulate", started=started, ended=started + 120, code=0)]
    kind = "NonFiniteError" if outcome == "failed" else None
    error = f"loss is nan at step 512 {HOSTILE}" if kind else None
    at = started + 120
    end = None if code is None else at + train_s
    stages.append(Stage(study="asl", stage="train", started=at, ended=end, code=code, kind=kind, error=error))
    if code == 0:
        stages.append(Stage(study="asl", stage="validate", started=at + train_s, ended=at + train_s + 90, code=0))
    ended = stages[-1].ended
    return Attempt(
        number=1,
        holder=Holder(host="gpu101", pid=4242, start_ticks=1, boot_id="0"),
        command=["dvc", "repro"],
        started=started,
        heartbeat=ended or at + 300,
        ended=ended,
        code=code,
        stop=Stop(reason="deadline", at=NOW - 70) if code == 75 else None,
        tries=[Try(started=started, ended=ended, code=code)],
        stages=stages,
        progress=Progress(study="asl", stage="train", phase="train", done=512, of=1000, since=at, changed=at + 300),
        resources=Resources(
            rss_peak=2**30 + index % 40 * 2**25, cpu_s=1800.0, gpu_memory_peak=2**31 if index % 2 == 0 else None
        ),
    )


def leave_results(folder: Path, index: int, chance: random.Random) -> None:
    """What submit copies from the clone of a complete run."""
    quality = 0.5 + 0.4 * abs((index % 50) - 12) / 50
    metrics = {METRIC: quality + chance.gauss(0, 0.02), SECOND: 40 * quality + chance.gauss(0, 1)}
    metrics |= {NULL: 2.0 + chance.gauss(0, 0.05), "train/loss": quality / 3}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    trace = folder / "results/train/log/live/plots/metrics/train/loss.tsv"
    trace.parent.mkdir(parents=True)
    losses = (f"{step}\t{quality * (1 + 5 / (1 + step / 50)) + chance.gauss(0, 0.02)}" for step in range(0, 1000, 10))
    trace.write_text("step\tloss\n" + "\n".join(losses) + "\n")


if __name__ == "__main__":
    begun = time.perf_counter()
    made = make_study(Path(sys.argv[3]), int(sys.argv[1]), int(sys.argv[2]))
    print(f"{made} in {time.perf_counter() - begun:.1f} s")
