"""A real Docker daemon on this computer, and a base image made without a registry; for tests, as root.

    python tests/backends/docker_engine.py install           what is missing, with apt-get
    python tests/backends/docker_engine.py start FOLDER      prints the DOCKER_HOST to export
    python tests/backends/docker_engine.py stop FOLDER       ends it; its images stay in FOLDER
    python tests/backends/docker_engine.py base              makes the base's root file system, prints where it is

It shares nothing with a daemon that runs here anyhow: socket, images and state are in its folder.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

PROGRAMS = {"dockerd": "docker.io", "docker-init": "tini", "iptables": "iptables", "mmdebstrap": "mmdebstrap"}
BASE = ("--variant=minbase", "--include=python3,python3-venv,git,ca-certificates", "bookworm")
CACHE = Path.home() / ".cache/assay-tests"
"""Outside the repository: what takes minutes to make and never changes."""
BASE_IMAGE = "assay-base:bookworm"
READY_WITHIN_S = 60.0
ENDED_WITHIN_S = 30.0


def install() -> None:
    """With apt-get, as root."""
    packages = sorted({package for program, package in PROGRAMS.items() if not shutil.which(program)})
    if packages:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        apt = ["apt-get", "-qq", "-oDPkg::Lock::Timeout=300"]
        for command in ([*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", *packages]):
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)


class Engine:
    """One daemon."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder / 'docker.socket'}"
        self.pid_file = folder / "docker.pid"
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.pid_file.unlink(missing_ok=True)
        with (self.folder / "docker.log").open("ab") as log:
            self.daemon = subprocess.Popen(
                [
                    *("dockerd", "--host", self.host, "--pidfile", str(self.pid_file)),
                    *("--data-root", str(self.folder / "data"), "--exec-root", str(self.folder / "exec")),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        end = time.monotonic() + READY_WITHIN_S
        while not self.answers():
            if time.monotonic() > end:
                raise RuntimeError(f"{self.folder / 'docker.log'}: the daemon does not answer")
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether it can be used."""
        return subprocess.run(["docker", "--host", self.host, "info"], capture_output=True, check=False).returncode == 0

    def stop(self) -> None:
        """End it and wait for that."""
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int(self.pid_file.read_text())
            os.kill(pid, signal.SIGTERM)
            end = time.monotonic() + ENDED_WITHIN_S
            while Path(f"/proc/{pid}/cmdline").is_file() and self.pid_file.exists() and time.monotonic() < end:
                time.sleep(0.1)
        if self.daemon is not None:
            self.daemon.wait(ENDED_WITHIN_S)

    def give(self, *arguments: str) -> str:
        """What the client says; it must succeed."""
        done = subprocess.run(["docker", "--host", self.host, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout.strip()

    def import_base(self) -> None:
        """The base image, unless it is there."""
        if not self.give("images", "--quiet", BASE_IMAGE):
            self.give("import", str(base()), BASE_IMAGE)


def base() -> Path:
    """A root file system with Python, git and certificates, made once: a tar named after what it was made with."""
    made = CACHE / f"base-{hashlib.sha256(' '.join(BASE).encode()).hexdigest()[:12]}.tar"
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        fresh = made.with_suffix(".new.tar")
        subprocess.run(["mmdebstrap", "--quiet", *BASE, str(fresh)], check=True)
        fresh.replace(made)
    return made


if __name__ == "__main__":
    verb = sys.argv[1]
    if verb == "install":
        install()
    elif verb == "base":
        print(base())
    else:
        engine = Engine(Path(sys.argv[2]).absolute())
        {"start": engine.start, "stop": engine.stop}[verb]()
        print(f"export DOCKER_HOST={engine.host}" * (verb == "start"), end="")
