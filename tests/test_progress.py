"""assay.progress: a script tells its supervisor what it is doing, and never pays for it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"


class Supervisor:
    """The other end of the socket."""

    def __init__(self, folder: Path) -> None:
        self.address = folder / "socket"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.settimeout(20)
        self.listener.bind(str(self.address))
        self.listener.listen()
        self.connections: list[socket.socket] = []

    def accept(self) -> socket.socket:
        connection, _ = self.listener.accept()
        connection.settimeout(20)
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        for opened in (self.listener, *self.connections):
            opened.close()


@pytest.fixture
def supervisor(tmp_path):
    made = Supervisor(tmp_path)
    yield made
    made.close()


def start(code: str, address: Path | None) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    environment.pop("ASSAY_PROGRESS", None)
    if address is not None:
        environment["ASSAY_PROGRESS"] = str(address)
    preamble = "import os, sys, time\nfrom assay import progress\n"
    return subprocess.Popen([sys.executable, "-c", preamble + code], env=environment, stdout=subprocess.PIPE, text=True)


def finish(process: "subprocess.Popen[str]") -> str:
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    return said


def heard(connection: socket.socket) -> list[dict]:
    """Every message until the speaker has gone."""
    found = []
    while raw := connection.recv(2**20):
        found.append(json.loads(raw))
    return found


WORK = """
with progress.phase("load", total=3, done=1, unit="files") as p:
    for _ in range(2):
        p.advance(bytes_read=7)
progress.verdict(0)
print(p.done, progress.stop_requested())
"""


@pytest.mark.parametrize("address", [None, Path("/nowhere/socket")])
def test_without_a_supervisor_every_call_does_nothing(address):
    assert finish(start(WORK, address)) == "3 False\n"


def test_a_phase_is_told_with_its_count_and_its_time(supervisor):
    process = start(WORK, supervisor.address)
    messages = heard(supervisor.accept())
    assert finish(process) == "3 False\n"
    assert [message["type"] for message in messages] == ["hello", "phase", "step", "end", "verdict"]
    hello, phase, step, end, verdict = messages
    assert hello["pid"] == process.pid
    assert phase == {"type": "phase", "phase": "load", "of": 3, "done": 1, "unit": "files"}
    assert (step["done"], step["bytes"]) == (2, 7)
    assert end["done"] == 3 and end["seconds"] >= 0
    assert verdict["code"] == 0


def test_a_phase_that_fails_ends_too(supervisor):
    process = start("try:\n    with progress.phase('load'): 1 / 0\nexcept ZeroDivisionError: pass", supervisor.address)
    assert [message["type"] for message in heard(supervisor.accept())] == ["hello", "phase", "end"]
    finish(process)


def test_a_thousand_steps_a_second_are_few_messages(supervisor):
    code = """
with progress.phase("train", total=500) as p:
    for _ in range(500):
        p.advance(loss=0.5)
        time.sleep(0.001)
"""
    process = start(code, supervisor.address)
    steps = [message for message in heard(supervisor.accept()) if message["type"] == "step"]
    finish(process)
    assert 5 <= len(steps) <= 500 * 0.01 / 0.05
    assert steps == sorted(steps, key=lambda step: step["done"])


def test_a_request_to_stop_is_seen_and_stays(supervisor):
    process = start(
        "while not progress.stop_requested(): time.sleep(0.01)\nprint(progress.stop_requested())", supervisor.address
    )
    connection = supervisor.accept()
    connection.send(b"{}")
    assert finish(process) == "True\n"


def test_a_limit_is_no_request_to_stop(supervisor):
    process = start(
        "while progress.seconds_left() is None: time.sleep(0.01)\n"
        "print(progress.seconds_left(), progress.stop_requested())",
        supervisor.address,
    )
    supervisor.accept().send(b'{"limit": 100}')
    left, asked = finish(process).split()
    assert 95 < float(left) <= 100
    assert asked == "False"


def test_a_supervisor_that_is_gone_is_a_request_to_stop(supervisor):
    process = start("while not progress.stop_requested(): time.sleep(0.01)\nprogress.verdict(75)", supervisor.address)
    supervisor.accept().close()
    finish(process)


def test_one_that_does_not_listen_holds_nobody_up(supervisor):
    code = """
begun = time.monotonic()
for _ in range(5000):
    with progress.phase("x" * 100): pass
print(time.monotonic() - begun < 2)
"""
    process = start(code, supervisor.address)
    supervisor.accept()
    assert finish(process) == "True\n"


def test_a_fork_speaks_for_itself_and_does_not_hold_its_parents_line(supervisor):
    code = """
with progress.phase("load"): pass
if os.fork() == 0:
    time.sleep(1)
    with progress.phase("child"): pass
    os._exit(0)
