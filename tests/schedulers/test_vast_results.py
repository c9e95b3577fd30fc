"""Results on a rented machine are given up only once they are here, whatever fails: the copy, the list, the disk.

The keeper's rounds are called here one after the other; machines, and what runs on them, are processes of their own.
"""

import errno
import os
import shutil
from pathlib import Path

import pytest
from tests.schedulers.vast_desk import CONFIG, HOLD, wait_for

from assay.errors import DataError
from assay.files import write_bytes
from assay.schedulers.vast_keeper import Keeper

pytestmark = pytest.mark.vast

RESULT = f"[ -e runs/r/result ] && exit 0; {HOLD}; echo result >runs/r/result"
HOUR_S = 3600.0


def price_of(word: str) -> float:
    return float(word.rpartition("$")[2])


@pytest.fixture
def unclaimed(desk, world):
    """A run that has ended while nobody looked; its machine has stopped, and keeps the result."""
    scheduler, job_id = desk.submit(RESULT, keep=0.5, max_cost=1.0)
    desk.go(desk.running(scheduler, job_id))
    wait_for(lambda: [each["actual_status"] for each in world.ever] == ["exited"])
    return scheduler, job_id


def test_an_unclaimed_result_outlives_a_machine_that_takes_a_while_to_stop(desk, world):
    world.fault(stopping_s=2.0)
    scheduler, job_id = desk.submit(f"{HOLD}; echo result >runs/r/result", keep=0.5)
    desk.go(desk.running(scheduler, job_id))
    wait_for(lambda: [each["actual_status"] for each in world.ever] == ["exited"])
    assert len(world.rented) == 1
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "result").read_text() == "result\n" and world.rented == []


def test_a_result_counts_only_when_all_of_it_is_here_and_until_then_the_machine_is_kept(desk, world):
    scheduler, job_id = desk.submit(f"{HOLD}; echo result >runs/r/result")
    number = desk.running(scheduler, job_id)
    world.fault(copies_half=True)
    desk.go(number)
    wait_for((world.disk(number) / "assay/out/code").exists)
    for _ in range(2):
        desk.round()
    assert len(world.rented) == 1 and scheduler.states([job_id])[job_id] == f"RUNNING {number}"
    world.fault(copies_half=False)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "result").read_text() == "result\n"


@pytest.mark.parametrize("failure", ["copies_half", "copies_none"])
def test_a_stopped_machine_whose_results_do_not_come_at_once_is_kept_until_they_do(desk, world, unclaimed, failure):
    scheduler, job_id = unclaimed
    world.fault(**{failure: True})
    for _ in range(3):
        desk.round()
    (number,) = [each["id"] for each in world.rented]
    assert scheduler.states([job_id])[job_id] == f"SILENT {number}"
    world.fault(**{failure: False})
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "result").read_text() == "result\n" and world.rented == []


def test_while_a_machine_is_stopped_its_hours_cost_nothing_and_no_cap_ends_it(desk, world, unclaimed):
    scheduler, job_id = unclaimed
    desk.asleep(scheduler, job_id, 7 * 24 * HOUR_S)
    world.fault(copies_half=True)
    desk.round()
    assert len(world.rented) == 1
    desk.asleep(scheduler, job_id, 7 * 24 * HOUR_S)
    world.fault(copies_half=False)
    word = desk.ended(scheduler, job_id)
    assert word.startswith("EXIT 0") and price_of(word) <= 1.0
    assert (desk.run / "result").read_text() == "result\n"


def test_a_stopped_machine_is_fetched_also_when_all_records_are_lost(desk, world, unclaimed):
    shutil.rmtree(desk.kept)
    again = desk.scheduler()
    (found,) = again.find([desk.run / "job.sh"]).values()
    assert desk.ended(again, found).startswith("EXIT 0")
    assert (desk.run / "result").read_text() == "result\n" and len(world.ever) == 1


def test_a_run_that_has_filled_its_disk_keeps_its_machine_until_that_is_fetched(desk, world):
    scheduler, job_id = desk.submit(RESULT, keep=0.5)
    number = desk.running(scheduler, job_id)
    (world.disk(number) / "assay/code").symlink_to("/dev/full")
    desk.go(number)
    wait_for(lambda: world.ever[0]["actual_status"] == "exited")
    assert [each["id"] for each in world.rented] == [number]
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "result").read_text() == "result\n"


def test_a_machine_that_is_started_again_before_it_could_say_the_code_is_fetched_all_the_same(desk, world):
    scheduler, job_id = desk.submit(RESULT)
    number = desk.running(scheduler, job_id)
    code = world.disk(number) / "assay/out/code"
    desk.go(number)
    wait_for(code.exists)
    world.change(number, outbid=True)
    wait_for(lambda: world.ever[0]["actual_status"] == "exited")
    code.unlink()
    world.change(number, outbid=False)
    wait_for(code.exists)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0") and len(world.ever) == 1


