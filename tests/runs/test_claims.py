"""A run has one attempt at a time, whoever asks, and whoever held it before is told from the living."""

import dataclasses
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.runs.begun_runs import attempt

from assay.errors import DataError, RunBusyError, SupersededError
from assay.runs.record import LOST_AFTER_S, Attempt, Holder
from assay.runs.store import RunFolder, is_alive, this_process

RACERS = 8


def elsewhere() -> Holder:
    """A process that cannot be seen from here."""
    return Holder(host="node17", pid=4711, start_ticks=1, boot_id="another")


class TestOneAttemptAtATime:
    def test_a_living_holder_is_named(self, folder):
        folder.begin(attempt(started=0.0))
        who = rf"attempt 1 runs since 1970-01-01 00:00:00 UTC as process {os.getpid()} on \S+; allowed: one attempt"
        with pytest.raises(RunBusyError, match=who + " at a time; wait for its end or stop it"):
            folder.begin(attempt())

    def test_a_living_holder_of_this_host_holds_however_old_its_heartbeat(self, folder):
        folder.begin(attempt(heartbeat=time.time() - 100 * LOST_AFTER_S))
        with pytest.raises(RunBusyError):
            folder.begin(attempt())

    def test_of_many_processes_that_begin_together_one_wins(self, folder):
        for _ in range(3):
            outcomes = _race(folder, attempt())
            assert sorted(outcomes) == ["busy"] * (RACERS - 1) + ["won"]
            (newest,) = [one for one in folder.read().attempts if one.ended is None]
            folder.update(dataclasses.replace(newest, ended=time.time()))

    def test_of_many_one_takes_over_from_a_dead_holder(self, folder):
        folder.begin(attempt(_dead_process()))
        assert sorted(_race(folder, attempt())) == ["busy"] * (RACERS - 1) + ["won"]
        assert [one.number for one in folder.read().attempts] == [1, 2]

    def test_so_it_is_where_the_file_system_has_no_links(self, folder, monkeypatch):
        monkeypatch.setattr(os, "link", _no_links)
        assert sorted(_race(folder, attempt())) == ["busy"] * (RACERS - 1) + ["won"]
        assert folder.read().attempts[0].number == 1

    def test_a_claim_whose_answer_nfs_lost_is_won(self, folder, monkeypatch):
        link = os.link

        def asked_twice(source, target):
            link(source, target)
            link(source, target)

        monkeypatch.setattr(os, "link", asked_twice)
        assert folder.begin(attempt()).number == 1

    def test_a_killed_holder_is_succeeded_at_once(self, folder):
        folder.begin(attempt(_dead_process()))
        assert folder.begin(attempt()).number == 2

    def test_a_zombie_holds_nothing(self, folder):
        pid = os.fork()
        if pid == 0:
            time.sleep(60)
        holder = _holder_of(pid)
        assert is_alive(holder)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        try:
            folder.begin(attempt(holder))
            assert folder.begin(attempt()).number == 2
        finally:
            os.waitpid(pid, 0)

    def test_a_later_process_of_the_same_number_is_not_the_holder(self, folder):
        earlier = dataclasses.replace(this_process(), start_ticks=this_process().start_ticks - 1)
        folder.begin(attempt(earlier))
        assert folder.begin(attempt()).number == 2

    @pytest.mark.parametrize(
        "unseen",
        [{"host": "node17"}, {"boot_id": "another"}, {"pid_namespace": "pid:[1]"}],
        ids=["host", "boot", "container"],
    )
    def test_a_holder_that_cannot_be_seen_lives_as_long_as_its_heartbeat(self, folder, unseen):
        holder = dataclasses.replace(this_process(), start_ticks=0, **unseen)
        folder.begin(attempt(holder, heartbeat=time.time() - LOST_AFTER_S + 30))
        with pytest.raises(RunBusyError, match="attempt 1 runs since"):
            folder.begin(attempt())
        folder.update(attempt(holder, number=1, heartbeat=time.time() - LOST_AFTER_S - 1))
        assert folder.begin(attempt()).number == 2

    def test_a_heartbeat_from_the_future_is_no_sign_of_life(self, folder):
        folder.begin(attempt(elsewhere(), heartbeat=time.time() + 2 * LOST_AFTER_S))
        assert folder.begin(attempt()).number == 2

    def test_a_record_that_leads_nowhere_holds_until_it_is_old(self, folder):
        path = folder.path / "attempts" / "0001.json"
        path.parent.mkdir(parents=True)
        path.symlink_to("nowhere")
        with pytest.raises(RunBusyError, match=r"0001\.json: cannot be read \(No such file or directory\)"):
            folder.begin(attempt())
        os.utime(path, (0, time.time() - LOST_AFTER_S - 1), follow_symlinks=False)
        assert folder.begin(attempt()).number == 2

    def test_an_attempts_folder_that_is_none_is_one_line(self, folder):
        folder.path.mkdir(parents=True)
        (folder.path / "attempts").write_text("")
        with pytest.raises(
            DataError, match=r"attempts: cannot be read \(Not a directory\); restore it or move it away"
        ):
            folder.begin(attempt())

    def test_a_stale_holder_that_wakes_up_learns_that_it_was_succeeded(self, folder):
        stale = folder.begin(attempt(elsewhere(), heartbeat=0.0))
        newer = folder.begin(attempt())
        with pytest.raises(SupersededError, match="attempt 1 was taken for dead and attempt 2 has begun; end this one"):
            folder.update(dataclasses.replace(stale, heartbeat=time.time()))
        assert folder.read().attempts == [stale, newer]

    @pytest.mark.parametrize("before", [0, 2])
    def test_one_whose_folder_was_removed_learns_that_another_has_begun_anew(self, folder, before):
        for _ in range(before):
            folder.begin(attempt(_dead_process()))
        old = folder.begin(attempt())
        shutil.rmtree(folder.path)
        new = folder.begin(attempt(elsewhere()))
        with pytest.raises(
            SupersededError, match=f"the record of attempt {before + 1} was removed and another has beg"
        ):
            folder.update(dataclasses.replace(old, ended=time.time()))
        assert folder.read().attempts == [new]
        with pytest.raises(RunBusyError):
            folder.begin(attempt())

    def test_one_whose_record_alone_was_removed_or_damaged_writes_it_anew(self, folder):
        folder.begin(attempt(_dead_process()))
        running = folder.begin(attempt())
        path = folder.path / "attempts" / "0002.json"
        for damage in (path.unlink, lambda: path.write_text("{")):
            damage()
            folder.update(running)
            assert folder.read().attempts[1] == running

    def test_a_damaged_record_holds_until_it_is_old(self, folder):
        path = folder.path / "attempts" / "0001.json"
        path.parent.mkdir(parents=True)
        path.write_text('{"number"')
        with pytest.raises(RunBusyError, match=r"0001\.json: damaged .* it was written 0 s ago; allowed: one attempt"):
            folder.begin(attempt())
        os.utime(path, (0, time.time() - LOST_AFTER_S - 1))
        assert folder.begin(attempt()).number == 2

    def test_a_claim_that_cannot_be_written_is_one_line_and_claims_nothing(self, folder, monkeypatch):
        def full(source, target):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "link", full)
        with pytest.raises(DataError, match=r"0001\.json: cannot be written \(No space left on device\); make room"):
            folder.begin(attempt())
        assert os.listdir(folder.path / "attempts") == []


