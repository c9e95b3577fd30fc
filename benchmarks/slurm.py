"""What a thousand runs cost on a real Slurm of two nodes: to submit, to look at, to cancel.

    sudo python benchmarks/slurm.py [RUNS]

Starts the Slurm of the tests (munge, a controller, two nodes, all on this computer) with both nodes taken, so that all
runs wait. Printed are seconds of whole commands by the clock and by CPU time, medians of three where one can repeat.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.backends.place import TWO_ARMS, Place  # noqa: E402 - found from here only
from tests.backends.slurm import Cluster, temporary_cluster  # noqa: E402

REPETITIONS = 3


def cost(command: Callable[[], object], repetitions: int = 1) -> str:
    """Seconds by the clock, and of CPU time of what it starts."""
    taken = []
    for _ in range(repetitions):
        begun, before = time.perf_counter(), os.times()
        command()
        after = os.times()
        taken.append((time.perf_counter() - begun, sum(after[2:4]) - sum(before[2:4])))
    clock, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
    return f"{clock:6.2f} s, of them {cpu:6.2f} s CPU"


def measure(place: Place, cluster: Cluster, runs: int) -> None:
    """Submit, look, cancel."""
    words = place.folder / ".assay/slurm/words.json"

    def ask_anew() -> None:
        words.unlink(missing_ok=True)
        place.give("assay", "status", "study.yaml")

    print(f"assay submit, {runs} runs      {cost(place.submit)}")
    waiting = cluster.ask("squeue", "--noheader", "--array", "--states=pending", "--format=%F").split()
    print(f"    {len(waiting)} jobs wait, in {len(set(waiting))} calls of sbatch")
    print(f"squeue alone                {cost(lambda: cluster.ask('squeue', '--array', '--states=all'), REPETITIONS)}")
    print(f"assay status, squeue asked  {cost(ask_anew, REPETITIONS)}")
    print(f"assay status, within 30 s   {cost(lambda: place.give('assay', 'status', 'study.yaml'), REPETITIONS)}")
    print(f"assay submit, once more     {cost(place.submit)}")
    print(f"assay cancel                {cost(lambda: place.give('assay', 'cancel', 'study.yaml'))}")


def main() -> int:
    """Both nodes are taken for as long as it lasts."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with temporary_cluster() as cluster, tempfile.TemporaryDirectory() as work:
        taken = ["sbatch", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 3600"]
        subprocess.run(taken, check=True, stdout=subprocess.DEVNULL)
        study = TWO_ARMS.replace("seeds: [0]", f"seeds: {list(range(runs // 2))}")
        measure(Place(Path(work), study=study), cluster, runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
