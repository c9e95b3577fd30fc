"""Several computers for one stage: what each says to the others; open it when a node waits for another in vain.

    python -m assay.runs.nodes RUN [MACHINE]     on every node of a job but its first, as long as the job lasts

    RUN/nodes/JOB/NODE.ready             that node can be asked
    RUN/nodes/JOB/N.request              the Nth stage that several nodes are to run: command and place of each node
    RUN/nodes/JOB/N.NODE.ended           exit code of that node's part
    RUN/nodes/JOB/end                    the job is over
    RUN/nodes/JOB/N.over                 whoever still runs a part of it is to end it
    RUN/nodes/NODE/                      what that node's supervisor has kept, as of any run

The first node runs the pipeline; the others start nothing but ranks, each under a supervisor of its own. They speak by
files in the run's folder, which all nodes of a cluster see, written at once and seldom.
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from assay.errors import AssayError, ConfigError
from assay.files import write_bytes
from assay.progress import SOCKET
from assay.runs.processes import set_parent_death_signal
from assay.runs.ranks import PROCESSES, RANK, Ended, Place, free_port, node_name, processes_wanted, run_ranks
from assay.runs.store import PARTS

NODES, NODES_AT = "ASSAY_NODES", "ASSAY_NODES_AT"
"""Environment variables of a job of several nodes: how many, and the folder where they speak."""
END = "end"
READY_WITHIN_S = 300.0
"""How long the first node waits for the others: their containers start at different times."""
LOOK_EVERY_S = 0.5
ENDS_WITHIN_S = 5.0
"""How long ranks may take to end by themselves once the next stage is asked for."""
HANDED_ON = ("PYTHONPATH", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Variables that a rank on another node gets from the first node, besides those of assay."""


def meeting_place(run: Path, environment: Mapping[str, str]) -> Path | None:
    """Where the nodes of this job speak; None outside a job."""
    job = environment.get("SLURM_JOB_ID") or environment.get("LSB_JOBID")
    again = environment.get("SLURM_RESTART_COUNT", "0")
    return run / PARTS / f"{job}-{again}" if job else None


def say_the_end(run: Path, environment: Mapping[str, str]) -> None:
    """Let the other nodes of this job go, if there are any."""
    folder = meeting_place(run, environment)
    if folder is not None and folder.is_dir():
        write_bytes(folder / END, b"")


