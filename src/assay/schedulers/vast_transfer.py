"""What goes to a rented machine and what comes back; open it when something of a run is missing there or here.

All of it goes through `vastai copy`, which is rsync through ssh from this side: it needs neither a public address here
nor an account, a token or a key of the user's on the machine, and works on a machine that has stopped.
"""

import json
import os
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

from assay.errors import DataError
from assay.schedulers.vast_client import Client
from assay.schedulers.vast_jobs import Ticket
from assay.schedulers.vast_machine import REFS, ROOT

READY = "ready"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What is known of a job after a look at its machine. code: None until it has ended and all of it is here."""

    started: bool
    code: int | None


def bundle(repository: Path, folder: Path) -> str:
    """The last commit with its history, as a file below the folder; its name, empty where there is no repository.

    Raises:
        DataError: git failed.
    """
    if not (repository / ".git").exists():
        return ""
    commit = _git(repository, "rev-parse", "HEAD").strip()
    name = f"{commit}.bundle"
    if not (folder / name).exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}.bundle"
        _git(repository, "bundle", "create", "--quiet", str(temporary), "HEAD")
        temporary.replace(folder / name)
    return name


def send(client: Client, instance: int, ticket: Ticket, folder: Path, job_id: str) -> None:
    """Have the machine begin; to be said again until it has. It gets the last commit, the run's folder, and `send`.

    Raises:
        SchedulerError: nobody answers.
        DataError: something that is to be sent is not there.
    """
    staged = folder / f"{job_id}.out"
    if not (staged / READY).exists():
        _stage(ticket, folder, job_id, _emptied(staged))
    client.copy(f"local:{staged.name}/", f"C.{instance}:{ROOT}/in/", folder)


def ask_to_end(client: Client, instance: int, folder: Path, job_id: str) -> None:
    """Have the job save and stop.

    Raises:
        SchedulerError: nobody answers.
    """
    staged = _emptied(folder / f"{job_id}.control")
    (staged / "end").touch()
    client.copy(f"local:{staged.name}/", f"C.{instance}:{ROOT}/control/", folder)


def fetch(client: Client, instance: int, ticket: Ticket, folder: Path, job_id: str) -> Fetched:
    """Bring here what the machine has laid out, and put it where it belongs.

    Raises:
        SchedulerError: nobody answers.
        DataError: git or the disk failed.
    """
    staged = folder / f"{job_id}.in"
    staged.mkdir(exist_ok=True)
    client.copy(f"C.{instance}:{ROOT}/out/", f"local:{staged.name}/", folder)
    known = folder / f"{job_id}.sent"
    sent = json.loads(known.read_text()) if known.exists() else {}
    _install(staged / "run", ticket.job.log.parent, sent)
    code = _code(staged)
    if code is not None:
        _install_missing(staged / "fetch", ticket.job.folder)
        if (staged / "refs.bundle").exists():
            _git(ticket.job.folder, "fetch", "--quiet", str(staged / "refs.bundle"), f"+{REFS}*:{REFS}*")
    return Fetched(started=(staged / "started").exists(), code=code)


def forget(folder: Path, job_id: str) -> None:
    """What was fetched is where it belongs; the copies go."""
    for kind in ("in", "out", "control"):
        shutil.rmtree(folder / f"{job_id}.{kind}", ignore_errors=True)
    (folder / f"{job_id}.sent").unlink(missing_ok=True)


def _stage(ticket: Ticket, folder: Path, job_id: str, staged: Path) -> None:
    """What is sent, in a folder; the last file says how long the others are, as nobody else does."""
    sent = _pack(ticket, staged / "files.tar")
    (folder / f"{job_id}.sent").write_text(json.dumps(sent))
    shutil.copyfile(ticket.job.script, staged / "job.sh")
    if ticket.bundle:
        kept = folder / ticket.bundle
        os.link(kept if kept.exists() else folder / bundle(ticket.job.folder, folder), staged / "repository.bundle")
    sizes = [f"{path.stat().st_size} {path.name}\n" for path in sorted(staged.iterdir())]
    (staged / READY).write_text("".join(sizes))


def _code(staged: Path) -> int | None:
    """The exit code, once every file is here with the size that it has there."""
    try:
        code = int((staged / "code").read_text())
        listed = (staged / "files").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    for line in filter(None, listed):
        size, _, name = line.partition(b" ")
        path = os.path.join(os.fsencode(staged), name)
        if not os.path.isfile(path) or os.path.getsize(path) != int(size):
            return None
    return code


def _pack(ticket: Ticket, target: Path) -> dict[str, list[int]]:
    """Paths from the root, as they are to be there. Returns the files of the run and what they looked like."""
    job = ticket.job
    run = job.log.parent
    with tarfile.open(target, "w") as tar:
        for path in (run, *(job.folder / name for name in ticket.config.send)):
            if not path.exists():
                raise DataError(f"vast.send: {path} is not there; correct the machine file, or make it")
            tar.add(path, arcname=str(path).lstrip("/"))
    return {str(path.relative_to(run)): _look(path) for path in run.rglob("*") if path.is_file()}


def _install(source: Path, target: Path, sent: dict[str, list[int]]) -> None:
    """What the machine has made or changed; clocks differ, so no time here is compared with one there."""
    for path in _files(source):
        name = str(path.relative_to(source))
        here, look = target / name, _look(path)
        if look != sent.get(name) and not (here.exists() and _look(here) == look):
            _replace(path, here)


def _install_missing(source: Path, target: Path) -> None:
    """What is not here; of what is, the name is its content's."""
    for path in _files(source):
        here = target / path.relative_to(source)
        if not here.exists():
            _replace(path, here)


def _files(folder: Path) -> list[Path]:
    """A link is not followed: it may lead anywhere here."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _look(path: Path) -> list[int]:
    """Size in bytes, and the time in whole s: what both tar and rsync keep."""
    found = path.stat()
    return [found.st_size, int(found.st_mtime)]


def _replace(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.getpid()}.fetched")
    shutil.copy2(source, temporary)
    temporary.replace(target)


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise DataError(f"{folder}: git {words[0]}: {' '.join(done.stderr.split())[:300]}; correct that, submit again")
    return done.stdout
