"""What is paid for is shown, and given back when somebody says so; tests/stubs/vastai stands for the service."""

import errno
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.stubs.vast_world import World

from assay.__main__ import main
from assay.cli import run
from assay.errors import ConfigError, SchedulerError
from assay.rented import paid_for
from assay.schedulers import Job
from assay.schedulers.config import VastConfig
from assay.schedulers.vast_client import Client
from assay.schedulers.vast_jobs import Ledger, Rental, Ticket, label_of


@pytest.fixture
def world(tmp_path, monkeypatch) -> Iterator[World]:
    """A repository, in which we are, with one job on one of three machines; another was rented by hand."""
    stubs = Path(__file__).parent / "stubs"
    monkeypatch.setenv("PATH", os.pathsep.join([str(stubs), str(Path(sys.executable).parent), os.environ["PATH"]]))
    monkeypatch.setenv("VASTAI_STUB", str(tmp_path / "service"))
    world = World(tmp_path / "service", {1: 0.3, 2: 0.4, 3: 0.5})
    run_folder = tmp_path / "runs/r"
    run_folder.mkdir(parents=True)
    job = Job(name="study-arm-s0", command=["x"], folder=tmp_path, log=run_folder / "log", script=run_folder / "job.sh")
    labels = [label_of(job.token, "000001", 1), label_of("f" * 16, "000007", 2), "by hand"]
    with world.changed() as state:
        for number, label in enumerate(labels, start=1):
            machine = {
                "id": 7000 + number,
                "offer": number,
                "label": label,
                "machine_id": 10 * number,
                "end_date": None,
            }
            told = {
                "gpu_name": "RTX 4090",
                "actual_status": "running",
                "intended_status": "running",
                "status_msg": None,
            }
            state["instances"].append({**machine, **told, "dph_total": 0.5, "start_date": time.time() - 7200})
    ticket = Ticket(job=job, config=VastConfig())
    Ledger(tmp_path / ".assay/vast").create(ticket, Rental(word="RUNNING 7001", instance=7001, label=labels[0]))
    monkeypatch.chdir(tmp_path)
    yield world
    world.end()


def test_status_shows_what_is_paid_for_with_the_run_and_what_it_has_cost(world, tmp_path):
    head, first, second = paid_for(tmp_path)
    assert head.startswith("2 rented machines are paid for, $1.00 an hour") and "1 more that assay did not rent" in head
    assert first.split("  ")[1:] == ["7001", "RTX 4090", "running", "2.0 h, about $1.00", "study-arm-s0"]
    assert second.endswith("no job of this repository")
    paid_for(tmp_path)
    assert len(world.state["requests"]) == 1  # what was said a minute ago is good enough


def test_of_a_machine_that_has_stopped_no_price_is_said_that_is_not_paid(world, tmp_path):
    world.change(7001, actual_status="exited")
    head, first, _ = paid_for(tmp_path)
    assert "$0.50 an hour" in head and "its disk alone is paid for" in first


def test_where_nothing_was_ever_rented_nobody_is_asked(world, tmp_path):
    assert paid_for(tmp_path / "elsewhere") == []
    assert world.state["requests"] == []


def test_that_the_service_is_silent_is_said_in_status(world, tmp_path):
    world.fault(down=True)
    assert paid_for(tmp_path)[0].startswith("what is rented is not known: vastai show instances: failed")


def test_stop_without_a_number_only_shows(world, capsys):
    assert run(["stop"]) == 0
    assert "2 rented machines are paid for" in capsys.readouterr().out
    assert len(world.rented) == 3


def test_stop_gives_back_what_it_is_told_to_and_no_other_is_rented_for_its_job(world, tmp_path, capsys):
    assert run(["stop", "7001"]) == 0
    assert capsys.readouterr().out.startswith("7001 is given back\n1 rented machine is paid for")
    assert [each["id"] for each in world.rented] == [7002, 7003]
    assert Ledger(tmp_path / ".assay/vast").is_cancelled("000001")


