"""What supervision costs: the start of `assay exec`, and a loop of 1,000 steps a second that reports each of them.

    python benchmarks/supervision.py            medians of runs in turn, as JSON

startup_s        `assay exec -- true` from start to end; goal: less than 0.35
bare_python_s    `python -c pass` in between: the machine's own share
Of a loop that calls `advance` 1,000 times a second, and (sent) of one that circumvents its limit of 20 messages a
second, so that each call is a message:
supervisor_ms_s  CPU ms per s of all processes of `assay exec`; goal: less than 5
loop_ms_s        CPU ms per s that the loop itself uses more than where nobody listens; goal: less than 5
lateness         wall time of the loop with a supervisor, over that without; goal: less than 1.01
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 5
SECONDS = 5.0
RATE = 1000
LOOP = f"""
import resource, time
from assay import progress

with progress.phase("train", total=10**9) as p:
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    for step in range({int(SECONDS * RATE)}):
        sum(range(2000))
        EVERY
        p.advance(loss=0.1)
        time.sleep(max(0.0, begun + step / {RATE} - time.perf_counter()))
    took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
    whole = time.process_time()
print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, whole, took)
"""
LOOPS = {"": LOOP.replace("EVERY", "pass"), "sent": LOOP.replace("EVERY", "p._sent = 0.0")}


def supervised(folder: Path, command: list[str]) -> list[str]:
    """The command under `assay exec`."""
    return [sys.executable, "-m", "assay", "exec", "--run", str(folder / str(time.monotonic_ns())), "--", *command]


def timed(command: list[str]) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds of everything below, and what it printed."""
    before, begun = _children_cpu(), time.perf_counter()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return time.perf_counter() - begun, _children_cpu() - before, said


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def startup(folder: Path) -> dict[str, float]:
    """Seconds of the shortest command."""
    ours, bare = [], []
    for _ in range(ROUNDS):
        ours.append(timed(supervised(folder, ["true"]))[0])
        bare.append(timed([sys.executable, "-c", "pass"])[0])
    return {"startup_s": statistics.median(ours), "bare_python_s": statistics.median(bare)}


def messages(folder: Path, name: str) -> dict[str, float]:
    """The loop, alternately with a supervisor and without."""
    rows, program = [], [sys.executable, "-c", LOOPS[name]]
    for _ in range(ROUNDS):
        alone, _, alone_took = map(float, timed(program)[2].split())
        start = timed(supervised(folder, ["true"]))[1]
        _, cpu, said = timed(supervised(folder, program))
        own, whole, took = map(float, said.split()[-3:])
        rows.append(((cpu - whole - start) / took * 1e3, (own - alone) / took * 1e3, took / alone_took))
    names = ("supervisor_ms_s", "loop_ms_s", "lateness")
    suffix = f"_{name}" if name else ""
    return {
        f"{key}{suffix}": statistics.median(values) for key, values in zip(names, zip(*rows, strict=True), strict=True)
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = startup(folder) | messages(folder, "") | messages(folder, "sent")
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}, indent=2))
