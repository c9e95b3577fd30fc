"""A real Slurm of two nodes on this computer, for tests: controller, two node daemons and munge in one folder; on
request with accounting, which adds slurmdbd and a MariaDB.

    python tests/backends/slurm.py install            what is missing, with apt-get
    python tests/backends/slurm.py start FOLDER       prints the SLURM_CONF to export
    python tests/backends/slurm.py stop FOLDER

It needs to be root, and shares nothing with a Slurm or a MariaDB that is installed otherwise: ports, sockets, keys and
state are its own.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

PROGRAMS = {"slurmctld": "slurm-wlm", "slurmd": "slurm-wlm", "sbatch": "slurm-wlm", "munged": "munge"}
MARIADB = {"mariadbd": "mariadb-server-core", "my_print_defaults": "mariadb-client-core"}
ACCOUNTING_PROGRAMS = {"slurmdbd": "slurmdbd", **MARIADB}
"""No package starts a daemon: slurmdbd has no configuration then, and those of MariaDB are its programs only."""
NODES = ("n1", "n2")
ACCOUNT = "lab"
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
{accounting}
JobAcctGatherType=jobacct_gather/linux
JobCompType=jobcomp/none
MinJobAge={keeps_s}
KillWait=30
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cpus} RealMemory=8000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations,limits"""
SLURMDBD_CONFIG = """\
DbdHost=localhost
DbdPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=accounting
"""
MARIADB_OPTIONS = (
    "--user=root",
    "--skip-networking",
    "--skip-log-bin",
    "--performance-schema=OFF",
    "--innodb-buffer-pool-size=16M",
    "--innodb-log-file-size=8M",
    "--innodb-flush-log-at-trx-commit=0",
    "--max-connections=20",
)
"""Little memory, and no waiting for the disk: nothing of it is to survive."""


class Cluster:
    """One cluster; its daemons can be stopped and started one by one, as faults do.

    keeps_s: how long the controller remembers what has ended. accounting: jobs are put on record, and are refused
    without an account; root has ACCOUNT.
    """

    def __init__(self, folder: Path, cpus: int = 2, keeps_s: int = 300, accounting: bool = False) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"
        self.cpus, self.keeps_s, self.accounting = cpus, keeps_s, accounting

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs that is to speak to this cluster."""
        return {"SLURM_CONF": str(self.config)}

    def start(self) -> None:
        """All daemons; returns when both nodes take jobs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)  # munge refuses to keep its socket where not everybody may look
        (self.folder / "state").mkdir(exist_ok=True)
        self._configure()
        self.start_munge()
        if self.accounting:
            self._start_database()
            self.start_accounting()
            self._open_account()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_until(lambda: self.ask("sinfo", "-h", "-o", "%T %D") == "idle 2")

    def _configure(self) -> None:
        """Files that the daemons read when they start."""
        host, ports = socket.gethostname().partition(".")[0], free_ports(4)
        accounting = ACCOUNTING.format(folder=self.folder, port=ports[3]) if self.accounting else NO_ACCOUNTING
        told = {"host": host, "folder": self.folder, "cpus": self.cpus, "keeps_s": self.keeps_s}
        self.config.write_text(CONFIG.format(**told, ports=ports, accounting=accounting))
        secrets = {"munge.key": os.urandom(128)}
        if self.accounting:
            secrets["slurmdbd.conf"] = SLURMDBD_CONFIG.format(folder=self.folder, port=ports[3]).encode()
        for name, text in secrets.items():
            (self.folder / name).touch(0o600)  # nobody else may read them
            (self.folder / name).write_bytes(text)

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

    def _start_database(self) -> None:
        """The MariaDB that slurmdbd keeps its records in; a socket is the only way to it."""
        data = f"--datadir={self.folder / 'mariadb'}"
        self._daemon("mariadb-install-db", "--no-defaults", "--user=root", "--skip-test-db", data)
        names = {"socket": "mariadb.socket", "pid-file": "mariadb.pid", "log-error": "mariadb.log"}
        files = [data, *(f"--{option}={self.folder / name}" for option, name in names.items())]
        self._daemon("setsid", "--fork", "mariadbd", "--no-defaults", *files, *MARIADB_OPTIONS)
        wait_until((self.folder / "mariadb.socket").exists)

    def start_accounting(self) -> None:
        """The daemon that keeps a record of every job."""
        self._daemon("slurmdbd")
        wait_until(lambda: self.ask("sacctmgr", "--noheader", "list", "user"))

    def _open_account(self) -> None:
        """For root, on this cluster."""
        whose = "Cluster=test"
        for added in (("cluster", "test"), ("account", ACCOUNT, whose), ("user", "root", f"Account={ACCOUNT}", whose)):
            self._daemon("sacctmgr", "--immediate", "add", *added)

    def stop_munge(self) -> None:
        """As after a crash of it."""
        self._end("munged.pid")

    def stop_controller(self) -> None:
        """As after a crash of it; jobs go on."""
        self._end("slurmctld.pid")

    def stop_accounting(self) -> None:
        """As after a crash of slurmdbd; the controller keeps what it has to say to it."""
        self._end("slurmdbd.pid")

    def stop(self) -> None:
        """Everything, jobs first: one whose end nobody takes note of stays for minutes."""
        with suppress(subprocess.SubprocessError, TimeoutError):
            subprocess.run(["scancel", "--user=root"], env=self._environment, timeout=10, capture_output=True)
            wait_until(lambda: not self.ask("squeue", "--noheader"), ENDS_WITHIN_S)
        nodes = [f"slurmd-{node}.pid" for node in NODES]
        for name in ("slurmctld.pid", *nodes, "slurmdbd.pid", "mariadb.pid", "munged.pid"):
            self._end(name)

    def ask(self, *command: str) -> str:
        """What a command says, nothing if it fails."""
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else ""

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, **self.environment, "MYSQL_UNIX_PORT": str(self.folder / "mariadb.socket")}

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
                wait_until(lambda: not Path(f"/proc/{pid}/exe").exists(), ENDS_WITHIN_S)  # a zombie has none
        path.unlink(missing_ok=True)


def install(accounting: bool = False) -> None:
    """Whatever is missing, from the machine's own package sources."""
    needed = {**PROGRAMS, **(ACCOUNTING_PROGRAMS if accounting else {})}
    missing = sorted({package for program, package in needed.items() if shutil.which(program) is None})
    if missing:
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--yes", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *command], check=True, env=quiet)


@contextmanager
def temporary_cluster(**options: Any) -> Iterator[Cluster]:
    """A cluster that runs, which every command given meanwhile speaks to; `options` are those of Cluster."""
    install(accounting=options.get("accounting", False))
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # munge's socket must have a short name
    cluster = Cluster(folder, **options)
    with patch.dict(os.environ, cluster.environment):
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()
            shutil.rmtree(folder, ignore_errors=True)


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
