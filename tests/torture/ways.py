"""Ways to fail: programs, stages, what is done to them, and where; the corpus puts them together."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.runs.conftest import Supervised
from tests.torture.places import fill, memory_cgroup, stage, tiny_disk

PYTHON = sys.executable
NODE = os.uname().nodename
ENDS_WITHIN_S = 90.0
MIB = 2**20

Act = Callable[[Supervised, "subprocess.Popen[str]"], None]
Place = Callable[[Supervised], AbstractContextManager[object]]


def sh(text: str) -> list[str]:
    """A shell script, which a failure does not end."""
    return ["sh", "-c", text]


def python(text: str) -> list[str]:
    """A program that knows nothing of us."""
    return [PYTHON, "-c", text]


def toy(text: str, name: str = "train") -> list[str]:
    """A stage that announces itself, and says how it ended as the verb `stage` does; a pipeline tool is between."""
    body = "\n".join(f"    {line}" for line in text.splitlines())
    program = f"""
import sys
from assay import progress
from assay.errors import *
def work():
{body}
progress.announce("toy", "{name}")
try:
    work()
except Exception as error:
    code = getattr(error, "exit_code", 1)
    progress.verdict(code, str(error), type(error).__name__)
    print(f"{{type(error).__name__}}: {{error}}", file=sys.stderr)
    sys.exit(code)
progress.verdict(0)
"""
    return ["sh", "-c", '"$0" "$@" || exit 255', PYTHON, "-c", program]


def then(*commands: list[str]) -> list[str]:
    """One after the other, until one fails."""
    return ["sh", "-c", " && ".join(shlex.join(command) for command in commands) + " || exit 255"]


def send(*numbers: int) -> Act:
    """Signal it, as a scheduler or a person would."""

    def act(supervised: Supervised, process: "subprocess.Popen[str]") -> None:
        for number in numbers:
            process.send_signal(number)
            time.sleep(1.2)

    return act


def kill_supervisor(supervised: Supervised, process: "subprocess.Popen[str]") -> None:
    """As the kernel does, short of memory."""
    os.kill(supervised.attempt()["holder"]["pid"], signal.SIGKILL)


def kill_guardian(supervised: Supervised, process: "subprocess.Popen[str]") -> None:
    """The supervisor lives to tell."""
    process.kill()


def kill_both(supervised: Supervised, process: "subprocess.Popen[str]") -> None:
    """As at the end of a node."""
    holder = supervised.attempt()["holder"]["pid"]
    process.send_signal(signal.SIGSTOP)
    os.kill(holder, signal.SIGKILL)
    process.kill()


def memory(mib: int) -> Place:
    """A job with so much memory."""

    @contextmanager
    def place(supervised: Supervised) -> Iterator[None]:
        with memory_cgroup(mib * MIB) as supervised.prefix:
            yield

    return place


@contextmanager
def full_disk(supervised: Supervised) -> Iterator[None]:
    """A folder `disk` without room."""
    with tiny_disk(supervised.folder / "disk", "64k") as disk:
        fill(disk)
        yield


@contextmanager
def full_checkpoints(supervised: Supervised) -> Iterator[None]:
    """No room for checkpoints."""
    with full_disk(supervised):
        supervised.environment["ASSAY_CHECKPOINTS"] = str(supervised.folder / "disk")
        yield


@contextmanager
def foreign_checkpoint(supervised: Supervised) -> Iterator[None]:
    """Checkpoints of another run where this one's belong."""
    root = supervised.folder / "checkpoints"
    supervised.environment["ASSAY_CHECKPOINTS"] = str(root)
    supervised.run(command=stage("--identity", "another-run-1234"), within_s=ENDS_WITHIN_S)
    (root / "toy-another-run-1234").rename(root / "toy-0123456789abcdef")
    (supervised.folder / "run").rename(supervised.folder / "other")
    yield


@contextmanager
def in_slurm(supervised: Supervised) -> Iterator[None]:
    """A job that Slurm ends in four seconds."""
    end = {"SLURM_JOB_END_TIME": str(int(time.time()) + 5)}
    supervised.environment |= {"SLURM_JOB_ID": "4711", "SLURMD_NODENAME": NODE, **end}
    yield


def limited(mib: int) -> str:
    """Lines that leave a program so much address space."""
    return f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({mib * MIB}, {mib * MIB}))\n"
