"""A lock of a file: one holder at a time, also where the file system has no locks."""

import errno
import fcntl
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from assay.matrix.jobs import alone
from assay.schedulers import local
from assay.schedulers.local import Local, claimed
from assay.schedulers.locks import locked


@pytest.fixture(params=["flock", *(errno.errorcode[number] for number in (errno.ENOLCK, errno.ENOSYS))])
def file_system(request, monkeypatch) -> str:
    """One with locks, and some that answer every request for one with an error."""

    def refuse(file: object, operation: int) -> None:
        raise OSError(getattr(errno, request.param), "No locks available")

    if request.param != "flock":
        monkeypatch.setattr(fcntl, "flock", refuse)
    return request.param


def test_only_one_holds_it_and_the_next_one_does_after_its_end(file_system, tmp_path):
    with locked(tmp_path / "new/lock") as first, locked(tmp_path / "new/lock") as second:
        assert first and not second
    with locked(tmp_path / "new/lock") as again:
        assert again


def test_whoever_waits_has_it_in_the_end(file_system, tmp_path):
    order: list[str] = []

    def wait() -> None:
        with locked(tmp_path / "lock", math.inf) as mine:
            order.append(f"second {mine}")

    waiting = threading.Thread(target=wait)
    with locked(tmp_path / "lock"):
        waiting.start()
        time.sleep(0.1)
        order.append("first")
    waiting.join(20)
    assert order == ["first", "second True"]


def test_locks_of_two_files_are_two(file_system, tmp_path):
    with locked(tmp_path / "one") as first, locked(tmp_path / "two") as second:
        assert first and second


def test_a_pool_and_a_submit_are_alone_on_this_computer(file_system, tmp_path, capsys):
    pool, order = Local(tmp_path / "pool"), list[str]()
    with claimed(pool.folder) as mine:
        assert mine and pool.has_pool()
    assert not pool.has_pool()

    def submit() -> None:
        with alone(tmp_path):
            order.append("second")

    waiting = threading.Thread(target=submit)
    with alone(tmp_path):
        waiting.start()
        time.sleep(0.1)
        order.append("first")
    waiting.join(20)
    assert order == ["first", "second"] and "waiting for another assay submit" in capsys.readouterr().err


def test_those_who_look_for_a_pool_do_not_mislead_each_other(file_system, tmp_path):
    pool = Local(tmp_path / "pool")
    with claimed(pool.folder):
        pass
    with ThreadPoolExecutor(8) as several:
        assert not any(several.map(lambda _: pool.has_pool(), range(2000)))


def test_a_pool_is_started_while_somebody_looks_for_one(tmp_path, monkeypatch):
    pool, started = Local(tmp_path), list[str]()
    monkeypatch.setattr(local.subprocess, "run", lambda command, **_: started.append(command[3]))
    with (tmp_path / "lock").open("w") as look:
        fcntl.flock(look, fcntl.LOCK_SH)
        pool.wake()
    with claimed(pool.folder):
        pool.wake()
    assert started == [str(tmp_path)]


def test_a_file_system_without_locks_is_said_once(tmp_path, monkeypatch, capsys):
    def refuse(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    for _ in range(2):
        with locked(tmp_path / "lock"):
            pass
    said = f"assay: {tmp_path}/lock: cannot be locked (No locks available); going on: give assay submit on one computer"
    assert capsys.readouterr().err == f"{said} only, others are not seen\n"


def test_another_error_is_no_missing_lock(tmp_path, monkeypatch):
    def fail(file: object, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock"):
        pass
