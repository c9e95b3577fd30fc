"""Runs that hang, each in its own way: found within twice the bound, the culprit named, exit code 76."""

import ctypes
import sys
import time
from collections.abc import Callable

import psutil
import pytest
from tests.runs.conftest import Supervised

from assay.runs.evidence import culprit

pytestmark = pytest.mark.torture

BOUND_S = 2.0
SLACK_S = 30.0
"""Beyond twice the bound: two starts of Python with torch, evidence, and the end of what does not heed SIGTERM."""
PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000
TORCH_SLACK_S = 60.0

LOADING = """
    import os
    from assay import progress

    os.path.exists("fifo") or os.mkfifo("fifo")
    with progress.phase("load"):
        open("fifo").read()  # culprit
"""
WORKER = """
    import os
    from torch.utils.data import DataLoader, Dataset
    from assay import progress

    class Blocked(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            if index == 5:
                open("fifo").read()  # culprit
            return index

    os.path.exists("fifo") or os.mkfifo("fifo")
    with progress.phase("train", total=8) as p:
        for batch in DataLoader(Blocked(), num_workers=2):
            p.advance()
"""
COLLECTIVE = """
    import os, sys, time
    import torch
    import torch.distributed as dist
    from torch.multiprocessing import spawn
    from assay import progress

    def absent():
        time.sleep(1000)  # culprit

    def rank(number, meeting):
        dist.init_process_group("gloo", f"file://{meeting}", rank=number, world_size=2)
        with progress.phase("train", total=2) as p:
            dist.all_reduce(torch.ones(1))
            p.advance()
            if number == 1:
                absent()
            dist.all_reduce(torch.ones(1))  # waits

    if __name__ == "__main__":
        spawn(rank, (os.path.abspath(f"meeting-{os.getpid()}"),), nprocs=2)
"""
SPIN = """
    import re
    from assay import progress

    with progress.phase("train", total=2) as p:
        p.advance()
        re.match("(a+)+$", "a" * 100 + "b")  # culprit
"""
STEPS = """
    import time
    from assay import progress

    with progress.phase("train", total=1000) as p:
        while True:
            time.sleep(0.01)  # culprit
            print("step", p.done)
            p.advance()
"""


def line_of(text: str, mark: str) -> int:
    """The number of the line with this mark."""
    return next(number for number, line in enumerate(text.splitlines(), 1) if mark in line)


def check(supervised: Supervised, code: int, phase: str, text: str) -> list[dict]:
    """What must hold for each stall; returns them."""
    attempt = supervised.attempt()
    stalls = [each["stall"] for each in attempt["tries"]]
    assert code == attempt["code"] == 76
    assert [stall["phase"] for stall in stalls] == [phase, phase]
    assert all(stall["silent_s"] < 2 * stall["bound_s"] for stall in stalls)  # it grows where steps are slow
    for stall in stalls:
        assert f"hangs.py:{line_of(text, '# culprit')} " in (culprit(stall["evidence"]) or ""), stall["evidence"]
    assert supervised.ended()
    return stalls


@pytest.mark.parametrize(
    ("name", "text", "phase", "slack_s"),
    [
        ("data loading", LOADING, "load", SLACK_S),
        ("dataloader worker", WORKER, "train", TORCH_SLACK_S),
        ("collective", COLLECTIVE, "train", TORCH_SLACK_S),
        ("spin with the interpreter's lock held", SPIN, "train", SLACK_S),
    ],
)
def test_a_stall_is_found_named_and_ended(supervised, report, name, text, phase, slack_s):
    script = supervised.script("hangs.py", text)
    begun = time.monotonic()
    code, said = supervised.run("--stall-after", str(BOUND_S), command=[sys.executable, script], within_s=200)
    took = time.monotonic() - begun
    stalls = check(supervised, code, phase, text)
    assert took < 2 * 2 * BOUND_S + slack_s, said
    report(f"stall_{name.replace(' ', '_')}", figures(stalls, took))


def test_the_stacks_of_a_deadlock_show_who_waits_too(supervised):
    script = supervised.script("hangs.py", COLLECTIVE)
    supervised.run("--stall-after", str(BOUND_S), command=[sys.executable, script], within_s=200)
    shown = "\n".join(supervised.attempt()["tries"][0]["stall"]["evidence"].values())
    assert f'hangs.py", line {line_of(COLLECTIVE, "# waits")}' in shown


def stop(process: psutil.Process) -> None:
    """As kill -STOP."""
    process.suspend()


def trace(process: psutil.Process) -> None:
    """As a debugger that holds it; this process is the debugger, and lets go when it ends or the other does."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(PTRACE_SEIZE, process.pid, 0, 0) == 0
    assert libc.ptrace(PTRACE_INTERRUPT, process.pid, 0, 0) == 0


def steps(supervised: Supervised) -> int:
    """How many starts have come to step 3."""
    path = supervised.folder / "run/logs/0001.log"
    return path.read_text().count("step 3\n") if path.exists() else 0


@pytest.mark.parametrize("hold", [stop, trace])
def test_a_process_that_is_held_is_a_stall(supervised, report, hold: Callable[[psutil.Process], None]):
    script = supervised.script("hangs.py", STEPS)
    begun = time.monotonic()
    process = supervised.start("--stall-after", str(BOUND_S), command=[sys.executable, script])
    for start in (1, 2):
        supervised.wait_until(lambda start=start: steps(supervised) >= start, 60, f"start {start}")
        (stage,) = [one for one in supervised.processes() if one.cmdline()[1:] == [script]]
        hold(stage)
    process.wait(60)
    took = time.monotonic() - begun
    report(f"stall_{hold.__name__}", figures(check(supervised, process.returncode, "train", STEPS), took))


def figures(stalls: list[dict], took: float) -> dict[str, object]:
    """For the report."""
    silent = [round(stall["silent_s"], 2) for stall in stalls]
    return {"bound_s": BOUND_S, "found_after_s": silent, "two_tries_took_s": round(took, 1)}