def launch(command: Sequence[str], given: int | None, environment: Mapping[str, str]) -> int:
    """Run a stage in as many processes as wanted, on all nodes of this job; returns the code that counts.

    Raises:
        ConfigError: they cannot be shared out evenly, or a node does not answer.
    """
    world, nodes = processes_wanted(given, environment), int(environment.get(NODES, "1"))
    if nodes == 1 or NODES_AT not in environment:
        return run_ranks(command, Place(world=world, local=world, port=free_port()))
    if world % nodes:
        raise ConfigError(f"{PROCESSES}: got {world} for {nodes} nodes; allowed: a multiple; set resources.processes")
    address = environment.get("MASTER_ADDR") or os.uname().nodename
    mine = Place(world=world, local=world // nodes, address=address, port=free_port())
    others = OtherNodes(Path(environment[NODES_AT]), nodes - 1)
    others.ask(command, mine, environment)
    return run_ranks(command, mine, others)


class OtherNodes:
    """The other nodes of a job, as its first one sees them."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.number = 1 + len(list(folder.glob("*.request")))
        self.names: list[str] = []
        self.looked = 0.0
        self.found: list[Ended] = []

    def ask(self, command: Sequence[str], mine: Place, environment: Mapping[str, str]) -> None:
        """Wait for all to be ready, then tell each which ranks are its own."""
        end = time.monotonic() + READY_WITHIN_S
        while len(self.names) < self.count:
            if time.monotonic() > end:
                got = f"{len(self.names)} of {self.count} other nodes within {READY_WITHIN_S:g} s"
                raise ConfigError(f"{self.folder}: got {got}; allowed: all; see the job's log for what they say")
            time.sleep(LOOK_EVERY_S)
            self.names = sorted(path.stem for path in self.folder.glob("*.ready"))
        names = [name for name in environment if name.startswith("ASSAY_") and name not in (SOCKET, NODES, NODES_AT)]
        request = {
            "command": list(command),
            "folder": os.getcwd(),
            "environment": {name: environment[name] for name in (*names, *HANDED_ON) if name in environment},
            "places": {
                name: dataclasses.asdict(dataclasses.replace(mine, first=(number + 1) * mine.local))
                for number, name in enumerate(self.names)
            },
        }
        write_bytes(self.folder / f"{self.number}.request", json.dumps(request).encode())

    def ended(self) -> list[Ended]:
        """Those whose ranks have all ended."""
        if time.monotonic() - self.looked > LOOK_EVERY_S:
            self.looked = time.monotonic()
            paths = {name: self.folder / f"{self.number}.{name}.ended" for name in self.names}
            codes = {name: int(path.read_text()) for name, path in paths.items() if path.exists()}
            self.found = [Ended(f"a rank on {name}", code) for name, code in codes.items()]
        return self.found

    def dismiss(self) -> None:
        """Have those end that have not."""
        write_bytes(self.folder / f"{self.number}.over", b"")


class Helper:
    """A node that is not the first of its job: runs its part of whatever stage it is asked for."""

    def __init__(self, run: Path, machine: str | None) -> None:
        folder = meeting_place(run, os.environ)
        if folder is None:
            raise ConfigError(f"{run}: got no job; allowed: within a job of several nodes; see docs/multi-gpu.md")
        self.run, self.machine, self.folder = run, machine, folder
        self.name = node_name(os.environ)
        self.part: subprocess.Popen[bytes] | None = None
        self.over = False

    def serve(self) -> int:
        """Until the first node, or a signal, says that the job is over."""
        for ends in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ends, self._end)
        signal.signal(signal.SIGUSR1, lambda received, _: self._pass_on(received))
        set_parent_death_signal(signal.SIGTERM)  # the scheduler's own process on this node was killed
        self.folder.mkdir(parents=True, exist_ok=True)
        number = 1
        write_bytes(self.folder / f"{self.name}.ready", b"")
        while not (self.over or (self.folder / END).exists()):
            path = self.folder / f"{number}.request"
            if path.exists():
                self._take_part(number, path)
                number += 1
            time.sleep(LOOK_EVERY_S)
        return 0

    def _take_part(self, number: int, path: Path) -> None:
        """Its ranks under a supervisor; what the others need to know is how that ended."""
        machine = ["--machine", self.machine] if self.machine else []
        part = [sys.executable, "-m", "assay.runs.nodes", "--part", str(path)]
        supervised = ["exec", "--run", str(self.run / PARTS / self.name), *machine, "--", *part]
        self.part = subprocess.Popen(
            [sys.executable, "-m", "assay", *supervised],
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: set_parent_death_signal(signal.SIGTERM),
        )
        told, newer = False, 0.0
        while self.part.poll() is None:
            over = any((self.folder / name).exists() for name in (f"{number}.over", END))
            if (self.folder / f"{number + 1}.request").exists():  # who asked may have been killed, and started again
                newer = newer or time.monotonic()
                over = over or time.monotonic() - newer > ENDS_WITHIN_S
            if over and not told:
                told = True
                self._pass_on(signal.SIGTERM)
            time.sleep(LOOK_EVERY_S)
        write_bytes(self.folder / f"{number}.{self.name}.ended", str(self.part.returncode).encode())

    def _end(self, number: int, frame: FrameType | None) -> None:
        self.over = True
        self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        if self.part is not None and self.part.poll() is None:
            self.part.send_signal(number)


def run_part(path: Path) -> int:
    """This node's ranks of a request, below its supervisor."""
    request: dict[str, Any] = json.loads(path.read_text())
    own = {name: os.environ[name] for name in (SOCKET, RANK) if name in os.environ}
    os.environ.update(request["environment"] | own)
    os.chdir(request["folder"])
    return run_ranks(request["command"], Place(**request["places"][node_name(os.environ)]))


def main(arguments: list[str]) -> int:
    """The exit code of a helper, or of a part; an error takes one line."""
    try:
        if arguments[:1] == ["--part"]:
            return run_part(Path(arguments[1]))
        return Helper(Path(arguments[0]), arguments[1] if len(arguments) > 1 else None).serve()
    except AssayError as error:
        print(f"assay: {error}", file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
