"""What a container asks of the host when its job starts: variables, binds, signals; open it when a job sees too little.

A job is rendered long before it starts, and elsewhere. The variables of its scheduler, and whether a path is there, are
known on the node alone, so the rendered command is a small program, `python -m assay.containers.KIND`, that looks.
"""

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from assay.containers import Bind
from assay.errors import DataError

FORWARDED_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGXCPU,
)
"""Requests to stop: of people, of Slurm (TERM, USR1), of LSF (USR2, XCPU), of a closed terminal."""
SECRET = re.compile(r"(?i)token|secret|passw|credential|jwt|auth(?!or)|(^|_)key(_|$)")


def variables(names: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that are named; those with a secret's name only if they are named in full."""
    wanted = list(names)
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in wanted or (not SECRET.search(name) and any(fnmatchcase(name, each) for each in wanted))
    }


def committer(folder: Path) -> dict[str, str]:
    """Who commits in a repository, by the settings of the host, as git's variables: inside, those are not seen."""
    found: dict[str, str] = {}
    for key in ("name", "email"):
        with suppress(OSError):
            asked = subprocess.run(
                ["git", "config", f"user.{key}"], cwd=folder, capture_output=True, text=True, check=False
            )
            if said := asked.stdout.removesuffix("\n"):
                found |= {f"GIT_{role}_{key.upper()}": said for role in ("AUTHOR", "COMMITTER")}
    return found


def refuse_missing(binds: Sequence[Bind]) -> None:
    """Nothing is made up where a bind has no source.

    Raises:
        DataError: a source is not there, or hidden; each is named.
    """
    host = os.uname().nodename
    missing = [bind for bind in binds if not bind.source.exists()]
    if missing:
        raise DataError(
            "\n".join(
                f"{bind.source}: is bound to {bind.target}, and is not there on {host}; make it there, "
                "or correct container.binds of the machine file"
                for bind in missing
            )
        )


def bind_words(binds: Iterable[Bind]) -> list[str]:
    """Binds as options of `python -m assay.containers.KIND`; three words each, so no character needs quoting."""
    return [
        word
        for bind in binds
        for word in ("--bind", str(bind.source), str(bind.target), "rw" if bind.writable else "ro")
    ]


def parse_bind_words(words: Iterable[Sequence[str]]) -> list[Bind]:
    """What `bind_words` wrote, as argparse gives it back."""
    return [Bind(source=Path(source), target=Path(target), writable=mode == "rw") for source, target, mode in words]
