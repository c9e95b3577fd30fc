"""What a stall's evidence names: real processes that really hang."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from assay import progress
from assay.runs import evidence, gpus, stacks
from assay.runs.evidence import collect, culprit, rank
from assay.runs.processes import descendants, kill_tree, state

WITHIN_S = 5.0
READER = """
import os, sys
{first}
def load(path):
    print("ready", flush=True)
    with open(path) as file:  # CULPRIT
        return file.read()

def main():
    load(sys.argv[1])

{last}
"""
PLAIN = READER.format(first="", last="main()")
SPEAKING = READER.format(first="from assay import progress", last='with progress.phase("load"): main()')
WORKERS = READER.format(
    first="import multiprocessing as mp\nfrom assay import progress",
    last="""
def work(tasks):
    while (path := tasks.get()):
        load(path)

with progress.phase("load"):
    fork = mp.get_context("fork")
    tasks = fork.Queue()
    workers = [fork.Process(target=work, args=(tasks,)) for _ in range(3)]
    for worker in workers: worker.start()
    tasks.put(sys.argv[1])
    for worker in workers: worker.join()
""",
)
HANDLING = """
import signal, sys, time
signal.signal(signal.SIGUSR2, lambda *_: print("disturbed", flush=True))
print("ready", flush=True)
time.sleep(60)
"""


class Place:
    """A folder with a FIFO that nobody writes and a supervisor's socket; starts processes and ends them."""

    def __init__(self, folder: Path) -> None:
        self.fifo = folder / "fifo"
        os.mkfifo(self.fifo)
        self.folder = folder
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(folder / "socket"))
        self.socket.listen()
        self.connections: list[socket.socket] = []

    @contextmanager
    def started(self, *arguments: str, ready: bool = True) -> Iterator["subprocess.Popen[str]"]:
        """A process that, once it has said "ready", hangs."""
        environment = {**os.environ, progress.SOCKET: str(self.folder / "socket")}
        with subprocess.Popen(
            arguments, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            try:
                if ready:
                    assert process.stdout.readline().startswith("ready")  # two may say it at once
                until(lambda: state(process.pid) == "S")
                time.sleep(0.05)
                yield process
            finally:
                kill_tree(process.pid, 5)
                process.kill()

    def script(self, code: str, name: str = "script.py") -> list[str]:
        (self.folder / name).write_text(code)
        return [sys.executable, str(self.folder / name), str(self.fifo)]

    def culprit(self, code: str, name: str = "script.py") -> str:
        line = next(n for n, text in enumerate(code.splitlines(), start=1) if "CULPRIT" in text)
        return f"{self.folder / name}:{line} load"

    def hello(self) -> dict[int, Path]:
        """What a process that uses the progress contract says of its stacks."""
        connection, _ = self.socket.accept()
        self.connections.append(connection)
        message = json.loads(connection.recv(4096))
        return {message["pid"]: Path(message["stacks"])}


def until(true: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def living() -> set[int]:
    return {pid for pid in descendants(os.getpid()) if state(pid) not in ("Z", None)}


@pytest.fixture
def place(tmp_path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    for opened in (made.socket, *made.connections):
        opened.close()


def test_a_stage_that_hangs_in_loading_names_its_line(place, monkeypatch):
    monkeypatch.setattr(stacks, "_spy", lambda pids, end: iter(()))
    with place.started(*place.script(SPEAKING)) as stage:
        found = collect(stage.pid, place.hello(), WITHIN_S)
        assert "most recent call first" in found[f"stacks {stage.pid}"], "its own words"
        assert culprit(found) == place.culprit(SPEAKING)
        assert stage.poll() is None


def test_a_worker_that_hangs_is_told_from_its_idle_colleagues_and_its_waiting_parent(place):
    with place.started(*place.script(WORKERS)) as stage:
        until(lambda: len(descendants(stage.pid)) == 3)
        found = collect(stage.pid, place.hello(), WITHIN_S)
        assert culprit(found) == place.culprit(WORKERS)
        told = [name for name, text in found.items() if name.startswith("stacks") and "most recent call" in text]
        assert len(told) == 4, "forks share the handler"
        assert stage.poll() is None and len(descendants(stage.pid)) == 3


def test_a_script_that_knows_nothing_of_assay_is_read_by_py_spy(place):
    with place.started(*place.script(PLAIN)) as script:
        found = collect(script.pid, {}, WITHIN_S)
        assert "Python v3" in found[f"stacks {script.pid}"]
        assert culprit(found) == place.culprit(PLAIN)
        assert script.poll() is None


def test_a_shell_script_names_the_program_that_hangs_and_what_it_waits_for(place):
    with place.started("sh", "-c", f"echo ready; cat {place.fifo}; :") as shell:
        until(lambda: descendants(shell.pid))
        (cat,) = descendants(shell.pid)
        time.sleep(0.1)
        found = collect(shell.pid, {}, WITHIN_S)
        assert found[f"process {cat}"].endswith(f"command: cat {place.fifo}")
        assert culprit(found).startswith("cat in ")
        assert not any(name.startswith("stacks") for name in found)


def test_a_command_line_is_shown_without_its_secrets(place):
    with place.started("sh", "-c", f"echo ready; cat {place.fifo}; :", "x", "--token", "hunter2") as shell:
        found = collect(shell.pid, {}, WITHIN_S)
        assert found[f"process {shell.pid}"].endswith("x --token ***") and "hunter2" not in str(found)


@pytest.mark.parametrize("code", [PLAIN, SPEAKING])
def test_a_stopped_process_still_shows_its_stacks(place, code):
    with place.started(*place.script(code)) as script:
        said = place.hello() if code == SPEAKING else {}
        script.send_signal(signal.SIGSTOP)
        until(lambda: state(script.pid) == "T")
        found = collect(script.pid, said, WITHIN_S)
        assert "state T" in found[f"process {script.pid}"]
        assert culprit(found) == place.culprit(code)


def test_a_process_with_a_signal_handler_of_its_own_is_not_disturbed(place):
    with place.started(*place.script(HANDLING)) as script:
        collect(script.pid, {script.pid: place.folder / "none.stacks"}, WITHIN_S)
        time.sleep(0.1)
        script.terminate()
        assert script.stdout.read() == ""


def test_a_process_that_would_die_of_the_signal_lives(place):
    """It has the file of stacks open, but a program that it has become since does not handle the signal."""
    file = place.folder / "some.stacks"
    with place.started("sh", "-c", f"exec 7>{file}; echo ready; exec sleep 60") as sleeper:
        until(lambda: "sleep" in Path(f"/proc/{sleeper.pid}/comm").read_text())
        assert str(file) in stacks.open_files(sleeper.pid).values()
        collect(sleeper.pid, {sleeper.pid: file}, WITHIN_S)
        time.sleep(0.1)
        assert sleeper.poll() is None


def test_orphans_that_have_said_hello_are_found(place):
    command = " ".join(place.script(SPEAKING))
    with place.started("sh", "-c", f"setsid {command} & wait") as shell:
        said = place.hello()
        elsewhere = os.getpid() + 2**22
        found = collect(elsewhere, said, WITHIN_S)
        assert culprit(found) == place.culprit(SPEAKING)
        assert shell.poll() is None


def test_a_process_shows_what_it_waits_for_its_threads_files_and_mounts(place):
    code = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n" + PLAIN
    data = place.folder / "data"
    data.write_text("x")
    script = place.script(f"held = open({str(data)!r})\n{code}")
    with place.started(*script) as process:
        text = collect(process.pid, {}, WITHIN_S)
        shown = text[f"process {process.pid}"].splitlines()
        assert f"state S, child of {os.getpid()}, 2 threads, RSS " in shown[0]
        assert f"folder: {os.getcwd()}" in shown
        assert any(line.startswith("system call: 257 ") or line.startswith("system call: ") for line in shown)
        assert sum(line.startswith("thread ") for line in shown) == 1
        assert any(line.startswith("file ") and line.endswith(str(data)) for line in shown)
        assert shown[-1] == f"command: {' '.join(script)}"
        assert any(line.split(" ")[4] == "/" for line in text["mounts"].splitlines())


def test_it_takes_no_longer_than_it_may_whatever_hangs(place, monkeypatch):
    monkeypatch.setattr(evidence, "python_stacks", lambda *_: time.sleep(60))
    with place.started("sleep", "60", ready=False) as sleeper:
        begun = time.monotonic()
        found = collect(sleeper.pid, {}, 0.5)
        assert time.monotonic() - begun < 0.8
        assert culprit(found).startswith("sleep"), "what was found before is kept"


def test_without_py_spy_the_evidence_says_so(place, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(place.folder / "python"))
    monkeypatch.setenv("PATH", str(place.folder))
    with place.started(os.path.realpath("/proc/self/exe"), "-c", "import time; time.sleep(60)", ready=False) as process:
        assert collect(process.pid, {}, WITHIN_S)[f"stacks {process.pid}"] == "py-spy is not installed"


def test_processes_that_have_ended_and_the_one_that_asks_are_no_culprits(place):
    with place.started("sh", "-c", "sleep 0 & exec sleep 60", ready=False) as sleeper:
        until(lambda: [state(pid) for pid in descendants(sleeper.pid)] == ["Z"])
        found = collect(os.getpid(), {}, WITHIN_S)
        (zombie,) = descendants(sleeper.pid)
        assert found[f"process {zombie}"].startswith("has ended")
        assert f"process {os.getpid()}" not in found
        # Other tests may have left helpers of this process, such as the tracker of multiprocessing.
        ours = {str(pid) for pid in (os.getpid(), sleeper.pid, zombie)}
        assert culprit({name: text for name, text in found.items() if name.split()[-1] in ours}).startswith("sleep")
    assert culprit({}) is None


def test_what_is_set_apart_is_left_out(place):
    with place.started("sleep", "60", ready=False) as one, place.started("sleep", "60", ready=False) as other:
        found = collect(os.getpid(), {}, WITHIN_S, {other.pid})
        assert f"process {one.pid}" in found and f"process {other.pid}" not in found


def test_no_descriptor_of_the_caller_is_held_and_no_process_left(place):
    read, write = os.pipe()
    before = living()
    with place.started("sleep", "60", ready=False) as sleeper:
        collect(sleeper.pid, {}, WITHIN_S)
    os.close(write)
    assert os.read(read, 1) == b""
    os.close(read)
    until(lambda: living() <= before)


def test_the_evidence_of_many_large_processes_stays_below_1_mb(place):
    deep = "import threading, time\ndef f(n): f(n - 1) if n else time.sleep(60)\n"
    deep += "for _ in range(20): threading.Thread(target=f, args=(80,), daemon=True).start()\n"
    deep += "import os\nfiles = [open(os.devnull) for _ in range(500)]\nprint('ready', flush=True)\nf(80)"
    many = "i=0; while [ $i -lt 80 ]; do sleep 60 & i=$((i+1)); done; "
    command = " ".join(place.script(deep))
    with place.started("sh", "-c", f"{many} {command} & {command} & wait") as shell:
        until(lambda: len(descendants(shell.pid)) >= 82)
        time.sleep(0.5)
        found = collect(shell.pid, {}, WITHIN_S)
        assert sum(name.startswith("process ") for name in found) == evidence.MAX_PROCESSES
        assert f"process {shell.pid}" in found
        assert max(map(len, found.values())) <= stacks.STACKS_LIMIT
    worst = evidence.PROCESS_LIMIT + evidence.COMMAND_LIMIT + stacks.STACKS_LIMIT
    assert evidence.MAX_PROCESSES * worst + 2 * evidence.OTHER_LIMIT < 10**6


def test_a_gpu_tells_its_state(place, monkeypatch):
    monkeypatch.setattr(gpus, "DRIVERS", (place.folder,))
    monkeypatch.setattr(gpus, "COMMAND", ["echo", "Fake GPU: 2.0 of 8.0 GiB"])
    assert collect(os.getpid(), {}, WITHIN_S)["gpu"] == "Fake GPU: 2.0 of 8.0 GiB once\n"


WAITING = """Current thread 0x1 (most recent call first):
  File "/env/lib/python3.11/site-packages/torch/distributed/distributed_c10d.py", line 9 in all_reduce
  File "/src/assay/engine/distributed.py", line 5 in any_rank
"""
READING = """Current thread 0x1 (most recent call first):
  File "/usr/lib/python3.11/pathlib.py", line 9 in open
  File "/src/study/task.py", line 7 in read
"""


@pytest.mark.parametrize(
    ("second", "expected"),
    [(READING, "rank 1 of 2 on n2"), (WAITING, "some rank, for all on n2 wait")],
    ids=["one hangs", "all wait"],
)
def test_of_several_ranks_the_one_that_hangs_is_named_and_none_that_merely_waits(monkeypatch, second, expected):
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    ranks = {2**22 + rank: f"rank {rank} of 2" for rank in range(2)}
    found = {f"process {pid}": "python in futex_wait" for pid in ranks}
    stacks = dict(zip((f"stacks {pid}" for pid in ranks), (WAITING, second), strict=True))
    assert rank({**found, **stacks}, ranks) == {"rank": expected}
