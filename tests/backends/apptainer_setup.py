"""A real Apptainer on a plain Debian 12, which has no package of it; for tests, as root.

    python tests/backends/apptainer_setup.py        what is missing, with apt-get

Debian's next release has one, built for a newer C library. It is unpacked into place, and that library beside it.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

HELPERS = {
    "mksquashfs": "squashfs-tools",
    "squashfuse": "squashfuse",
    "fuse-overlayfs": "fuse-overlayfs",
    "newuidmap": "uidmap",
    "patchelf": "patchelf",
}
LIBRARIES = ("libc6", "libseccomp2", "libsqlite3-0")
PRIVATE = Path("/opt/apptainer-libraries")
SESSION = Path("/var/lib/apptainer/mnt/session")
PROGRAMS = (Path("/usr/bin/apptainer"), Path("/usr/lib/x86_64-linux-gnu/apptainer/bin/starter"))
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
APT = ("apt-get", "-qq", "-oDPkg::Lock::Timeout=300")


def install() -> None:
    """Make `apptainer` work, unless it does."""
    packages = [package for program, package in HELPERS.items() if not shutil.which(program)]
    if packages:
        _run(*APT, "update")
        _run(*APT, "install", "--yes", "--no-install-recommends", *packages)
    if not shutil.which("apptainer"):
        with tempfile.TemporaryDirectory() as folder:
            _unpack(Path(folder))
        for program in PROGRAMS:
            _link_against_private_libraries(program)
    SESSION.mkdir(parents=True, exist_ok=True)
    # Where root has not every capability, as in a virtual machine, images are built in a user namespace.
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        if "root:" not in path.read_text():
            path.write_text(f"{path.read_text()}root:100000:65536\n")


def _unpack(folder: Path) -> None:
    """The program into place, its libraries apart; the state of apt on this machine is left alone."""
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    mirror = next(line.split()[1] for line in SOURCES.read_text().splitlines() if line.startswith("URIs:"))
    (folder / "sid.list").write_text(f"deb [signed-by={KEYRING}] {mirror} sid main\n")
    options = (
        f"-oDir::Etc::sourcelist={folder}/sid.list",
        "-oDir::Etc::sourceparts=/dev/null",
        f"-oDir::State::Lists={folder}/lists",
        f"-oDir::Cache={folder}/cache",
        "-oAPT::Sandbox::User=root",
    )
    _run("apt-get", "-qq", *options, "update")
    _run("apt-get", "-qq", *options, "download", "apptainer", *LIBRARIES, cwd=folder)
    for package in folder.glob("*.deb"):
        target = Path("/") if package.name.startswith("apptainer_") else folder / "libraries"
        _run("dpkg", "-x", str(package), str(target))
    shutil.rmtree(PRIVATE, ignore_errors=True)
    shutil.copytree(folder / "libraries/usr/lib/x86_64-linux-gnu", PRIVATE, symlinks=True)


def _link_against_private_libraries(program: Path) -> None:
    """Without --force-rpath what a library needs itself would be taken from the system."""
    _run("patchelf", "--set-interpreter", str(PRIVATE / "ld-linux-x86-64.so.2"), str(program))
    _run("patchelf", "--force-rpath", "--set-rpath", str(PRIVATE), str(program))


def _run(*command: str, cwd: Path | None = None) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: code {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    install()
