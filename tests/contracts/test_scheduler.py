"""What every scheduler has to do for `assay submit`; a new one is added to `SCHEDULERS` and passes all of this."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from assay.schedulers import ALIVE, Job, Scheduler
from assay.schedulers.local import Local

WITHIN_S = 20.0
SCHEDULERS: dict[str, Callable[[Path], Scheduler]] = {"local": lambda folder: Local(folder / "pool", jobs=1)}


@pytest.fixture(params=SCHEDULERS)
def scheduler(request, tmp_path) -> Scheduler:
    return SCHEDULERS[request.param](tmp_path)


@pytest.fixture
def job(tmp_path) -> Callable[..., Job]:
    """A job of some lines of Python, which run in the folder `tmp_path`."""

    def make(code: str, name: str = "job") -> Job:
        command = [sys.executable, "-S", "-c", code]
        return Job(name=name, command=command, folder=tmp_path, log=tmp_path / "logs" / f"{name}.log")

    return make


def meaning(scheduler: Scheduler, job_id: str) -> str:
    return scheduler.meaning(scheduler.states([job_id]).get(job_id, ""))


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end, f"waited {WITHIN_S} s"
        time.sleep(0.02)


def wait_for_end(scheduler: Scheduler, *ids: str) -> None:
    wait_until(lambda: all(meaning(scheduler, each) == "ended" for each in ids))


def test_a_job_runs_in_its_folder_and_its_output_is_appended_to_its_log(scheduler, job, tmp_path):
    made = job("import os; print('here', os.getcwd())")
    made.log.parent.mkdir()
    made.log.write_text("earlier\n")
    wait_for_end(scheduler, scheduler.submit(made))
    assert made.log.read_text() == f"earlier\nhere {tmp_path}\n"


def test_a_job_is_alive_from_its_submission_to_its_end(scheduler, job, tmp_path):
    hold = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)"
    job_id = scheduler.submit(job(hold))
    assert meaning(scheduler, job_id) in ALIVE
    wait_until(lambda: meaning(scheduler, job_id) == "running")
    (tmp_path / "go").touch()
    wait_for_end(scheduler, job_id)


def test_ids_are_never_used_twice(scheduler, job):
    first = scheduler.submit(job("pass"))
    second = scheduler.submit(job("pass"))
    wait_for_end(scheduler, first, second)
    assert len({first, second, scheduler.submit(job("pass"))}) == 3


def test_a_job_that_nobody_submitted_is_unknown_and_can_be_cancelled_without_harm(scheduler):
    scheduler.cancel("999999")
    assert scheduler.states(["999999"]) == {}
    assert scheduler.meaning("a word of no scheduler") == "unknown"


def test_a_queued_job_that_is_cancelled_never_runs(scheduler, job, tmp_path):
    first = scheduler.submit(job("import os, time\nwhile not os.path.exists('go'): time.sleep(0.01)", "first"))
    second = scheduler.submit(job("open('ran', 'w')", "second"))
    scheduler.cancel(second)
    (tmp_path / "go").touch()
    wait_for_end(scheduler, first, second)
    assert not (tmp_path / "ran").exists()


def test_a_running_job_that_is_cancelled_is_asked_to_end(scheduler, job, tmp_path):
    code = (
        "import signal, sys, time\n"
        "def end(*_):\n    open('asked', 'w').close()\n    sys.exit(75)\n"
        "signal.signal(signal.SIGINT, end); signal.signal(signal.SIGTERM, end)\n"
        "open('ready', 'w').close()\n"
        "while True: time.sleep(0.01)"
    )
    job_id = scheduler.submit(job(code))
    wait_until((tmp_path / "ready").exists)
    scheduler.cancel(job_id)
    wait_for_end(scheduler, job_id)
    assert (tmp_path / "asked").exists()


def test_a_job_that_ends_with_75_is_given_again(scheduler, job, tmp_path):
    code = "import os, sys; open('tries', 'a').write('x'); sys.exit(75 if os.path.getsize('tries') < 2 else 0)"
    wait_for_end(scheduler, scheduler.submit(job(code)))
    assert (tmp_path / "tries").read_text() == "xx"


def test_a_job_that_fails_is_not_given_again(scheduler, job, tmp_path):
    wait_for_end(scheduler, scheduler.submit(job("import sys; open('tries', 'a').write('x'); sys.exit(3)")))
    assert (tmp_path / "tries").read_text() == "x"


def test_another_process_sees_the_same(scheduler, job, request, tmp_path):
    job_id = scheduler.submit(job("pass"))
    wait_for_end(scheduler, job_id)
    other = SCHEDULERS[request.node.callspec.params["scheduler"]](tmp_path)
    assert other.states([job_id]) == scheduler.states([job_id])