"""
    process = start(code, supervisor.address)
    parent = supervisor.accept()
    assert [message["type"] for message in heard(parent)] == ["hello", "phase", "end"]
    finish(process)
    assert [message.get("phase") for message in heard(supervisor.accept())] == [None, "child", "child"]


def test_on_request_a_process_writes_its_stacks_where_it_said(supervisor):
    process = start("with progress.phase('load'):\n    time.sleep(60)", supervisor.address)
    hello = json.loads(supervisor.accept().recv(2**20))
    path, end = Path(hello["stacks"]), time.monotonic() + 20
    while "line 4" not in path.read_text():
        assert time.monotonic() < end
        process.send_signal(signal.SIGUSR2)
        time.sleep(0.1)
    process.kill()
    process.communicate()


def test_a_program_with_a_handler_of_its_own_keeps_it(supervisor):
    code = """
import signal
signal.signal(signal.SIGUSR2, lambda *_: print("mine", flush=True))
with progress.phase("load"): os.kill(os.getpid(), signal.SIGUSR2)
"""
    process = start(code, supervisor.address)
    assert json.loads(supervisor.accept().recv(2**20))["stacks"] is None
    assert finish(process) == "mine\n"


SCALARS = {
    "numpy": "import numpy; number = numpy.float32(0.5); whole = numpy.int64(4)",
    "an array": "import numpy; number = numpy.array([0.5]); whole = numpy.array([4])",
    "torch": "import torch; number = torch.tensor(0.5, requires_grad=True); whole = torch.tensor(4)",
    "a float": "number, whole = 0.5, 1000 / 250",
    "words": "number, whole = '0.5', '4'",
}


@pytest.mark.parametrize("scalars", SCALARS.values(), ids=SCALARS)
def test_a_number_may_be_of_any_kind(supervisor, scalars):
    code = f"""
import warnings
warnings.simplefilter("error")
{scalars}
with progress.phase("train", total=whole, done=whole) as p:
    p.advance(whole, loss=number, epoch=number, bytes_read=whole)
print(type(p.total).__name__, p.done)
"""
    process = start(code, supervisor.address)
    _, begun, step, end = heard(supervisor.accept())
    assert finish(process) == "int 8\n"
    assert (begun["of"], begun["done"]) == (4, 4)
    for told in (step, end):
        assert (told["done"], told["loss"], told["epoch"], told["bytes"]) == (8, 0.5, 0.5, 4)


NO_NUMBERS = ["'many'", "[1, 2]", "object()", "__import__('torch').ones(2)", "__import__('numpy').ones(2)", "1j"]


@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_is_no_number_is_left_out(supervisor, value):
    code = f"""
wrong = {value}
with progress.phase("train", total=wrong, done=wrong) as p:
    p.advance(wrong, loss=wrong, epoch=wrong, bytes_read=wrong)
    p.advance()
print(progress.stop_requested())
"""
    process = start(code, supervisor.address)
    _, begun, step, end = heard(supervisor.accept())
    assert finish(process) == "False\n"
    assert (begun["of"], begun["done"]) == (None, 0)
    assert step == {"type": "step", "phase": "train", "done": 0}
    assert end["done"] == 1


@pytest.mark.parametrize("total", ["float('nan')", "float('inf')"])
def test_a_total_that_is_not_finite_is_unknown(supervisor, total):
    process = start(f"with progress.phase('train', total={total}) as p: p.advance(loss={total})", supervisor.address)
    assert heard(supervisor.accept())[1]["of"] is None
    finish(process)


def test_facts_that_are_too_long_are_left_out_and_the_stage_is_told(supervisor):
    code = """
progress.announce("toy", "train", table=["x" * 100] * 10_000)
progress.verdict(1, "e" * 10**6, ValueError)
with progress.phase("x" * 10**6): pass
print(progress.stop_requested())
"""
    process = start(code, supervisor.address)
    _, stage, verdict, *_ = heard(supervisor.accept())
    assert finish(process) == "False\n"
    assert (stage["study"], stage["stage"], stage["facts"]) == ("toy", "train", None)
    assert (verdict["code"], verdict["error"]) == (1, None)


def test_a_fact_that_is_no_json_is_left_out_alone(supervisor):
    code = """
import numpy
loop = []
loop.append(loop)
progress.announce("toy", "train", rate=numpy.float32(0.5), made=object(), loop=loop, pair={(1, 2): 3}, seed=1)
"""
    process = start(code, supervisor.address)
    _, stage = heard(supervisor.accept())
    finish(process)
    assert stage["facts"] == {"rate": 0.5, "seed": 1}


def test_without_a_free_file_descriptor_nothing_is_told_and_nothing_fails(supervisor):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
with progress.phase("load") as p: p.advance()
print(progress.stop_requested())
"""
    assert finish(start(code, supervisor.address)) == "False\n"
