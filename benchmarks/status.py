"""How long `assay status` takes over many runs.

    python benchmarks/status.py              1,000 and 10,000 runs: seconds of the whole command, best of three
    python benchmarks/status.py --make N DIR only make N synthetic runs

Eight in ten runs are complete, the others running, lost, stopped at their deadline, diverged, or ended by an exception,
with one to three attempts of three stages each and, where they failed, a log of about 200 KB.
Goal: less than 1 s for 1,000 and less than 10 s for 10,000.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from assay.runs.record import Attempt, Holder, Job, Progress, Resources, Run, Stage, Stop, Try, to_json

STAGES = ["simulate", "train", "validate"]
OUTCOMES = ["complete"] * 16 + ["running", "deadline", "NonFiniteError", "ValueError"]
PARAMS = {"seed": 0, "train": {f"key_{index}": index / 7 for index in range(60)}}
LOG_LINES = 3000


def stage(name: str, started: float, code: int | None, kind: str | None = None) -> Stage:
    """One stage of ten minutes."""
    seconds = {phase: [random.uniform(1, 60) for _ in range(20)] for phase in ("load", "checkpoint", "validate")}
    return Stage(
        study="asl",
        stage=name,
        started=started,
        ended=None if code is None else started + 600,
        code=code,
        kind=kind,
        error=f"{kind} at step 512" if kind else None,
        seconds=seconds,
        facts={"params": PARAMS},
    )


def attempt(number: int, outcome: str, now: float) -> Attempt:
    """One attempt with an outcome; earlier ones of a run stop at their deadline."""
    code = {"complete": 0, "running": None, "deadline": 75}.get(outcome, 1)
    kind = outcome if code == 1 else None
    started = now - 1900
    ended = None if code is None else now - 60
    last = [stage("validate", started + 1200, 0)] if code == 0 else []
    return Attempt(
        number=number,
        holder=Holder(host="gpu101", pid=4242, start_ticks=1, boot_id="0"),
        command=["dvc", "repro"],
        started=started,
        heartbeat=now - random.choice([1, 1, 1, 600]),
        cwd="/work/run",
        job=Job(scheduler="slurm", id=str(number), node="gpu101", raw={"State": "RUNNING"}),
        deadline=now + 60,
        ended=ended,
        code=code,
        stop=Stop(reason="deadline", at=now - 70) if code == 75 else None,
        tries=[Try(started=started, ended=ended, code=code)],
        stages=[stage("simulate", started, 0), stage("train", started + 600, code, kind), *last],
        progress=Progress(study="asl", stage="train", phase="train", done=512, of=1000, since=now - 900, changed=now),
        resources=Resources(rss=2**30, rss_peak=2**31, cpu_s=1800.0, processes=9, memory_limit=2**33),
    )


def make(count: int, top: Path) -> None:
    """Write the runs."""
    random.seed(0)
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now))
    log = "".join(
        f"{stamp} epoch {line // 30}/100, step {line}: loss 0.0123, validation 0.0456\n" for line in range(LOG_LINES)
    )
    for index in range(count):
        arm, outcome = f"arm-{index // 10:04d}", random.choice(OUTCOMES)
        folder = top / "asl" / arm / str(index % 10)
        (folder / "attempts").mkdir(parents=True)
        run = Run(study="asl", arm=arm, seed=str(index % 10), stages=STAGES, params=PARAMS, command=["dvc", "repro"])
        (folder / "run.json").write_text(json.dumps(to_json(run), indent=1))
        tries = random.choice([1, 1, 2, 3])
        for number in range(1, tries + 1):
            record = attempt(number, outcome if number == tries else "deadline", now)
            (folder / f"attempts/{number:04d}.json").write_text(json.dumps(to_json(record), indent=1))
        if outcome not in ("complete", "running"):
            (folder / "logs").mkdir()
            (folder / f"logs/{tries:04d}.log").write_text(log)


def measure(top: Path) -> float:
    """Best of three, in s."""

    def once() -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-m", "assay", "status", str(top)], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    return min(once() for _ in range(3))


def main() -> int:
    """Make or measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", nargs=2, metavar=("N", "DIR"))
    parsed = parser.parse_args()
    if parsed.make:
        make(int(parsed.make[0]), Path(parsed.make[1]))
        return 0
    met = True
    for count, goal in ((1000, 1.0), (10000, 10.0)):
        with tempfile.TemporaryDirectory() as folder:
            make(count, Path(folder))
            seconds = measure(Path(folder))
        met &= seconds < goal
        print(f"{count:6d} runs: {seconds:.2f} s (goal: less than {goal:.0f} s)")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