def test_a_machine_from_which_nothing_comes_is_silent_and_in_the_end_given_back(desk, world):
    scheduler, job_id = desk.submit(f"echo x >>runs/r/starts; [ $(wc -l <runs/r/starts) -eq 2 ] || {HOLD}")
    number = desk.running(scheduler, job_id)
    desk.rounds(scheduler, job_id, lambda _: (desk.run / "starts").exists())
    world.fault(copies_none=True)
    desk.round()
    assert scheduler.states([job_id])[job_id] == f"SILENT {number}"
    desk.later(scheduler, job_id, CONFIG.loading)
    desk.rounds(scheduler, job_id, lambda word: word.startswith("QUEUED") or len(world.ever) == 2)
    world.fault(copies_none=False)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert [each["machine_id"] for each in world.ever] == [10, 20] and world.rented == []


@pytest.mark.parametrize("failure", ["copies_none", "hidden"])
def test_the_time_in_which_nobody_looked_does_not_count_against_a_machine(desk, world, failure):
    scheduler, job_id = desk.submit(RESULT)
    number = desk.running(scheduler, job_id)
    desk.asleep(scheduler, job_id, HOUR_S)
    world.fault(**{failure: True})
    desk.round()
    world.fault(**{failure: False})
    assert [each["id"] for each in world.rented] == [number]
    desk.go(number)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0") and len(world.ever) == 1


def test_a_full_disk_here_is_not_the_fault_of_the_machine_which_keeps_the_results(desk, world, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scheduler, job_id = desk.submit(RESULT)
    number = desk.running(scheduler, job_id)
    with monkeypatch.context() as here:
        here.setattr("assay.schedulers.vast_transfer.shutil.copy2", full)
        desk.go(number)
        desk.rounds(scheduler, job_id, lambda word: "No space left on device" in word)
        desk.later(scheduler, job_id, 2 * CONFIG.loading)
        desk.round()
    assert [each["id"] for each in world.rented] == [number]
    assert desk.ended(scheduler, job_id).startswith("EXIT 0") and len(world.ever) == 1


def test_a_keeper_outlives_a_disk_on_which_it_can_keep_nothing(desk, world, monkeypatch):
    full = iter([True] * 5)

    def write(path: Path, content: bytes) -> None:
        if next(full, False):
            raise DataError(f"{path}: cannot be written (No space left on device)")
        write_bytes(path, content)

    scheduler, job_id = desk.submit("true")
    monkeypatch.setattr("assay.schedulers.vast_jobs.write_bytes", write)
    Keeper(desk.kept, 0.1).work()
    assert scheduler.states([job_id])[job_id].startswith("EXIT 0") and len(world.ever) == 1


def test_what_the_service_says_otherwise_than_expected_is_no_answer(desk, world):
    scheduler, job_id = desk.submit(RESULT)
    number = desk.running(scheduler, job_id)
    world.change(number, machine_id=None)
    desk.round()
    assert "show instances: got what cannot be read" in scheduler.ledger.silence()
    world.change(number, machine_id=10)
    desk.go(number)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0") and len(world.ever) == 1


def test_whoever_submits_while_a_machine_is_listed_that_is_given_back_makes_no_second_job_of_it(desk, world):
    scheduler, job_id = desk.submit(RESULT)
    desk.running(scheduler, job_id)
    with world.changed() as state:
        (mine,) = state["instances"]
        label = f"{mine['label'].rpartition('-')[0]}-9"
        state["instances"].append({**mine, "id": 7999, "offer": 2, "label": label, "onstart": "true"})
    assert scheduler.find([desk.run / "job.sh"]) == {desk.run / "job.sh": job_id}
    assert scheduler.ledger.ids() == [job_id]


def test_what_a_machine_costs_while_the_service_does_not_take_it_back_is_counted(desk, world, monkeypatch):
    scheduler, job_id = desk.submit("true", max_cost=100.0)
    with monkeypatch.context() as here:
        here.setattr("assay.schedulers.vast_client.Client.destroy", lambda *_: None)
        desk.rounds(scheduler, job_id, lambda word: word.startswith("RETURNING"))
        desk.asleep(scheduler, job_id, 10 * HOUR_S)
        desk.round()
    assert price_of(desk.ended(scheduler, job_id)) == pytest.approx(3.0, abs=0.02)


def test_a_machine_that_may_not_destroy_itself_stops(desk, world, tmp_path, monkeypatch):
    world.fault(refuses_delete=True)
    (tmp_path / "sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.2\n")  # there, half a minute is over soon
    (tmp_path / "sleep").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    scheduler, job_id = desk.submit("true", loading=1.0)
    desk.rounds(scheduler, job_id, lambda word: word.startswith("LOADING"))
    wait_for(lambda: [each["actual_status"] for each in world.rented] == ["exited"])
