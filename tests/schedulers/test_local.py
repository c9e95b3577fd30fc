"""The pool of this computer: bounded, one at a time, outlived by its records; beyond what every scheduler does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from threading import Timer

import pytest

from assay.errors import DataError, SchedulerError
from assay.runs.processes import start_ticks
from assay.schedulers import Job
from assay.schedulers.config import ResourcesConfig
from assay.schedulers.local import Local, State, claimed, lives, read_state, write_state
from assay.schedulers.pool import Pool, main

WITHIN_S = 20.0


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, f"waited {WITHIN_S} s"
        time.sleep(0.02)


@pytest.fixture
def pool(tmp_path) -> Local:
    return Local(tmp_path / "pool", jobs=2)


def job(folder: Path, code: str, name: str = "job") -> Job:
    command = [sys.executable, "-S", "-c", code]
    return Job(name=name, command=command, folder=folder, log=folder / f"{name}.log", script=folder / f"{name}.sh")


def hold(folder: Path, name: str) -> Job:
    """Runs until the file `go` is there, or until it is asked to end."""
    code = (
        "import os, signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, lambda *_: (open('{name}.asked', 'w').close(), sys.exit(75)))\n"
        f"open('{name}.ready', 'w').close()\n"
        "while not os.path.exists('go'): time.sleep(0.01)"
    )
    return job(folder, code, name)


def words(pool: Local, ids: list[str]) -> list[str]:
    return [word.partition(" ")[0] for word in pool.states(ids).values()]


@pytest.fixture
def pool_process(pool) -> Iterator[Callable[[], int]]:
    """The number of the pool's process, which its working jobs have as their parent."""

    def find(job_id: str = "000001") -> int:
        wait_until(lambda: read_state(pool.folder, job_id).pid)
        status = Path(f"/proc/{read_state(pool.folder, job_id).pid}/status").read_text()
        return int(status.partition("PPid:")[2].split()[0])

    yield find


def test_a_process_that_was_gone_before_the_pool_saw_its_beginning_does_not_live():
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert not lives(State(word="RUNNING", pid=gone.pid, start_ticks=0))


def test_no_more_jobs_run_at_a_time_than_the_machine_allows(pool, tmp_path):
    ids = [pool.submit(hold(tmp_path, f"job{number}")) for number in range(3)]
    wait_until(lambda: words(pool, ids) == ["RUNNING", "RUNNING", "QUEUED"])
    time.sleep(0.5)
    assert words(pool, ids) == ["RUNNING", "RUNNING", "QUEUED"]
    (tmp_path / "go").touch()
    wait_until(lambda: list(pool.states(ids).values()) == ["EXIT 0"] * 3)


def test_jobs_begin_in_the_order_they_came(tmp_path):
    pool = Local(tmp_path / "pool", jobs=1)
    ids = [pool.submit(job(tmp_path, f"open('order', 'a').write('{n}')", f"job{n}")) for n in range(4)]
    wait_until(lambda: words(pool, ids) == ["EXIT"] * 4)
    assert (tmp_path / "order").read_text() == "0123"


def test_two_pools_never_work_at_once(pool, tmp_path):
    with claimed(pool.folder) as mine:
        assert mine
        pool.submit(job(tmp_path, "open('ran', 'w')"))
        main(pool.folder)  # a second pool: sees the lock, and ends
    assert not (tmp_path / "ran").exists()


def test_a_pool_that_starts_while_somebody_looks_for_one_is_not_put_off(pool, tmp_path):
    with ExitStack() as look:
        assert look.enter_context(claimed(pool.folder))
        pool.submit(job(tmp_path, "open('ran', 'w')"))
        Timer(0.2, look.close).start()
        main(pool.folder)
    assert (tmp_path / "ran").exists()


def test_a_killed_pool_asks_its_jobs_to_stop_and_the_next_one_calls_them_lost(pool, pool_process, tmp_path):
    job_id = pool.submit(hold(tmp_path, "first"))
    wait_until((tmp_path / "first.ready").exists)
    os.kill(pool_process(), signal.SIGKILL)
    wait_until((tmp_path / "first.asked").exists)
    wait_until(lambda: pool.states([job_id]) == {job_id: "LOST"})
    (tmp_path / "go").touch()
    second = pool.submit(job(tmp_path, "pass", "second"))
    wait_until(lambda: pool.states([second]) == {second: "EXIT 0"})
    assert read_state(pool.folder, job_id).word == "LOST"
    assert pool.meaning("LOST") == "ended"


