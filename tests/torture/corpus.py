"""Failures that really happen, each with the state and cause that a person who saw it would give.

`python -m tests.torture.corpus FOLDER` makes them all below FOLDER and prints which are diagnosed otherwise.
"""

import shlex
import signal
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from tests.runs.conftest import Supervised
from tests.torture.places import stage
from tests.torture.ways import (
    ENDS_WITHIN_S,
    NODE,
    PYTHON,
    Act,
    Place,
    foreign_checkpoint,
    full_checkpoints,
    full_disk,
    in_slurm,
    kill_both,
    kill_guardian,
    kill_supervisor,
    limited,
    memory,
    python,
    send,
    sh,
    then,
    toy,
)

from assay.runs.diagnose import Diagnosis, diagnose
from assay.runs.store import RunFolder


@dataclass(frozen=True)
class Failure:
    """A way to fail and its label. act: done once the log says "ready"; place: where it runs."""

    name: str
    cause: str
    command: list[str]
    state: str = "failed"
    options: tuple[str, ...] = ()
    act: Act | None = None
    place: Place = lambda supervised: nullcontext()

    def make(self, supervised: Supervised) -> Diagnosis:
        """Fail, and diagnose what the record has to say about it."""
        with self.place(supervised):
            process = supervised.start(*self.options, command=self.command)
            if self.act is not None:
                supervised.wait_for("ready", ENDS_WITHIN_S)
                self.act(supervised, process)
            process.communicate(timeout=ENDS_WITHIN_S)
            assert supervised.ended()
        return diagnose(RunFolder(supervised.folder / "run").read(), time.time())


SAVE = "if progress.stop_requested(): raise Unfinished('stopped; the same command goes on from there')"
LOOP = """
import time
with progress.phase("train", 1000) as p:
    print("ready", flush=True)
    for _ in range(1000):
        {look}
        time.sleep(0.05)
        p.advance()
"""
STEPPING, DEAF = LOOP.format(look=SAVE), LOOP.format(look="pass")
WAIT = sh("echo ready; exec sleep 100")
STUBBORN = sh("trap '' TERM INT USR1; echo ready; while :; do sleep 0.1; done")
SEGFAULT = [PYTHON, "-c", "import ctypes; ctypes.string_at(0)"]
CUSTOM = "class PhysicsBroken(Exception): pass\nraise PhysicsBroken('mass is negative')"
CHAINED = "try: {}['k']\nexcept KeyError as error: raise RuntimeError('no k') from error"
GROUP = "raise ExceptionGroup('both', [ValueError(1), KeyError(2)])"
POOL = "from multiprocessing import Pool\nwith Pool(1) as p: p.map(open, ['no-such-file'])"
LONG_AGO = "print('No space left on device, so kept in memory')\nfor i in range(100): print(i)\nfloat('x')"
HANDLED = "import os, traceback\ntry: 1 / 0\nexcept ZeroDivisionError: traceback.print_exc()\nos.kill(os.getpid(), 9)"
LOGGED = "import logging, sys\ntry: 1 / 0\nexcept ZeroDivisionError: logging.exception('failed')\nsys.exit(3)"
INTERRUPT = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
USAGE = "import argparse; argparse.ArgumentParser().parse_args(['--x'])"
REFUSED = "raise ConfigError('train.lr: got x; allowed: a number; correct it')"
HOG = "kept = [bytearray(10**7) for _ in range(100)]"
SLOW_HOG = "import time\nkept = []\nfor _ in range(60):\n    kept.append(bytearray(10**7)); time.sleep(0.05)"
GPU = """
import torch
raise torch.OutOfMemoryError(
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.12 GiB is "
    "free. Including non-PyTorch memory, this process has 22.50 GiB memory in use."
)
"""
FIFO = """
import os
os.path.exists("fifo") or os.mkfifo("fifo")
with progress.phase("{phase}"):
    open("fifo").read()
"""
LOADER = """
import os
from torch.utils.data import DataLoader, Dataset

class Bad(Dataset):
    def __len__(self): return 4
    def __getitem__(self, index): {fault}

for _ in DataLoader(Bad(), num_workers=1): pass
"""
LOADER_RAISES = LOADER.format(fault="raise ValueError(index)")
LOADER_DIES = LOADER.format(fault="os.kill(os.getpid(), 9)")
LOADER_HOGS = LOADER.format(fault="return [bytes([index]) * 10**7 for _ in range(200)]")
SIMULATED = toy("pass", "simulate")
BOUND = ("--stall-after", "1")

