"""How long `assay report` takes over many runs.

    python benchmarks/report.py     1,000 arms x 5 seeds: seconds of the whole command, and the size of the page

The records are made up: most runs are complete, with metrics and a loss trace, the others failed, partial or lost, each
with a log. Goal: less than 60 s.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ARMS, SEEDS, GOAL_S = 1000, 5, 60.0


def main() -> int:
    """Make the records, report, say how long that took."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, "-m", "tests.reports.records", str(ARMS), str(SEEDS), folder]
        subprocess.run(make, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
        begun, used = time.perf_counter(), os.times().children_user
        report = [sys.executable, "-m", "assay", "report", f"{folder}/study.yaml"]
        subprocess.run(report, check=True, env=environment, stdout=subprocess.DEVNULL)
        seconds, cpu = time.perf_counter() - begun, os.times().children_user - used
        megabytes = (Path(folder) / "reports/made/report.html").stat().st_size / 2**20
    print(f"{ARMS} arms x {SEEDS} seeds: {seconds:.1f} s, of them {cpu:.1f} s CPU (goal: less than {GOAL_S:.0f} s)")
    print(f"report.html: {megabytes:.1f} MB")
    return 0 if seconds < GOAL_S else 1


if __name__ == "__main__":
    sys.exit(main())