def test_what_a_killed_pool_had_queued_is_run_by_the_next_one(pool_process, tmp_path):
    pool = Local(tmp_path / "pool", jobs=1)
    pool.submit(hold(tmp_path, "first"))
    wait_until((tmp_path / "first.ready").exists)  # its pool has the lock, so that the second job starts no other
    queued = pool.submit(job(tmp_path, "open('ran', 'w')", "second"))
    os.kill(pool_process(), signal.SIGKILL)
    wait_until(lambda: not pool.has_pool())
    assert pool.states([queued]) == {queued: "QUEUED"}
    assert list(pool.submit_all([])) == []
    wait_until((tmp_path / "ran").exists)


def test_a_submission_of_nothing_starts_no_pool_where_nothing_is_queued(pool, tmp_path):
    assert list(pool.submit_all([])) == []
    assert not pool.folder.exists()
    job_id = pool.submit(job(tmp_path, "pass"))
    wait_until(lambda: pool.states([job_id]) == {job_id: "EXIT 0"} and not pool.has_pool())
    assert list(pool.submit_all([])) == []
    assert not pool.has_pool()


def test_a_job_that_always_ends_with_75_at_once_is_given_up(pool, tmp_path):
    code = "import sys; open('tries', 'a').write('x'); sys.exit(75)"
    job_id = pool.submit(job(tmp_path, code))
    wait_until(lambda: pool.meaning(pool.states([job_id])[job_id]) == "ended")
    assert pool.states([job_id])[job_id].startswith("GIVEN UP: ended with 75 4 times")
    assert (tmp_path / "tries").read_text() == "xxxx"


def test_a_command_that_does_not_exist_ends_and_the_pool_goes_on(pool, tmp_path):
    nowhere = replace(job(tmp_path, "", "bad"), command=["/nowhere/x"])
    bad = pool.submit(nowhere)
    good = pool.submit(job(tmp_path, "pass"))
    wait_until(lambda: pool.states([bad, good]) == {bad: "EXIT 127", good: "EXIT 0"})
    assert "cannot be started" in (pool.folder / "pool.log").read_text()