def test_this_process_is_alive_and_a_process_with_a_misleading_name_is_told_from_others(tmp_path):
    program = tmp_path / "a) R (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        while "a) R (b" not in Path(f"/proc/{process.pid}/stat").read_text():
            time.sleep(0.01)
        holder = _holder_of(process.pid)
        assert is_alive(this_process()) and is_alive(holder)
        process.kill()
    assert is_alive(holder) is False
    assert is_alive(elsewhere()) is None


def _race(folder: RunFolder, started: Attempt) -> list[str]:
    """Let processes begin an attempt at the same instant; all live until every one has its outcome."""
    context = multiprocessing.get_context("fork")
    barrier, outcomes = context.Barrier(RACERS + 1), context.SimpleQueue()

    def begin() -> None:
        own = dataclasses.replace(started, holder=this_process())
        barrier.wait(30)
        try:
            folder.begin(own)
            outcomes.put("won")
        except RunBusyError:
            outcomes.put("busy")
        barrier.wait(30)

    racers = [context.Process(target=begin) for _ in range(RACERS)]
    for racer in racers:
        racer.start()
    barrier.wait(30)
    found = [outcomes.get() for _ in racers]
    barrier.wait(30)
    for racer in racers:
        racer.join(30)
    return found


def _no_links(source, target) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def _dead_process() -> Holder:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        holder = _holder_of(process.pid)
        process.kill()
    return holder


def _holder_of(pid: int) -> Holder:
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return dataclasses.replace(this_process(), pid=pid, start_ticks=ticks)