COMMANDS = [
    Failure("exit code", "unknown", sh("exit 7")),
    Failure("silent", "unknown", ["false"]),
    Failure("no such command in a script", "unknown", sh("no-such-command")),
    Failure("a tool that complains", "unknown", ["sh", "-ec", "ls /no-such-folder; echo on"]),
    Failure("sys.exit with words", "unknown", python("import sys; sys.exit('no data today')")),
    Failure("usage", "config", python(USAGE)),
    Failure("a verb's refusal", "config", [PYTHON, "-m", "assay", "stage", "asl", "no-such-stage"]),
    Failure("ValueError", "ValueError", python("float('x')")),
    Failure("FileNotFoundError", "FileNotFoundError", python("open('no-such-file')")),
    Failure("KeyError", "KeyError", python("{}['key']")),
    Failure("AssertionError", "AssertionError", python("assert 1 == 2, 'numbers differ'")),
    Failure("AssertionError without words", "AssertionError", python("assert 1 == 2")),
    Failure("ModuleNotFoundError", "ModuleNotFoundError", python("import no_such_module")),
    Failure("ImportError", "ImportError", python("from os import no_such_name")),
    Failure("SyntaxError", "SyntaxError", python("x = = 1")),
    Failure("RecursionError", "RecursionError", python("def f(): f()\nf()")),
    Failure("an exception of its own", "PhysicsBroken", python(CUSTOM)),
    Failure("chained exceptions", "RuntimeError", python(CHAINED)),
    Failure("exception in many lines", "ValueError", python("raise ValueError('one\\nTwo: three\\nfour')")),
    Failure("exception group", "ExceptionGroup", python(GROUP)),
    Failure("exception in a pool", "FileNotFoundError", python(POOL)),
    Failure("exception in a pipeline", "IndexError", sh(f"{PYTHON} -c '[][0]' || exit 255")),
    Failure("exception that was logged", "ZeroDivisionError", python(LOGGED)),
    Failure("exception long after a full disk", "ValueError", python(LONG_AGO)),
    Failure("exception in a loader", "ValueError", python(LOADER_RAISES)),
    Failure("loader killed", "RuntimeError", python(LOADER_DIES)),
]
SIGNALS = [
    Failure("segmentation fault", "signal SIGSEGV", SEGFAULT),
    Failure("segmentation fault in a script", "signal SIGSEGV", sh(f"{shlex.join(SEGFAULT)}; exit $?")),
    Failure("abort", "signal SIGABRT", python("import os; os.abort()")),
    Failure("SIGKILL", "signal SIGKILL", sh("kill -KILL $$")),
    Failure("137 with memory left", "signal SIGKILL", sh("sh -c 'kill -KILL $$'; exit $?"), place=memory(4096)),
    Failure("SIGTERM from elsewhere", "signal SIGTERM", sh("kill -TERM $$")),
    Failure("SIGINT from elsewhere", "signal SIGINT", python(INTERRUPT)),
    Failure("killed after a handled exception", "signal SIGKILL", python(HANDLED)),
    Failure("told to stop", "signal SIGTERM", WAIT, "partial", act=send(signal.SIGTERM)),
    Failure("told to stop by USR1", "signal SIGUSR1", WAIT, "partial", act=send(signal.SIGUSR1)),
    Failure("stage told to stop", "signal SIGTERM", toy(STEPPING), "partial", act=send(signal.SIGTERM)),
    Failure("told twice", "signal SIGTERM", STUBBORN, act=send(signal.SIGTERM, signal.SIGTERM)),
    Failure("interrupted twice", "signal SIGINT", STUBBORN, "cancelled", act=send(signal.SIGINT, signal.SIGINT)),
    Failure("supervisor killed", "unknown", WAIT, "lost", act=kill_supervisor),
    Failure("node gone", "unknown", toy(STEPPING), "lost", act=kill_both),
    Failure("guardian killed", "signal SIGKILL", WAIT, act=kill_guardian),
]
DEADLINES = [
    Failure("deadline", "time limit", WAIT, "partial", ("--deadline", "2")),
    Failure("deadline of a job", "time limit", WAIT, "partial", place=in_slurm),
    Failure("deadline of a stage", "time limit", toy(STEPPING), "partial", ("--deadline", "6")),
    Failure("deadline of a deaf stage", "time limit", toy(DEAF), "partial", ("--deadline", "6")),
    Failure("deadline of stage 2", "time limit", then(SIMULATED, toy(STEPPING)), "partial", ("--deadline", "7")),
]
STAGES = [
    Failure("stage's config", "config", toy(REFUSED)),
    Failure("stage's exception", "KeyError", toy("{}['phantom']")),
    Failure("exception in stage 2", "ZeroDivisionError", then(SIMULATED, toy("1 / 0"))),
    Failure("stage killed", "signal SIGKILL", toy("import os; os.kill(os.getpid(), 9)")),
    Failure("exception in a stage's loader", "ValueError", toy(LOADER_RAISES)),
    Failure("checkpoints of another run", "config", stage(), place=foreign_checkpoint),
    Failure("NaN", "NaN", stage("--bad-from", "3")),
    Failure("NaN in a plain program", "NaN", python("import sys\nprint('epoch 3 loss: nan')\nsys.exit(1)")),
    Failure("NaN by assertion", "NaN", python("assert False, 'loss is nan'")),
]
MEMORY = [
    Failure("GPU memory in a stage", "GPU OOM", toy(GPU)),
    Failure("GPU memory", "GPU OOM", python(GPU)),
    Failure("memory of the job, at once", "host OOM", python(HOG), place=memory(200)),
    Failure("memory of the job, slowly", "host OOM", toy(SLOW_HOG), place=memory(200)),
    Failure("memory of the job, in a loader", "host OOM", python(LOADER_HOGS), place=memory(1000)),
    Failure("address space", "host OOM", python(limited(100) + HOG)),
    Failure("address space of a stage", "host OOM", toy(limited(100) + HOG)),
    Failure("address space, numpy", "host OOM", python("import numpy\n" + limited(2000) + "numpy.ones(10**9)")),
    Failure("address space, torch", "host OOM", python("import torch\n" + limited(4000) + "torch.ones(10**9)")),
]
DISKS = [
    Failure("full disk", "disk full", python("open('disk/x', 'wb').write(bytes(100_000))"), place=full_disk),
    Failure("full disk in a script", "disk full", ["sh", "-ec", "cp /etc/services disk/"], place=full_disk),
    Failure("full disk for checkpoints", "disk full", stage(), place=full_checkpoints),
]
STALLS = [
    Failure("stall in loading", f"stall@load@{NODE}", toy(FIFO.format(phase="load")), options=BOUND),
    Failure("stall in training", f"stall@train@{NODE}", toy(FIFO.format(phase="train")), options=BOUND),
    Failure("stall of a plain command", f"stall@command@{NODE}", ["sleep", "100"], options=BOUND),
    Failure("stall that a stage saw itself", f"stall@unknown@{NODE}", toy("progress.verdict(76)\nsys.exit(76)")),
]
FAILURES = [*COMMANDS, *SIGNALS, *DEADLINES, *STAGES, *MEMORY, *DISKS, *STALLS]


def make_all(folder: Path, at_once: int) -> list[tuple[Failure, Diagnosis]]:
    """Every failure, in folders of their own."""

    def make(number: int) -> Diagnosis:
        place = folder / f"{number:03d}"
        place.mkdir(parents=True)
        return FAILURES[number].make(Supervised(place))

    with ThreadPoolExecutor(at_once) as pool:
        return list(zip(FAILURES, pool.map(make, range(len(FAILURES))), strict=True))


def main(folder: Path) -> None:
    """Print the confusions, and how many of each state there are."""
    made, right = make_all(folder, at_once=2), Counter[str]()
    for failure, found in made:
        if (found.state, found.cause) == (failure.state, failure.cause):
            right[found.state] += 1
        else:
            print(f"{failure.name}: {failure.state}, {failure.cause}; diagnosed {found.state}, {found.cause}")
    print(f"right: {right.total()} of {len(made)} {dict(right)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