def test_what_was_submitted_by_a_program_in_the_background_of_a_script_can_be_cancelled(pool, tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's `&` does
    try:
        code = "import signal, time; assert signal.getsignal(2) != signal.SIG_IGN; open('ready', 'w'); time.sleep(60)"
        job_id = pool.submit(job(tmp_path, code))
    finally:
        signal.signal(signal.SIGINT, before)
    wait_until((tmp_path / "ready").exists)
    pool.cancel(job_id)
    wait_until(lambda: pool.states([job_id]) == {job_id: "CANCELLED"})


def test_a_full_disk_ends_no_job_and_what_became_of_each_is_kept_once_there_is_room(pool, tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise DataError("cannot be written (No space left on device)")

    def room(_: float) -> None:
        if (tmp_path / "first.ready").exists():
            here.undo()
            (tmp_path / "go").touch()

    monkeypatch.setattr("assay.schedulers.pool.LINGER_S", 0.5)
    monkeypatch.setattr(pool, "wake", lambda: None)
    ids = [pool.submit(hold(tmp_path, "first")), pool.submit(job(tmp_path, "pass", "second"))]
    with monkeypatch.context() as here:
        here.setattr("assay.schedulers.pool.write_state", full)
        here.setattr("time.sleep", room)
        Pool(pool.folder).work()
    assert list(pool.states(ids).values()) == ["EXIT 0"] * 2
    assert not (tmp_path / "first.asked").exists()


@pytest.fixture
def two_gpus(monkeypatch) -> None:
    """A computer with two GPUs, as the pool and whoever submits see it."""
    for module in ("local", "pool"):
        monkeypatch.setattr(f"assay.schedulers.{module}.visible_gpus", lambda: ["GPU-a", "GPU-b"])
    monkeypatch.setattr("assay.schedulers.pool.LINGER_S", 0.5)
    monkeypatch.setattr(Local, "wake", lambda _: None)


def with_gpus(folder: Path, name: str, count: int, code: int = 0) -> Job:
    """Notes which GPUs it may use, waits for the other jobs to have done so, and ends with `code` the first time."""
    text = (
        "import os, sys, time\n"
        f"open('gpus', 'a').write('{name} ' + os.environ.get('CUDA_VISIBLE_DEVICES', 'all') + '\\n')\n"
        "time.sleep(0.6)\n"
        f"sys.exit(0 if open('gpus').read().count('{name} ') > 1 else {code})"
    )
    return replace(job(folder, text, name), resources=ResourcesConfig(gpus=count))


def given(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (folder / "gpus").read_text().splitlines():
        name, _, gpus = line.partition(" ")
        found.setdefault(name, []).append(gpus)
    return found


def test_each_job_gets_gpus_of_its_own_as_long_as_there_are_some(two_gpus, tmp_path):
    pool = Local(tmp_path / "pool", jobs=4)
    for name in ("first", "second", "third"):
        pool.submit(with_gpus(tmp_path, name, 1))
    pool.submit(with_gpus(tmp_path, "none", 0))
    Pool(pool.folder).work()
    found = given(tmp_path)
    assert {found["first"][0], found["second"][0]} == {"GPU-a", "GPU-b"} and found["third"][0] in ("GPU-a", "GPU-b")
    assert found["none"] == [os.environ.get("CUDA_VISIBLE_DEVICES", "all")]


def test_the_pool_asks_the_driver_once(two_gpus, tmp_path, monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr("assay.schedulers.pool.visible_gpus", lambda: asked.append(1) or ["GPU-a", "GPU-b"])
    pool = Local(tmp_path / "pool", jobs=1)
    for name in ("first", "second"):
        pool.submit(with_gpus(tmp_path, name, 1))
    Pool(pool.folder).work()
    assert len(given(tmp_path)) == 2 and len(asked) == 1


def test_a_job_that_is_given_again_keeps_its_gpu(two_gpus, tmp_path):
    pool = Local(tmp_path / "pool", jobs=2)
    for name in ("first", "second"):
        pool.submit(with_gpus(tmp_path, name, 1, code=75))
    Pool(pool.folder).work()
    found = given(tmp_path)
    assert all(len(gpus) == 2 and len(set(gpus)) == 1 for gpus in found.values()) and found["first"] != found["second"]


def test_the_gpus_of_a_job_that_outlives_its_pool_are_taken(two_gpus, tmp_path):
    pool = Local(tmp_path / "pool", jobs=2)
    old = pool.submit(with_gpus(tmp_path, "old", 1))
    mine = State(word="RUNNING", pid=os.getpid(), start_ticks=start_ticks(os.getpid()), gpus=["GPU-a"])
    write_state(pool.folder, old, mine)
    pool.submit(with_gpus(tmp_path, "new", 1))
    again = Pool(pool.folder)
    again._start()
    wait_until((tmp_path / "gpus").exists)
    assert given(tmp_path) == {"new": ["GPU-b"]}
    again.running["000002"].process.wait()


def test_more_gpus_than_there_are_is_refused_and_nothing_is_queued(two_gpus, tmp_path, monkeypatch):
    pool, wanted = Local(tmp_path / "pool"), with_gpus(tmp_path, "job", 3)
    with pytest.raises(
        SchedulerError, match=r"resources.gpus: got 3; allowed: <= 2, the GPUs that this computer shows"
    ):
        pool.submit(wanted)
    assert not list(tmp_path.glob("pool/*.json"))
    assert "CUDA_VISIBLE_DEVICES: 3 of this computer" in pool.render(wanted)
    monkeypatch.setattr("assay.schedulers.local.visible_gpus", list)
    allowed = "allowed: 0, as no GPU was found here; lower it, or see what nvidia-smi says"
    assert pool.unavailable(wanted) == [f"resources.gpus: got 3; {allowed}"]
    elsewhere = Local(tmp_path / "pool", gives_gpus=False)
    assert elsewhere.unavailable(wanted) == [] and "of this computer" not in elsewhere.render(wanted)


def test_a_damaged_state_is_named(pool, tmp_path):
    pool.folder.mkdir()
    (pool.folder / "000001.json").write_text("{}")
    (pool.folder / "000001.state").write_text("{")
    with pytest.raises(DataError, match=r"000001.state: not valid JSON; remove it and submit again"):
        pool.states(["000001"])
