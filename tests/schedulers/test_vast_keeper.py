"""The keeper of rented machines beside damaged records, and beside others who look whether there is one."""

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Timer

import pytest
from tests.schedulers.vast_desk import CONFIG, HOLD, Desk

from assay.schedulers import vast, vast_keeper
from assay.schedulers.vast import Vast
from assay.schedulers.vast_jobs import Rental
from assay.schedulers.vast_keeper import Keeper

pytestmark = pytest.mark.vast


def damaged(desk: Desk, **config: object) -> int:
    """The machine of a job that runs and whose state cannot be read; what is submitted next is another run."""
    scheduler, job_id = desk.submit(HOLD, **config)
    number = desk.running(scheduler, job_id)
    (desk.kept / f"{job_id}.state").write_bytes(bytes(200))
    desk.run = desk.folder / "runs/other"
    desk.run.mkdir()
    return number


def test_a_damaged_state_keeps_no_other_job_waiting_and_no_second_machine_is_rented_for_its_own(desk, world):
    number = damaged(desk, machines=2)
    scheduler, other = desk.submit("true", machines=2)
    assert desk.ended(scheduler, other).startswith("EXIT 0")
    assert [each["id"] for each in world.rented] == [number] and len(world.ever) == 2


def test_the_machine_of_a_job_whose_state_is_damaged_counts_among_those_that_may_be_rented(desk, world):
    number = damaged(desk)
    scheduler, other = desk.submit("true")
    desk.round()
    assert scheduler.states([other]) == {other: "QUEUED"} and len(world.ever) == 1
    world.vanish(number)
    assert desk.ended(scheduler, other).startswith("EXIT 0")


def test_a_job_whose_damaged_state_is_removed_goes_on_with_the_machine_it_has(desk, world):
    run, number = desk.run, damaged(desk)
    (desk.kept / "000001.state").unlink()
    desk.run = run
    desk.go(number)
    assert desk.ended(desk.scheduler(), "000001").startswith("EXIT 0")
    assert len(world.ever) == 1 and world.rented == []


def test_a_damaged_state_is_said_once_and_a_keeper_with_nothing_else_ends(desk, world, capsys):
    damaged(desk)
    assert vast_keeper.main(desk.kept, 0.0) == 0
    assert capsys.readouterr().out.count("000001.state: damaged") == 1
    keeper = Keeper(desk.kept, 0.0)
    assert (keeper.jobs(), keeper.jobs()) == ({}, {})
    assert capsys.readouterr().out.count("000001.state: damaged") == 1


def test_what_cannot_be_asked_for_is_not_kept_as_if_it_had_been(desk, world, monkeypatch, capsys):
    scheduler, job_id = desk.submit("true")
    monkeypatch.setattr("assay.schedulers.vast_machine.LONGEST", 100)
    desk.round()
    assert scheduler.ledger.rental(job_id) == Rental()
    assert "000001: vast.python: got a path that makes the script" in capsys.readouterr().out


@pytest.fixture
def look(desk) -> Iterator[ExitStack]:
    """Somebody looks whether there is a keeper, until it is closed."""
    desk.kept.mkdir(parents=True)
    with ExitStack() as looking:
        fcntl.flock(looking.enter_context((desk.kept / "lock").open("w")), fcntl.LOCK_SH)
        yield looking


def test_a_keeper_is_started_while_somebody_looks_for_one(desk, look, monkeypatch):
    started: list[Path] = []
    monkeypatch.setattr(vast.subprocess, "run", lambda command, **_: started.append(command[3]))
    Vast(desk.kept, CONFIG).wake()
    assert started == [str(desk.kept)]


def test_a_keeper_that_starts_while_somebody_looks_for_one_is_not_put_off(desk, look, monkeypatch):
    worked: list[bool] = []
    monkeypatch.setattr(Keeper, "work", lambda _: worked.append(True))
    Timer(0.2, look.close).start()
    assert vast_keeper.main(desk.kept, 0.0) == 0
    assert worked == [True]
