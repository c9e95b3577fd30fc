"""Reading a culprit from stacks, and asking programs that may not answer. Real hangs are in test_evidence.py."""

import multiprocessing
import signal
import time

import pytest

from assay.runs import stacks
from assay.runs.evidence import culprit

FAULTHANDLER = """Thread 0x00007f01 (most recent call first):
  File "/lab/other.py", line 5 in background

Current thread 0x00007f02 (most recent call first):
  File "/usr/lib/python3.12/socket.py", line 720 in recv
  File "/venv/lib/python3.12/site-packages/numpy/io.py", line 9 in read
  File "/lab/mine (new).py", line 7 in <module>
"""
IN_A_PACKAGE = """Thread 3 (idle): "MainThread"
    wait (threading.py:5)
    pull (/venv/lib/python3.12/site-packages/dvc/repo.py:31)
    <module> (/venv/bin/../lib/python3.12/runpy.py:3)
"""
IN_ASSAY = """Thread 3 (idle): "MainThread"
    read (/venv/lib/python3.12/site-packages/nibabel/volume.py:31)
    load (/venv/lib/python3.12/site-packages/assay/studies/asl/data.py:88)
"""


@pytest.mark.parametrize(
    "text, line",
    [
        (FAULTHANDLER, "/lab/mine (new).py:7 <module>"),
        (IN_A_PACKAGE.replace("threading.py", "/usr/lib/python3.12/threading.py"), None),
        (IN_ASSAY, "/venv/lib/python3.12/site-packages/assay/studies/asl/data.py:88 load"),
        ("py-spy is not installed", "python in futex"),
        ("", "python in futex"),
    ],
)
def test_the_culprit_is_the_users_own_line_of_the_main_thread(text, line):
    package = "/venv/lib/python3.12/site-packages/dvc/repo.py:31 pull"
    found = {"process 7": "python in futex, state S, child of 6", "stacks 7": text}
    assert culprit(found) == (line or package)


def test_the_main_thread_is_known_by_its_number_where_it_has_no_name():
    text = "Process 7: python a.py\n\nThread 7 (idle)\n    f (/lab/a.py:1)\nThread 8 (idle)\n    g (/lab/a.py:2)\n"
    assert culprit({"process 7": "python", "stacks 7": text}) == "/lab/a.py:1 f"


def test_the_deepest_process_is_the_culprit_before_those_that_wait_for_it():
    def stack(line: int) -> str:
        return f'Thread 1 (idle): "MainThread"\n    f (/lab/a.py:{line})\n'

    found = {"process 1": "a", "process 2": "b", "process 3": "c", "stacks 3": stack(3), "stacks 1": stack(1)}
    assert culprit(found) == "/lab/a.py:3 f"


def test_multiprocessing_still_begins_a_worker_where_stacks_are_cut():
    assert multiprocessing.process.__file__.endswith(stacks._WORKER_BEGINS)


def test_a_program_that_does_not_answer_is_killed_and_said_so():
    begun = time.monotonic()
    asked = stacks.ask(["sleep", "60"])
    assert stacks.answer(asked, begun + 0.2) == "no answer in time"
    assert asked.wait(timeout=5) == -signal.SIGKILL
    asked.stdout.close()
