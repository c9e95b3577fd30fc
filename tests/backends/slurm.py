"""A real Slurm of two nodes on this computer, for tests: controller, two node daemons and munge in one folder.

    python tests/backends/slurm.py install            what is missing, with apt-get
    python tests/backends/slurm.py start FOLDER       prints the SLURM_CONF to export
    python tests/backends/slurm.py stop FOLDER

It needs to be root, and shares nothing with a Slurm that is installed otherwise: ports, keys and state are its own.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "munged": "munge"}
NODES = ("n1", "n2")
READY_WITHIN_S = 30.0
ENDS_WITHIN_S = 10.0
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldTimeout=120
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=5
ReturnToService=2
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobCompType=jobcomp/none
MinJobAge={keeps_s}
KillWait=30
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """One cluster; its daemons can be stopped and started one by one, as faults do. keeps_s: how long it remembers."""

    def __init__(self, folder: Path, cpus: int = 2, keeps_s: int = 300) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        self.cpus, self.keeps_s = cpus, keeps_s

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs that is to speak to this cluster."""
        return {"SLURM_CONF": str(self.config)}

    def start(self) -> None:
        """All daemons; returns when both nodes take jobs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munge refuses to keep its socket where not everybody may look
        (self.folder / "state").mkdir(exist_ok=True)
        host = socket.gethostname().partition(".")[0]
        told = {"host": host, "folder": self.folder, "ports": free_ports(3), "cpus": self.cpus, "keeps_s": self.keeps_s}
        self.config.write_text(CONFIG.format(**told))
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.start_munge()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T %D") == "idle 2")

    def start_munge(self) -> None:
        """The daemon that every message is signed by."""
        told = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
        files = [f"--{option}={self.folder / name}" for option, name in {**told, "seed-file": "munge.seed"}.items()]
        subprocess.run(["munged", "--force", *files], check=True, capture_output=True)
        wait_until((self.folder / "munge.socket").exists)

    def start_controller(self) -> None:
        """The daemon that decides what runs."""
        self._daemon("slurmctld", "-f", str(self.config))
        wait_until(lambda: self.ask("scontrol", "ping").endswith("is UP"))

    def start_node(self, name: str) -> None:
        """The daemon of one node."""
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._daemon("slurmd", "-N", name, "-f", str(self.config))

    def stop_munge(self) -> None:
        """As after a crash of it."""
        self._end("munged.pid")

    def stop_controller(self) -> None:
        """As after a crash of it; jobs go on."""
        self._end("slurmctld.pid")

    def stop(self) -> None:
        """Everything, jobs too."""
        with suppress(subprocess.SubprocessError):
            subprocess.run(["scancel", "--user=root"], env=self._environment, timeout=10, capture_output=True)
        for name in ("slurmctld.pid", *(f"slurmd-{node}.pid" for node in NODES), "munged.pid"):
            self._end(name)

    def ask(self, *command: str) -> str:
        """What a command says, nothing if it fails."""
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else ""

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment}

    def _daemon(self, *command: str) -> None:
        subprocess.run(command, env=self._environment, check=True, capture_output=True)

    def _end(self, name: str) -> None:
        path = self.folder / name
        if not path.is_file():
            return
        pid = int(path.read_text())
        for number in (signal.SIGTERM, signal.SIGKILL):  # a node daemon waits for its jobs
            with suppress(ProcessLookupError, TimeoutError):
                os.kill(pid, number)
                wait_until(lambda: not Path(f"/proc/{pid}").exists(), ENDS_WITHIN_S)
        path.unlink(missing_ok=True)


def install() -> None:
    """Whatever is missing, from the machine's own package sources."""
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
    if missing:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *command], check=True, env=quiet)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until(holds: Callable[[], object], within_s: float = READY_WITHIN_S) -> None:
    """Look again and again."""
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {within_s:g} s")
        time.sleep(0.1)


def main(arguments: list[str]) -> int:
    """install, start FOLDER or stop FOLDER."""
    match arguments:
        case ["install"]:
            install()
        case ["start", folder]:
            cluster = Cluster(Path(folder).absolute())
            cluster.start()
            print(f"export SLURM_CONF={cluster.config}")
        case ["stop", folder]:
            Cluster(Path(folder).absolute()).stop()
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
