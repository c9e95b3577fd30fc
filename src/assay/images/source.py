"""What an image is made from: the last commit, the base, the wheels; open it to see what gets into a build."""

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from assay.errors import ConfigError
from assay.matrix.git import changed, git, repository

FILES = ("Dockerfile", "apptainer.def", "pyproject.toml", "requirements", "scripts", "src")
WHEELHOUSE = ".wheelhouse"
NO_WHEELS = "requirements"
"""A folder that is there and has no wheels: the build then asks the registry."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """One commit of a repository with a Dockerfile, and what it is built upon. epoch: the commit's time in s."""

    root: Path
    torch: str
    base: str
    wheelhouse: Path | None
    commit: str
    lock: str
    epoch: int

    @classmethod
    def of(cls, folder: Path, torch: str, base: str | None, wheelhouse: Path | None) -> "Source":
        """The last commit of the repository around a folder.

        Raises:
            UserError: there is no commit, it has no Dockerfile or that names no base, or the wheelhouse is no folder.
        """
        root = repository(folder)
        if not git(root, "ls-tree", "--name-only", "HEAD", "--", "Dockerfile"):
            allowed = "a repository whose last commit has one, as assay's has"
            raise ConfigError(f"{root}: got no Dockerfile; allowed: {allowed}; go there, or commit it")
        if wheelhouse is not None and not wheelhouse.is_dir():
            raise ConfigError(f"--wheelhouse: got {wheelhouse}; allowed: a folder; do: make wheelhouse")
        usual = root / WHEELHOUSE
        return cls(
            root=root,
            torch=torch,
            base=base or _base(root),
            wheelhouse=wheelhouse.absolute() if wheelhouse else usual if usual.is_dir() else None,
            commit=git(root, "rev-parse", "HEAD"),
            lock=lock_digest(root),
            epoch=int(git(root, "log", "-1", "--format=%ct")),
        )

    def uncommitted(self) -> list[str]:
        """Changed files that the image will not have."""
        return [name for name in changed(self.root, []) if name.startswith(FILES)]

    @contextmanager
    def context(self) -> Iterator[Path]:
        """A folder with what the build may see, and nothing else of the working tree."""
        with TemporaryDirectory(prefix="assay-image-") as folder:
            with tarfile.open(fileobj=io.BytesIO(_output(self.root, "archive", "HEAD", "--", *FILES))) as archive:
                archive.extraction_filter = _for_all  # Python before 3.11.4 does not look at it, and has no `filter`
                archive.extractall(folder, [_for_all(member, folder) for member in archive])
            if self.wheelhouse is not None:
                shutil.copytree(self.wheelhouse, Path(folder) / WHEELHOUSE, copy_function=_link)
            yield Path(folder)


def lock_digest(root: Path) -> str:
    """SHA-256 of the lock files of the last commit, one after the other in the order of their names."""
    names = sorted(git(root, "ls-tree", "--name-only", "HEAD", "--", "requirements/").splitlines())
    content = b"".join(_output(root, "show", f"HEAD:{name}") for name in names)
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _base(root: Path) -> str:
    """The base that the last commit's Dockerfile names."""
    found = re.search(r"^ARG BASE_IMAGE=(\S+)", git(root, "show", "HEAD:Dockerfile"), re.MULTILINE)
    if found is None:
        allowed = "one in its last commit, or --base-image NAME"
        raise ConfigError(f"{root}/Dockerfile: got no line ARG BASE_IMAGE=NAME; allowed: {allowed}; give --base-image")
    return found[1]


def _for_all(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """A member of git's archive that everybody may read, whatever the umask and git's own: modes are in the image."""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


def _output(root: Path, *arguments: str) -> bytes:
    """What git says, to the byte. That there is a commit, and what is in it, is known by now."""
    return subprocess.run(["git", *arguments], cwd=root, stdout=subprocess.PIPE, check=True).stdout


def _link(source: str, target: str) -> None:
    """Hundreds of megabytes; a copy only where the folders are on two file systems."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
