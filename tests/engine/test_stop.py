"""Requests to stop: signals, the phase that ends at its next boundary, and the lock on a run's checkpoints."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from assay.engine.checkpoint import CheckpointFolder
from assay.engine.progress import phase
from assay.engine.stop import SIGNALS, StopRequest
from assay.errors import CheckpointError, Unfinished


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_ends_at_once(number):
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), number)
    assert ended.value.code == 128 + number


def test_in_a_job_of_lsf_another_signal_is_no_second_request_but_the_same_one_again_is(monkeypatch):
    """bkill sends SIGINT, and SIGTERM ten seconds later."""
    monkeypatch.setenv("LSB_JOBID", "1")
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        with pytest.raises(SystemExit):
            os.kill(os.getpid(), signal.SIGINT)


def test_afterwards_signals_mean_what_they_meant_before():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_phase_ends_at_the_boundary_after_the_request():
    done = []
    with (
        StopRequest() as stop,
        pytest.raises(Unfinished, match=r"^count: stopped at 3 of 10 sheep; it starts anew next time$"),
        phase("count", 10, unit="sheep", stop=stop) as progress,
    ):
        for sheep in range(10):
            if sheep == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            done.append(sheep)
            progress.advance()
    assert done == [0, 1, 2]


def test_a_request_before_a_phase_lets_nothing_of_it_run():
    with StopRequest() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Unfinished, match="stopped at 0 of 10"), phase("count", 10, stop=stop):
            raise AssertionError("it ran")


def test_a_request_in_the_last_unit_is_no_reason_to_throw_all_away():
    with StopRequest() as stop, phase("count", 1, stop=stop) as progress:
        os.kill(os.getpid(), signal.SIGTERM)
        progress.advance()
    assert progress.done == 1


HOLD = """
import os, sys, time
from pathlib import Path
from assay.engine.checkpoint import CheckpointFolder
with CheckpointFolder(Path(sys.argv[1]), "run").locked():
    if sys.argv[2] == "fork" and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
    if sys.argv[2] == "hold":
        print(os.getpid(), flush=True)
    time.sleep(600)
"""


def hold(folder: Path, how: str) -> tuple["subprocess.Popen[str]", int]:
    """A process that holds the lock, and the number it or its fork printed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, int(process.stdout.readline())


def end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_of_the_same_run_is_refused_in_one_line_and_may_go_on_once_the_first_was_killed(tmp_path):
    folder = CheckpointFolder(tmp_path / "run", "run")
    holder, pid = hold(folder.folder, "hold")
    try:
        with pytest.raises(CheckpointError, match=rf"process {pid} on .+ trains this run; wait for it, or end it$"):
            folder.locked().__enter__()
    finally:
        end(holder)
    with folder.locked():
        pass


def test_a_worker_that_outlives_the_killed_holder_does_not_block(tmp_path):
    holder, worker = hold(tmp_path, "fork")
    end(holder)
    try:
        with CheckpointFolder(tmp_path, "run").locked():
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_is_said_so_and_training_goes_on(tmp_path, monkeypatch, capsys):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with CheckpointFolder(tmp_path, "run").locked():
        pass
    assert "cannot be locked (No locks available); start this run only once" in capsys.readouterr().err
