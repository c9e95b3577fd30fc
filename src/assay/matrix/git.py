"""The few things that submitting asks of git; open it when a clone is not what was committed."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from assay.errors import DataError, UserError
from assay.matrix.submission import REGISTERED, REPORTS

NOBODY = {f"GIT_{role}_{part}": "assay@localhost" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}
SHOWN = 5
REPORTED = frozenset({".md", ".html", ".csv", ".json", ".png"})
"""Kinds of files in a report."""


def git(folder: Path, *arguments: str) -> str:
    """What a git command says, without its last line end.

    Raises:
        DataError: it failed; its own words follow.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(f"git: cannot be started in {folder} ({error.strerror}); install it") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"code {done.returncode}"
        raise DataError(f"git {' '.join(arguments)}: failed in {folder} ({said})")
    return done.stdout.removesuffix("\n")


def repository(folder: Path) -> Path:
    """The root of the repository around a folder.

    Raises:
        UserError: there is none, or it has no commit.
    """
    try:
        root = Path(git(folder, "rev-parse", "--show-toplevel"))
        git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    except DataError:
        raise UserError(
            f"{folder}: got no commit of a git repository; every run is a clone of one; git init, add and commit"
        ) from None
    return root


def refuse_without_dvc(root: Path) -> None:
    """A run is what DVC makes of a clone, which has what is committed.

    Raises:
        UserError: no DVC repository is committed at the root.
    """
    if not git(root, "ls-tree", "--name-only", "HEAD", "--", ".dvc"):
        given = f"{root}: got no DVC repository that is committed"
        raise UserError(f"{given}; allowed: one at the top of git's; there: dvc init, git add .dvc .dvcignore, commit")


def changed(root: Path, apart: Iterable[Path]) -> list[str]:
    """Tracked files that differ from the last commit, less some that do not matter."""
    status = git(root, "status", "--porcelain", "--untracked-files=no", "-z", "--no-renames")
    spared = {str(path.resolve().relative_to(root)) for path in apart if path.resolve().is_relative_to(root)}
    return sorted({entry[3:] for entry in status.split("\0") if entry} - spared)


def refuse_uncommitted(root: Path, pipeline: Path, study: Path) -> None:
    """A clone has what is committed and nothing else; what no run reads may differ: study file, registrations, reports.

    Raises:
        UserError: files that a run would lack, or have in an older version.
    """
    differing = [name for name in changed(root, [study]) if not _is_assays(Path(name))]
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        names = ", ".join(differing[:SHOWN]) + more
        raise UserError(f"{root}: got uncommitted changes in {names}; every run gets the last commit; commit or stash")
    for path in (pipeline, pipeline.with_name("params.yaml")):
        name = str(path.resolve().relative_to(root))
        if not git(root, "ls-tree", "--name-only", "HEAD", "--", name):
            raise UserError(f"{path}: got a file that is not committed; every run gets the last commit; commit it")


def _is_assays(path: Path) -> bool:
    """Whether assay writes a file that a person may commit, and no run reads it."""
    return path.name == REGISTERED or (REPORTS in path.parts[:-1] and path.suffix in REPORTED)


def with_identity(folder: Path) -> dict[str, str]:
    """The environment in which git commits: where nobody has told it a name, assay's."""
    try:
        git(folder, "config", "user.email")
    except DataError:
        return {**NOBODY, **os.environ}
    return dict(os.environ)
