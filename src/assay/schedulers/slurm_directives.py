"""Options of sbatch as lines of a script, whatever characters they hold; open it when a name arrives changed."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

PLAIN = re.compile(r"[\w./:,=@%+-]+", re.ASCII)


def directives(options: Mapping[str, object]) -> list[str]:
    """As sbatch reads them: within quotes a backslash makes any character an ordinary one; a line end cannot be."""
    told = {name: re.sub(r"\s", " ", str(value)) for name, value in options.items() if value is not None}
    return [f"#SBATCH --{name}={value if PLAIN.fullmatch(value) else _quoted(value)}" for name, value in told.items()]


def _quoted(value: str) -> str:
    return '"{}"'.format(value.replace("\\", r"\\").replace('"', r"\""))


def pattern(log: Path) -> str:
    """The file as sbatch takes it, if it can: for Slurm's own words. What the command says is written there anyway."""
    path = str(log)
    return path.replace("%", "%%") if path.isprintable() and "\\" not in path else os.devnull