def test_stop_all_leaves_what_assay_did_not_rent(world, capsys):
    assert run(["stop", "--all", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    assert [each["id"] for each in world.rented] == [7003]


def test_stop_refuses_what_assay_did_not_rent(world):
    with pytest.raises(ConfigError, match=r"NUMBER: got 7003; allowed: 7001, 7002; see assay stop"):
        run(["stop", "7003"])
    assert len(world.rented) == 3


def test_stop_says_when_the_service_is_silent(world):
    world.fault(down=True)
    with pytest.raises(SchedulerError, match="vastai show instances: failed"):
        run(["stop", "--all"])


@pytest.fixture
def refused(monkeypatch) -> None:
    """The service does not give 7001 back."""
    destroy = Client.destroy

    def fail(client: Client, number: int) -> None:
        if number == 7001:
            raise SchedulerError("vastai destroy instance: failed (404); wait")
        destroy(client, number)

    monkeypatch.setattr(Client, "destroy", fail)


def test_stop_all_goes_on_after_a_machine_that_fails_and_says_so_in_the_end(world, refused, capsys):
    assert main(["stop", "--all"]) == 2
    assert [each["id"] for each in world.rented] == [7001, 7003]
    said = capsys.readouterr()
    assert said.out.startswith("7001 is still listed; give assay stop 7001 again\n7002 is given back\n")
    assert said.err == "assay: 7001: vastai destroy instance: failed (404); wait\n"


def test_what_failed_is_said_too_when_the_service_is_silent_afterwards(world, refused, monkeypatch):
    answers = iter([Client("vastai").instances()])
    monkeypatch.setattr(Client, "instances", lambda _: next(answers, None) or Client._answer(Client("false"), [], list))
    with pytest.raises(SchedulerError, match=r"(?s)^7001: vastai destroy.*\nfalse .*failed"):
        run(["stop", "--all"])
    assert [each["id"] for each in world.rented] == [7001, 7003]


def test_a_machine_whose_job_cannot_be_cancelled_is_given_back_all_the_same(world, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Ledger, "cancel", full)
    with pytest.raises(
        SchedulerError, match=r"7001: its job is not cancelled \(No space left on device\), and may get"
    ):
        run(["stop", "--all"])
    assert [each["id"] for each in world.rented] == [7003]


DAMAGE = {
    "zeros": bytes(200),
    "nothing": b"",
    "a list": b"[]",
    "no key": b"{}",
    "another key": b'{"word": "QUEUED", "avoid": [], "unheard": "of"}',
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_said_and_what_it_was_about_is_shown_and_given_back(world, tmp_path, capsys, content):
    (tmp_path / ".assay/vast/000001.state").write_bytes(content)
    shown = paid_for(tmp_path)
    assert shown[1].endswith("study-arm-s0") and "000001.state: damaged (" in shown[3] and len(shown) == 4
    assert run(["stop", "--all"]) == 0
    said = capsys.readouterr()
    assert said.err.startswith(f"assay: {tmp_path}/.assay/vast/000001.state: damaged (") and said.err.count("\n") == 1
    assert [each["id"] for each in world.rented] == [7003]
    assert Ledger(tmp_path / ".assay/vast").is_cancelled("000001")


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_of_a_job_keeps_no_machine(world, tmp_path, capsys, content):
    (tmp_path / ".assay/vast/000001.json").write_bytes(content)
    assert run(["stop"]) == 0
    assert "job 000001, whose file is damaged" in capsys.readouterr().out
    (tmp_path / ".assay/vast/000001.state").write_bytes(content)
    assert run(["stop", "--all"]) == 0
    assert [each["id"] for each in world.rented] == [7003]


def test_what_the_service_said_last_is_asked_again_if_it_cannot_be_read(world, tmp_path):
    (tmp_path / ".assay/vast/instances.json").write_bytes(bytes(200))
    assert paid_for(tmp_path)[0].startswith("2 rented machines are paid for")
