"""A copy of this project as a fresh git repository, in which a test gives commands as a person would."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED = ("src", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "params.yaml", "studies")
SKIPPED = shutil.ignore_patterns("__pycache__", "*.egg-info", "cache", "tmp", ".assay", "data", "results")
IDENTITY = {f"GIT_{role}_{part}": "nobody@localhost" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")}


class Project:
    """A project folder and the environment that commands in it get: this interpreter, this copy's code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        source = {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        self.environment = {**os.environ, **IDENTITY, **source, "PATH": path}

    def write(self, name: str, text: str) -> None:
        """Write a file below the folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(self, command: str, within: str = ".") -> "subprocess.Popen[str]":
        """Start a command in a process group of its own; its output goes to one pipe."""
        return subprocess.Popen(
            command,
            shell=True,
            cwd=self.folder / within,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def give(self, command: str, within: str = ".") -> str:
        """Run a command that must succeed; returns what it said."""
        process = self.start(command, within)
        said, _ = process.communicate()
        assert process.returncode == 0, f"{command}\n{said}"
        return said

    def commit(self) -> None:
        """Commit everything."""
        self.give("git init -q && git add -A && git commit -q -m start")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first: processes that share the tests then end together."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """SIGINT is ignored where a shell has put the tests into the background, and children inherit that."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def make_project(tmp_path_factory) -> Callable[[], Project]:
    """A factory of fresh copies, not yet committed."""

    def make() -> Project:
        folder = tmp_path_factory.mktemp("project")
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=SKIPPED)
            else:
                shutil.copy(source, folder / name)
        return Project(folder)

    return make
