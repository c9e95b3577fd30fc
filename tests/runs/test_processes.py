"""The process tree: who descends from whom, and how it is ended."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay.runs import processes
from assay.runs.processes import descendants, kill_tree, set_parent_death_signal, set_subreaper, state

FREEZER = Path("/sys/fs/cgroup/freezer")
FORKS = "import os, time\nfor _ in range(6): os.fork()\ntime.sleep(60)"
THREAD = """
import subprocess, threading, time
threading.Thread(target=lambda: (subprocess.Popen(["sleep", "60"]), time.sleep(60)), daemon=True).start()
time.sleep(60)
"""


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


@contextmanager
def started(*arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(arguments, start_new_session=True)
    try:
        yield process
    finally:
        kill_tree(process.pid, 5)
        process.kill()
        process.wait()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """Uninterruptible while it lasts, by a version 1 freezer cgroup."""
    group = FREEZER / f"assay-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no process can be frozen here: {error}")
    (group / "tasks").write_text(str(pid))
    (group / "freezer.state").write_text("FROZEN")
    until(lambda: (group / "freezer.state").read_text().strip() == "FROZEN")
    try:
        yield
    finally:
        (group / "freezer.state").write_text("THAWED")
        until(lambda: state(pid) in ("Z", None))
        until(lambda: not (group / "tasks").read_text())
        group.rmdir()


def test_descendants_are_found_to_any_depth_parents_first():
    with started("sh", "-c", "sh -c 'sh -c \"sleep 60; :\"; :'; :") as shell:
        until(lambda: len(descendants(shell.pid)) == 3)
        found = descendants(shell.pid)
        parents = [int(processes.stat(pid)[1]) for pid in found]
        assert parents == [shell.pid, *found[:-1]]


def test_children_of_threads_are_found():
    with started(sys.executable, "-c", THREAD) as process:
        until(lambda: len(descendants(process.pid)) == 1)


def test_what_is_set_apart_is_left_out_with_all_below_it():
    with started("sh", "-c", "sleep 60 & sh -c 'sleep 60; :'; :") as shell:
        until(lambda: len(descendants(shell.pid)) == 3)
        sleeper, inner, _ = descendants(shell.pid)
        assert descendants(shell.pid, {inner}) == [sleeper]


def test_a_kernel_without_lists_of_children_is_scanned():
    with started("sh", "-c", "sleep 60 & sh -c 'sleep 60; :'; :") as shell:
        until(lambda: len(descendants(shell.pid)) == 3)
        assert sorted(processes._descendants_by_scan(shell.pid, ())) == sorted(descendants(shell.pid))


def test_a_process_that_does_not_exist_has_neither_descendants_nor_a_state():
    with started("true") as process:
        process.wait()
        assert descendants(process.pid) == []
        assert state(process.pid) is None
        assert kill_tree(process.pid, 1) == []


def test_a_tree_of_64_processes_is_killed():
    with started(sys.executable, "-c", FORKS) as process:
        until(lambda: len(descendants(process.pid)) == 63)
        found = descendants(process.pid)
        assert kill_tree(process.pid, 5) == []
        # The root is no subreaper: those whose parent died first have left its tree, the signal on its way to them.
        until(lambda: {state(pid) for pid in found} <= {"Z", None})
        assert process.poll() is None, "the root itself is spared"


def test_processes_that_fork_all_the_time_are_caught():
    breeder = "while :; do sleep 60 & sleep 0.001; done"
    code = f"""
import os, subprocess, sys
from assay.runs.processes import *
set_subreaper()
subprocess.Popen(["sh", "-c", {breeder!r}])
import time; time.sleep(0.3)
left = kill_tree(os.getpid(), 5)
time.sleep(0.2)
sys.exit(len(left) + sum(state(pid) != "Z" for pid in descendants(os.getpid())))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0


def test_a_stopped_process_is_killed():
    with started("sh", "-c", "sleep 60; :") as shell:
        until(lambda: descendants(shell.pid))
        (sleeper,) = descendants(shell.pid)
        os.kill(sleeper, signal.SIGSTOP)
        until(lambda: state(sleeper) == "T")
        assert kill_tree(shell.pid, 5) == []


def test_a_frozen_process_is_given_up_and_named():
    with started("sh", "-c", "sleep 60; :") as shell:
        until(lambda: descendants(shell.pid))
        (sleeper,) = descendants(shell.pid)
        with frozen(sleeper):
            begun = time.monotonic()
            assert kill_tree(shell.pid, 0.3) == [sleeper]
            assert time.monotonic() - begun < 1
            assert state(sleeper) == "D"


@pytest.mark.parametrize("code, letter", [("import time; time.sleep(60)", "S"), ("while True: pass", "R")])
def test_the_state_tells_sleeping_from_running(code, letter):
    with started(sys.executable, "-c", code) as process:
        until(lambda: state(process.pid) == letter)


def test_a_zombie_is_told_from_the_living():
    with started("true") as process:
        until(lambda: state(process.pid) == "Z")


def test_a_subreaper_adopts_orphans():
    code = """
import os, subprocess, time
from assay.runs.processes import *
set_subreaper()
subprocess.run(["sh", "-c", "sleep 60 &"])
found = [pid for pid in descendants(os.getpid()) if state(pid) != "Z"]
kill_tree(os.getpid(), 5)
print(len(found))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


def test_a_process_can_be_told_that_its_parent_has_died():
    code = """
import os, signal, sys, time
from assay.runs.processes import set_parent_death_signal
if os.fork() == 0:
    signal.signal(signal.SIGUSR1, lambda *_: (print("told", flush=True), os._exit(0)))
    set_parent_death_signal(signal.SIGUSR1)
    print("ready", flush=True)
    time.sleep(60)
sys.stdin.read(1)
os._exit(0)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as parent:
        assert parent.stdout.readline() == "ready\n"
        assert parent.communicate("x", timeout=10) == ("told\n", None)


def test_a_kernel_that_refuses_says_why():
    with pytest.raises(OSError, match=r"prctl\(1, 1000\): Invalid argument"):
        set_parent_death_signal(1000)


def test_another_platform_can_neither(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not set_subreaper()
    assert not set_parent_death_signal(signal.SIGTERM)


LEADERLESS = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall(60, 0)  # exit(2) of this thread alone
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of exit(2) is that of x86-64")
def test_a_process_whose_first_thread_has_ended_is_killed_though_it_is_called_a_zombie():
    with started(sys.executable, "-c", LEADERLESS) as process:
        until(lambda: state(process.pid) == "Z")
        assert kill_tree(os.getpid(), 5) == []
        assert process.wait(1) == -signal.SIGKILL
