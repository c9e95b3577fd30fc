"""DVC's lock file: what killed processes left in it goes, what a living one holds stays."""

import json
import os
import subprocess
import sys

import pytest

from assay.runs.dvc_lock import drop_dead_lock

WAITS = "import time; print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    return path


def noted(pid: int, command: str, mode: str) -> str:
    holder = {"pid": pid, "cmd": command}
    return json.dumps({"write": {"/out": holder}} if mode == "write" else {"read": {"/dep": [holder]}})


def ended() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.mark.parametrize("torn", ["", "{", '{"read": {"/dep": [{"pi', "[]", '{"write": {"/out": {}}}'])
def test_a_torn_lock_goes(lock, tmp_path, torn):
    lock.write_text(torn)
    assert drop_dead_lock(tmp_path)
    assert not lock.exists()


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_lock_of_the_dead_goes_also_from_below_the_project(lock, tmp_path, mode):
    lock.write_text(noted(ended(), "dvc repro", mode))
    (tmp_path / "below").mkdir()
    assert drop_dead_lock(tmp_path / "below")
    assert not lock.exists()


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_lock_of_another_process_of_that_number_goes(lock, tmp_path, mode):
    lock.write_text(noted(os.getpid(), "dvc repro", mode))
    assert drop_dead_lock(tmp_path)


@pytest.mark.parametrize("mode", ["read", "write"])
def test_a_lock_of_a_living_process_stays(lock, tmp_path, mode):
    with subprocess.Popen([sys.executable, "-c", WAITS, "dvc", "repro"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        lock.write_text(noted(process.pid, "dvc repro", mode))
        dropped = drop_dead_lock(tmp_path)
        process.kill()
    assert not dropped
    assert lock.exists()


@pytest.mark.parametrize("way", [["-m", "dvc"], ["-m", "dvc.cli.start"], ["-c", "import dvc.cli.start"]])
def test_a_lock_of_a_dvc_that_was_started_through_python_stays(lock, tmp_path, way):
    """It notes the file of its module, or "-c", which its command line has not."""
    package = tmp_path / "site packages/dvc"
    (package / "cli").mkdir(parents=True)
    says = "import sys; print(' '.join(sys.argv), flush=True); " + WAITS
    for name in ("__init__.py", "cli/__init__.py"):
        (package / name).touch()
    for name in ("__main__.py", "cli/start.py"):
        (package / name).write_text(says)
    command = [sys.executable, *way, "repro", "--force"]
    with subprocess.Popen(command, cwd=package.parent, stdout=subprocess.PIPE, text=True) as process:
        lock.write_text(noted(process.pid, process.stdout.readline().strip(), "write"))
        dropped = drop_dead_lock(tmp_path)
        lock.write_text(noted(process.pid, f"{package}/__main__.py repro", "write"))
        dropped_of_another = drop_dead_lock(tmp_path)
        process.kill()
    assert (dropped, dropped_of_another) == (False, True)


def test_without_a_lock_there_is_nothing_to_do(tmp_path):
    assert not drop_dead_lock(tmp_path)
