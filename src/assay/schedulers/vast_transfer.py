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

from assay.errors import DataError, SchedulerError
from assay.files import write_bytes
from assay.schedulers.vast_client import Client
from assay.schedulers.vast_jobs import Ticket
from assay.schedulers.vast_machine import REFS, ROOT

READY = "ready"
TOLD = ("started", "files", "code")
"""What says how much the rest is worth: it counts only if it came with the last copy."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What is known of a job after a look at its machine; nothing unless something came.

    whole: whether all is here that the machine has laid out. code: None until the job has ended and that is so.
    """

    started: bool = False
    whole: bool = False
    code: int | None = None


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
    for name in TOLD:
        (staged / name).unlink(missing_ok=True)
    try:
        client.copy(f"C.{instance}:{ROOT}/out/", f"local:{staged.name}/", folder)
    except SchedulerError:
        if not (staged / "started").exists():
            raise  # else the rest, which takes long, comes with the next ones
    known = folder / f"{job_id}.sent"
    sent = json.loads(known.read_text()) if known.exists() else {}
    _install(staged, ticket.job.log.parent, sent)
    started = (staged / "started").exists()
    whole = started and _is_whole(staged)
    code = _code(staged) if whole else None
    if code is not None:
        for path in ticket.config.fetch:
            _install_missing(staged, Path("fetch") / path, ticket.job.folder / path)
        if (staged / "refs.bundle").exists():
            _git(ticket.job.folder, "fetch", "--quiet", str(staged / "refs.bundle"), f"+{REFS}*:{REFS}*")
    return Fetched(started=started, whole=whole, code=code)


def forget(folder: Path, job_id: str) -> None:
    """What was fetched is where it belongs; the copies go."""
    for kind in ("in", "out", "control"):
        shutil.rmtree(folder / f"{job_id}.{kind}", ignore_errors=True)
    (folder / f"{job_id}.sent").unlink(missing_ok=True)


def _stage(ticket: Ticket, folder: Path, job_id: str, staged: Path) -> None:
    """What is sent, in a folder; the last file says how long the others are, as nobody else does."""
    sent = _pack(ticket, staged / "files.tar")
    write_bytes(folder / f"{job_id}.sent", json.dumps(sent).encode())
    shutil.copyfile(ticket.job.script, staged / "job.sh")
    if ticket.bundle:
        kept = folder / ticket.bundle
        os.link(kept if kept.exists() else folder / bundle(ticket.job.folder, folder), staged / "repository.bundle")
    sizes = [f"{path.stat().st_size} {path.name}\n" for path in sorted(staged.iterdir())]
    (staged / READY).write_text("".join(sizes))


def _is_whole(staged: Path) -> bool:
    """Whether every file is here with the size that it has there; so it is before anything was laid out.

    Until the job has ended, a log may have grown since it was laid out.
    """
    listed, has_ended = staged / "files", (staged / "code").exists()
    for line in filter(None, listed.read_bytes().split(b"\0") if listed.exists() else []):
        size, _, name = line.partition(b" ")
        path = os.path.join(os.fsencode(staged), name)
        more = os.path.getsize(path) - int(size) if os.path.isfile(path) else -1
        if more < 0 or (more and has_ended):
            return False
    return True


def _code(staged: Path) -> int | None:
    try:
        return int((staged / "code").read_text())
    except (OSError, ValueError):
        return None


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


def _install(staged: Path, target: Path, sent: dict[str, list[int]]) -> None:
    """What the machine has made or changed; clocks differ, so no time here is compared with one there."""
    for path in _files(staged, Path("run")):
        name = str(path.relative_to(staged / "run"))
        here, look = target / name, _look(path)
        if look != sent.get(name) and not (here.exists() and _look(here) == look):
            _replace(path, here)


def _install_missing(staged: Path, name: Path, target: Path) -> None:
    """What is not here; of what is, the name is its content's."""
    for path in _files(staged, name):
        here = target / path.relative_to(staged / name)
        if not here.exists():
            _replace(path, here)


def _files(staged: Path, name: Path) -> list[Path]:
    """Those below a folder of what was fetched. A link is not followed: it may lead anywhere here."""
    folder = staged / name
    inside = folder.resolve() == staged.resolve() / name
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) if inside else []


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
