"""What the pool does while the computer fails it: a job that cannot be started now stays queued; and what it costs."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from assay.errors import DataError
from assay.schedulers import Job, pool
from assay.schedulers.config import ResourcesConfig
from assay.schedulers.local import Local, job_ids
from assay.schedulers.pool import Pool

MOMENTARY = (errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EMFILE)


@pytest.fixture
def queue(tmp_path, monkeypatch) -> Local:
    """One job at a time; the test itself is the pool. A pause is longer than an idle pool lasts."""
    monkeypatch.setattr(Local, "wake", lambda _: None)
    monkeypatch.setattr(pool, "LINGER_S", 0.2)
    monkeypatch.setattr(pool, "PAUSE_S", 0.5)
    return Local(tmp_path / "pool", jobs=1)


@pytest.fixture
def starts(monkeypatch) -> Callable[[int, list[int]], list[float]]:
    """Give it an error and which starts fail with it, counted from 0; it gives the times at which all were tried."""
    start, tried = subprocess.Popen, list[float]()

    def fail(number: int, which: list[int]) -> list[float]:
        def popen(*arguments: object, **options: object) -> object:
            tried.append(time.monotonic())
            if len(tried) - 1 in which:
                raise OSError(number, os.strerror(number))
            return start(*arguments, **options)

        monkeypatch.setattr(pool.subprocess, "Popen", popen)
        return tried

    return fail


def job(folder: Path, name: str = "job", code: str = "pass") -> Job:
    command = [sys.executable, "-S", "-c", code]
    return Job(name=name, command=command, folder=folder, log=folder / f"{name}.log", script=folder / f"{name}.sh")


@pytest.mark.parametrize("number", MOMENTARY, ids=errno.errorcode.get)
def test_jobs_that_cannot_be_started_for_a_moment_stay_queued_and_run_later(queue, starts, tmp_path, capsys, number):
    ids = [queue.submit(job(tmp_path, name)) for name in ("first", "second")]
    tried = starts(number, [0, 1])
    Pool(queue.folder).work()
    assert list(queue.states(ids).values()) == ["EXIT 0", "EXIT 0"]
    assert len(tried) == 4 and all(after - before > 0.4 for before, after in pairwise(tried[:3]))
    said = capsys.readouterr().out
    assert said.count(f"000001 cannot be started now, and stays in the queue: [Errno {number}]") == 1


def test_a_job_waits_for_gpus_that_the_driver_does_not_show_for_a_moment(queue, tmp_path, monkeypatch):
    shown = iter([[], ["GPU-a"], ["GPU-a", "GPU-b"]])
    monkeypatch.setattr("assay.schedulers.local.visible_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr(pool, "visible_gpus", lambda: next(shown))
    code = "import os; open('gpus', 'w').write(os.environ['CUDA_VISIBLE_DEVICES'])"
    job_id = queue.submit(replace(job(tmp_path, code=code), resources=ResourcesConfig(gpus=2)))
    Pool(queue.folder).work()
    assert queue.states([job_id]) == {job_id: "EXIT 0"}
    assert (tmp_path / "gpus").read_text() == "GPU-a,GPU-b"


def test_a_job_that_is_to_go_on_and_cannot_be_started_for_a_moment_goes_on(queue, starts, tmp_path):
    code = "import os, sys; open('tries', 'a').write('x'); sys.exit(75 if os.path.getsize('tries') < 2 else 0)"
    job_id = queue.submit(job(tmp_path, code=code))
    starts(errno.EAGAIN, [1, 2])
    Pool(queue.folder).work()
    assert queue.states([job_id]) == {job_id: "EXIT 0"}
    assert (tmp_path / "tries").read_text() == "xx"


def test_a_job_that_waits_for_the_computer_can_be_cancelled(queue, starts, tmp_path):
    job_id = queue.submit(job(tmp_path))
    starts(errno.EAGAIN, [0])
    working = Pool(queue.folder)
    working._look_after()
    queue.cancel(job_id)
    working.work()
    assert queue.states([job_id]) == {job_id: "CANCELLED"}


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOEXEC], ids=errno.errorcode.get)
def test_a_job_whose_own_fault_it_is_ends_at_once(queue, starts, tmp_path, number):
    bad, good = queue.submit(job(tmp_path, "bad")), queue.submit(job(tmp_path, "good"))
    starts(number, [0])
    Pool(queue.folder).work()
    assert queue.states([bad, good]) == {bad: "EXIT 127", good: "EXIT 0"}


def test_a_job_whose_file_is_damaged_ends_at_once(queue, tmp_path):
    job_id = queue.submit(job(tmp_path))
    (queue.folder / f"{job_id}.json").write_text("")
    Pool(queue.folder).work()
    assert queue.states([job_id]) == {job_id: "EXIT 127"}


def test_a_job_whose_file_lacks_something_ends_at_once_and_the_next_one_runs(queue, tmp_path):
    bad, good = queue.submit(job(tmp_path, "bad")), queue.submit(job(tmp_path, "good"))
    (queue.folder / f"{bad}.json").write_text("{}")
    Pool(queue.folder).work()
    assert queue.states([bad, good]) == {bad: "EXIT 127", good: "EXIT 0"}


@pytest.mark.parametrize(
    "content",
    ["", "\0" * 80, "[]", "{}", '{"word": "EXIT 0", "unheard": "of"}'],
    ids=["nothing", "zeros", "a list", "no key", "another key"],
)
def test_a_damaged_state_keeps_no_other_job_waiting(queue, tmp_path, capsys, content):
    ended = queue.submit(job(tmp_path, code="open('ran', 'a').write('x')"))
    Pool(queue.folder).work()
    (queue.folder / f"{ended}.state").write_text(content)
    later = queue.submit(job(tmp_path, "later"))
    Pool(queue.folder).work()
    assert queue.states([later]) == {later: "EXIT 0"} and (tmp_path / "ran").read_text() == "x"
    assert f"{ended} is left alone: {queue.folder}/{ended}.state: " in capsys.readouterr().out
    with pytest.raises(DataError, match=r"000001\.state: .*; remove it and submit again"):
        queue.states([ended])


def test_a_folder_that_does_not_change_is_not_listed_again_and_again(queue, tmp_path, monkeypatch):
    listed: list[Path] = []
    monkeypatch.setattr(pool, "job_ids", lambda folder: listed.append(folder) or job_ids(folder))
    monkeypatch.setattr(pool, "MTIME_S", 0.1)
    queue.submit(job(tmp_path))
    working = Pool(queue.folder)
    for _ in range(3):
        working.waiting()
        time.sleep(0.15)
    before = len(listed)
    assert [working.waiting() for _ in range(20)] == [["000001"]] * 20
    assert len(listed) == before
    queue.submit(job(tmp_path))
    assert working.waiting() == ["000001", "000002"]


def test_a_job_that_comes_while_the_folders_time_stands_still_is_seen(queue, tmp_path):
    queue.submit(job(tmp_path))
    working, before = Pool(queue.folder), queue.folder.stat()
    assert working.waiting() == ["000001"]
    queue.submit(job(tmp_path))
    os.utime(queue.folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert working.waiting() == ["000001", "000002"]
