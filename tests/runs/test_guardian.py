"""What a run leaves behind: no process and no local memory, whoever of its keepers was killed."""

import os
import signal
import subprocess
import tempfile
import textwrap

import pytest
from tests.runs.toy_stage import PYTHON

from assay.runs import local_memory


def test_nothing_outlives_the_command(supervised):
    assert supervised.run(command=["sh", "-c", "setsid sleep 100 & exit 0"])[0] == 0
    assert supervised.ended(0.1)


def test_nothing_outlives_a_killed_guardian(supervised):
    process = supervised.start(command=["sh", "-c", "setsid sh -c 'sleep 100; true' & echo ready; wait"])
    supervised.wait_for("ready")
    process.kill()
    assert supervised.ended()


def test_nothing_outlives_a_killed_supervisor(supervised):
    process = supervised.start(command=["sh", "-c", "setsid sh -c 'sleep 100; true' & echo ready; wait"])
    supervised.wait_for("ready")
    os.kill(supervised.attempt()["holder"]["pid"], signal.SIGKILL)
    assert process.wait(10) == 137
    assert supervised.ended()


def test_a_killed_supervisor_leaves_nothing_in_local_memory(supervised):
    process = supervised.start(command=["sh", "-c", "echo $ASSAY_PROGRESS; echo ready; sleep 100"])
    supervised.wait_for("ready")
    (socket,) = [line.split()[-1] for line in supervised.log().splitlines() if line.endswith("/socket")]
    os.kill(supervised.attempt()["holder"]["pid"], signal.SIGKILL)
    process.wait(10)
    assert not os.path.exists(os.path.dirname(socket))


def test_the_command_dies_with_both_of_its_keepers(supervised):
    process = supervised.start(command=[PYTHON, "-c", "import time; print('ready', flush=True); time.sleep(100)"])
    supervised.wait_for("ready")
    supervisor = supervised.attempt()["holder"]["pid"]
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    assert supervised.ended()


@pytest.mark.parametrize("failing", ["kill_tree", "_collect", "remove_local_memory"])
def test_a_guardian_that_cannot_clear_up_ends_with_the_supervisors_code(failing):
    code = f"""
        import sys
        from assay.runs import guardian

        def fails(*_):
            raise FileNotFoundError("no usable temporary directory")

        guardian.{failing} = fails
        guardian.guard()
        sys.exit(75)
        """
    done = subprocess.run([PYTHON, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (75, "")


def test_local_memory_is_cleared_where_no_disk_has_room_for_more(tmp_path, monkeypatch):
    def full():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(local_memory, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(tempfile, "gettempdir", full)
    made = local_memory.make_local_memory(4711)
    local_memory.remove_local_memory(4711)
    assert not made.exists()
