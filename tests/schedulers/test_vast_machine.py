"""The script of a job on a rented machine, and what is taken from there: restarts, full disks, hostile hosts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from assay.errors import SchedulerError
from assay.schedulers import Job
from assay.schedulers.config import VastConfig
from assay.schedulers.vast_cost import seconds_left
from assay.schedulers.vast_jobs import Rental, Ticket
from assay.schedulers.vast_machine import job_script
from assay.schedulers.vast_transfer import fetch, send

CONFIG = VastConfig(image="lab/assay:1")


class Machine:
    """A folder that stands for a rented machine, and the client that copies to it and from it, as rsync would."""

    def __init__(self, folder: Path, repository: Path) -> None:
        self.disk, self.repository = folder / "disk", repository
        self.base, self.staging = self.disk / "assay", folder / "kept"
        for name in ("in", "out", "control"):
            (self.base / name).mkdir(parents=True)
        (self.base / "end").write_text("99999999999\n")
        self.staging.mkdir()
        self.shims = folder / "shims"
        self.shims.mkdir()

    def ticket(self, script: str) -> Ticket:
        run = self.repository / "runs/r"
        run.mkdir(parents=True, exist_ok=True)
        job = Job(
            name="j",
            command=["sh", "-c", script],
            folder=self.repository,
            log=run / "job.log",
            script=run / "job.sh",
        )
        job.script.write_text(job_script(job, CONFIG))
        return Ticket(job=job, config=CONFIG, bundle="repository.bundle")

    def copy(self, source: str, target: str, here: Path) -> None:
        places = [
            here / path if where == "local" else self.disk / path.lstrip("/")
            for where, _, path in (each.partition(":") for each in (source, target))
        ]
        shutil.copytree(*places, symlinks=True, dirs_exist_ok=True)

    def works(self) -> None:
        """Until the job's script ends, or is killed."""
        environment = {**os.environ, "PATH": f"{self.shims}:{os.environ['PATH']}", "ASSAY_DISK": str(self.disk)}
        subprocess.run(["bash", self.base / "in/job.sh"], env=environment, stdin=subprocess.DEVNULL, check=False)

    def shim(self, name: str, script: str) -> None:
        """Another program of that name, which has the real one as $real."""
        path = self.shims / name
        path.write_text(f"#!/bin/sh\nreal={shutil.which(name)}\n{script}\n")
        path.chmod(0o755)

    @property
    def has_ended(self) -> bool:
        return (self.base / "out/code").exists()


@pytest.fixture
def repository(tmp_path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    for words in (["init", "-q"], ["add", "committed"], ["commit", "-q", "-m", "first"]):
        (folder / "committed").write_text("committed\n")
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True)
    return folder


@pytest.fixture
def machine(tmp_path, repository) -> Machine:
    return Machine(tmp_path, repository)


def sent(machine: Machine, script: str) -> Ticket:
    ticket = machine.ticket(script)
    send(machine, 1, ticket, machine.staging, "000001")
    return ticket


@pytest.mark.parametrize("word", ["fetch", "checkout"])
def test_a_machine_that_is_started_again_while_it_unpacks_has_the_whole_commit(machine, word):
    sent(machine, "cat committed")
    machine.shim("git", f'case "$*" in *" {word} "*) kill -9 $PPID;; *) exec $real "$@";; esac')
    machine.works()
    assert not machine.has_ended
    (machine.shims / "git").unlink()
    machine.works()
    assert (machine.base / "out/run/job.log").read_text() == "committed\n"
    assert (machine.base / "out/code").read_text() == "0\n"


def test_half_a_copy_on_a_full_disk_replaces_nothing_and_is_not_taken_for_the_end(machine):
    ticket = sent(machine, "echo later >runs/r/checkpoint")
    (machine.base / "out/run").mkdir()
    (machine.base / "out/run/checkpoint").write_text("earlier")
    machine.shim("cp", 'for last; do :; done; mkdir -p "$last"; echo >"$last/checkpoint"; exit 1')
    machine.works()
    assert not machine.has_ended
    fetch(machine, 1, ticket, machine.staging, "000001")
    assert (ticket.job.log.parent / "checkpoint").read_text() == "earlier"


def test_half_a_file_of_the_cache_is_not_taken_for_the_end(machine):
    sent(machine, "mkdir -p .dvc/cache/aa; echo whole >.dvc/cache/aa/bb")
    machine.shim("cp", 'case "$*" in *--parents*) exit 1;; *) exec $real "$@";; esac')
    machine.works()
    assert not machine.has_ended


def test_what_is_new_in_the_cache_is_fetched_however_old_its_content_says_it_is(machine, repository):
    ticket = sent(
        machine, "mkdir -p .dvc/cache/aa; cp -p committed .dvc/cache/aa/bb; touch -d 2001-01-01 .dvc/cache/aa/bb"
    )
    machine.works()
    assert fetch(machine, 1, ticket, machine.staging, "000001").code == 0
    assert (repository / ".dvc/cache/aa/bb").read_text() == "committed\n"


def test_of_what_a_host_offers_only_the_folders_that_were_asked_for_are_taken(machine, repository, tmp_path):
    ticket = sent(machine, "true")
    machine.works()
    hook = machine.base / "out/fetch/.git/hooks/post-commit"
    hook.parent.mkdir(parents=True)
    hook.write_text("#!/bin/sh\n")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("key")
    (machine.base / "out/fetch/.dvc").symlink_to(secret)
    shutil.rmtree(machine.base / "out/run")
    (machine.base / "out/run").symlink_to(secret)
    (machine.base / "out/files").unlink()
    fetch(machine, 1, ticket, machine.staging, "000001")
    assert not (repository / ".git/hooks/post-commit").exists()
    assert not (repository / "runs/r/key").exists() and not (repository / ".dvc").exists()


def test_a_copy_that_takes_too_long_shows_that_the_machine_is_there_and_goes_on(machine, monkeypatch):
    ticket = sent(machine, "echo result >runs/r/result")
    machine.works()

    def slow(*_: object) -> None:
        shutil.copy(machine.base / "out/started", machine.staging / "000001.in/started")
        shutil.copy(machine.base / "out/files", machine.staging / "000001.in/files")
        raise SchedulerError("vastai copy: no answer within 3600 s; wait")

    with monkeypatch.context() as here:
        here.setattr(machine, "copy", slow)
        said = fetch(machine, 1, ticket, machine.staging, "000001")
    assert (said.started, said.whole, said.code) == (True, False, None)
    assert fetch(machine, 1, ticket, machine.staging, "000001").code == 0


def test_what_an_earlier_copy_said_does_not_count_for_a_later_one_that_fails(machine, monkeypatch):
    ticket = sent(machine, "true")
    machine.works()
    assert fetch(machine, 1, ticket, machine.staging, "000001").started
    monkeypatch.setattr(machine, "copy", lambda *_: None)
    said = fetch(machine, 1, ticket, machine.staging, "000001")
    assert (said.started, said.whole, said.code) == (False, False, None)


def test_a_machine_that_costs_nothing_may_be_rented_too(tmp_path):
    ticket = Machine(tmp_path, tmp_path / "repository").ticket("true")
    assert 1e6 < seconds_left(ticket, Rental(), 0.0) < float("inf")
