"""A repository whose runs are described."""

import subprocess
from pathlib import Path

from assay.runs.provenance import describe
from assay.runs.record import Run

COMMAND = ["python", "train.py"]


class Repository:
    """A fresh git repository with one commit; `run` is where its run is recorded."""

    def __init__(self, root: Path) -> None:
        self.root, self.run = root, root / "runs" / "asl" / "deep" / "3"
        self.git("init", "-q")
        self.write("train.py", "print(1)\n")
        self.commit()

    def git(self, *arguments: str) -> str:
        """What git says to a command that must succeed."""
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@localhost")
        return subprocess.run(
            ["git", *identity, *arguments], cwd=self.root, check=True, capture_output=True, text=True
        ).stdout

    def write(self, name: str, content: str) -> None:
        """Write a file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def commit(self) -> str:
        """Commit everything; its number."""
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "x")
        return self.git("rev-parse", "HEAD").strip()

    def describe(self, *command: str) -> Run:
        """The run of a command given in the root."""
        return describe(self.run, command or COMMAND, self.root)

    def diff(self) -> str:
        """What was kept of the changes."""
        return (self.run / "source.diff").read_text()
