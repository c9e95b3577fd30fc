"""Apptainer: the command in an image file, as an ordinary user; open it to change what it sees of the host.

    python -m assay.containers.apptainer [--environment NAME ...] -- apptainer exec [options] IMAGE COMMAND ...

The program looks at the node, gives the command a temporary folder there, and says what to do if nothing starts.
"""

import csv
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from assay.containers import FORWARDED, PYTHON, Bind
from assay.containers.config import ContainerConfig
from assay.containers.host import FORWARDED_SIGNALS, committer, refuse_missing, variables
from assay.containers.remedies import explain
from assay.errors import AssayError, DataError, UserError
from assay.runs.processes import set_parent_death_signal

PROGRAMS = ("apptainer", "singularity")
ALONE = ("--containall", "--no-home", "--no-privs", "--no-eval")
"""Nothing of the host but what is bound: no home, no /tmp, no environment; no privilege that root would have. Without
the last one, what stands in backquotes or after $ in a variable's value would be run inside."""
NOT_STARTED = 255
"""What Apptainer itself ends with."""
KEPT = re.compile(r"(APPTAINER|SINGULARITY)_(CACHEDIR|TMPDIR|CONFIGDIR|LOCALCACHEDIR)")
"""Its own variables that do not change what a container sees."""
PROBE_WITHIN_S = 60


class Apptainer:
    """By the program `apptainer`, or the older `singularity`, of the node."""

    kind = "apptainer"
    python = PYTHON

    def __init__(self, config: ContainerConfig, binds: Sequence[Bind]) -> None:
        self.config = config
        self.binds = tuple(binds)

    def wrap(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        binds: Sequence[Bind] = (),
        gpus: int = 0,
        memory: float | None = None,
        environment: Sequence[str] = (),
    ) -> list[str]:
        """The command with all of Apptainer's options; a job's own memory limit holds for it too."""
        repository = Bind(source=folder, target=folder, writable=True)
        return [
            *(sys.executable, "-m", __name__),
            *(word for name in environment for word in ("--environment", name)),
            *("--", PROGRAMS[0], "exec", *ALONE),
            *([] if self.config.network else ["--net", "--network", "none"]),
            *(["--nv"] if gpus else []),
            *(word for bind in [repository, *self.binds, *binds] for word in ("--mount", mount(bind))),
            *("--pwd", str(folder), str(folder / str(self.config.image)), *command),
        ]

    def unavailable(self, folder: Path) -> list[str]:
        """No program, no image, or an image that does not start here."""
        try:
            image = folder / str(self.config.image)
            refuse_no_image(image)
            reason = probe([program(), "exec", *ALONE, str(image), PYTHON, "-c", "pass"])
        except AssayError as error:
            return [str(error)]
        return [reason] if reason else []


def mount(bind: Bind) -> str:
    """A bind as a value of --mount, which is a line of CSV, so any path can be said."""
    fields = ["type=bind", f"source={bind.source}", f"destination={bind.target}", *([] if bind.writable else ["ro"])]
    line = io.StringIO()
    csv.writer(line).writerow(fields)
    return line.getvalue().removesuffix("\r\n")


def mounts(arguments: Sequence[str]) -> Iterator[Bind]:
    """The binds among Apptainer's arguments."""
    for option, value in pairwise(arguments):
        if option == "--mount":
            (fields,) = csv.reader(io.StringIO(value, newline=""))
            told = dict(field.partition("=")[::2] for field in fields)
            yield Bind(source=Path(told["source"]), target=Path(told["destination"]), writable="ro" not in told)


def program() -> str:
    """The program's path.

    Raises:
        UserError: there is none.
    """
    for name in PROGRAMS:
        if found := shutil.which(name):
            return found
    host = os.uname().nodename
    raise UserError(
        f"apptainer: got no such program on PATH of {host}; install it, or on a cluster: module load apptainer"
    )


def refuse_no_image(image: Path) -> None:
    """An image is a file, or a folder that was unpacked.

    Raises:
        DataError: it is not there.
    """
    if not image.exists():
        raise DataError(f"container.image: got {image}, which does not exist; make it with: make apptainer")


def inner_environment(
    names: Sequence[str], environment: Mapping[str, str], more: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """The environment of Apptainer itself: what it is to set inside, and nothing else that would reach in."""
    own = {
        name: value
        for name, value in environment.items()
        if not name.startswith(("APPTAINER", "SINGULARITY")) or KEPT.fullmatch(name)
    }
    inside = {**more, **variables([*FORWARDED, "CUDA_VISIBLE_DEVICES", *names], environment)}
    return {**own, **{f"APPTAINERENV_{name}": value for name, value in inside.items()}}


def probe(command: Sequence[str]) -> str | None:
    """Why a command does not start inside, with the fix; None if it does."""
    try:
        done = subprocess.run(
            command,
            env=inner_environment([], os.environ),
            capture_output=True,
            text=True,
            check=False,
            timeout=PROBE_WITHIN_S,
        )
    except subprocess.TimeoutExpired:
        return f"apptainer: nothing started within {PROBE_WITHIN_S} s; is the image's file system slow or hung?"
    return explain(done.stderr) if done.returncode else None


def run(names: Sequence[str], command: Sequence[str]) -> int:
    """Run it to its end, with a temporary folder of its own; returns its exit code.

    Raises:
        UserError: the node lacks something.
    """
    options = command[: command.index("--pwd")]
    image = Path(command[command.index("--pwd") + 2])
    refuse_no_image(image)
    refuse_missing(list(mounts(options)))
    start = [program(), *command[1:2]]
    environment = inner_environment(names, os.environ, committer(Path(command[command.index("--pwd") + 1])))
    with tempfile.TemporaryDirectory(prefix="assay-", ignore_cleanup_errors=True) as scratch:
        code = _supervised([*start, "--workdir", scratch, *command[2:]], environment)
    if code == NOT_STARTED and (reason := probe([*start, *options[2:], str(image), "true"])):
        raise UserError(reason)
    return code


def _supervised(command: Sequence[str], environment: dict[str, str]) -> int:
    """Start it and pass signals on; the exit code, of a signal 128 and its number."""
    handled = [number for number in FORWARDED_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, handled)

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        set_parent_death_signal(signal.SIGTERM)

    process = subprocess.Popen(command, env=environment, preexec_fn=prepare)
    for number in handled:
        signal.signal(number, lambda received, _: process.send_signal(received))
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    code = process.wait()
    return code if code >= 0 else 128 - code


def main(arguments: list[str]) -> int:
    """The exit code of the command; an error takes a line."""
    own, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    try:
        return run(own[1::2], command)
    except AssayError as error:
        for line in str(error).splitlines():
            print(f"assay: {line}", file=sys.stderr, flush=True)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
