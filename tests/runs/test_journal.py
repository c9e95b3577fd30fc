"""The journal: what reaches the run's folder, and what is said when it does not."""

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assay.engine.checkpoint import CheckpointFolder
from assay.errors import AssayError, DataError
from assay.runs import journal as journals
from assay.runs import scribe
from assay.runs.journal import CHECKPOINTS, Journal
from assay.runs.record import Attempt, Stage
from assay.runs.store import RunFolder, this_process


@pytest.fixture
def open_journal():
    """Makes journals, and leaves no process behind."""
    made = []

    def make(folder: Path) -> Journal:
        made.append(Journal(folder))
        return made[-1]

    yield make
    for pid in (pid for journal in made for pid in journal.processes):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def journal(open_journal, tmp_path):
    """Of a run whose attempt has begun."""
    made = open_journal(tmp_path / "s" / "a" / "0")
    made.begin(attempt())
    return made


def attempt() -> Attempt:
    now = time.time()
    return Attempt(number=0, holder=this_process(), command=["x"], started=now, heartbeat=now)


def recorded(journal: Journal) -> Attempt:
    """What the folder says of the attempt."""
    return RunFolder(journal.folder).read().attempts[0]


def test_a_heartbeat_overtakes_the_log(journal, monkeypatch):
    monkeypatch.setattr(journals, "HEARTBEAT_S", 0.0)
    os.kill(journal.scribe.pid, signal.SIGSTOP)
    for number in range(100_000):
        journal.line(f"{number} {'x' * 60}", 1)
    journal.change(cwd="mark")
    journal.write(time.monotonic())
    os.kill(journal.scribe.pid, signal.SIGCONT)
    while recorded(journal).cwd != "mark":
        journal.scribe.pump()
    assert len((journal.folder / "logs/0001.log").read_text().splitlines()) < 50_000
    journal.end(0)
    lines = (journal.folder / "logs/0001.log").read_text().splitlines()
    assert [int(line.split()[1]) for line in lines] == list(range(100_000))
    assert recorded(journal).warnings == []


def test_lines_that_found_no_room_are_counted_in_log_and_record(journal, monkeypatch):
    monkeypatch.setattr(scribe, "BACKLOG_BYTES", 2**20)
    os.kill(journal.scribe.pid, signal.SIGSTOP)
    for _ in range(30_000):
        journal.line("x" * 60, 1)
    os.kill(journal.scribe.pid, signal.SIGCONT)
    journal.end(0)
    lines = (journal.folder / "logs/0001.log").read_text().splitlines()
    dropped = 30_001 - len(lines)
    assert dropped > 1000
    assert lines[-1].endswith(f" assay: log: {dropped} lines dropped, the folder is too slow")
    assert recorded(journal).warnings == [f"log: {dropped} lines dropped, the folder is too slow"]
    assert recorded(journal).code == 0


def test_a_killed_scribe_is_told_once_and_not_waited_for(journal, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(journal.echo, "add", lambda head, text: told.append(text))
    os.kill(journal.scribe.pid, signal.SIGKILL)
    begun = time.monotonic()
    while not journal.scribe.dead:
        journal.pump()
    journal.line("goes on", 1)
    journal.end(0)
    said = "".join(told)
    assert time.monotonic() - begun < 2
    assert "goes on" in said
    assert said.count("the process that writes the record was killed; NOTHING IS RECORDED ANY MORE") == 1
    assert "missing" not in said


def test_a_scribe_killed_before_the_beginning_is_one_line(open_journal, tmp_path):
    journal = open_journal(tmp_path / "run")
    os.kill(journal.scribe.pid, signal.SIGKILL)
    with pytest.raises(AssayError, match=r"run: the process that writes there was killed; run it again"):
        journal.begin(attempt())


def test_a_folder_that_cannot_be_read_is_one_line(open_journal, tmp_path):
    (tmp_path / "attempts").write_text("")
    with pytest.raises(DataError, match=r"attempts: cannot be read \(Not a directory\); restore it"):
        open_journal(tmp_path).begin(attempt())


def test_the_damage_of_a_sibling_stops_nothing(open_journal, tmp_path):
    other = tmp_path / "s" / "a" / "1" / "attempts"
    other.mkdir(parents=True)
    (other / "0001.json").symlink_to("nowhere")
    (other / "0002.json").mkdir()
    journal = open_journal(tmp_path / "s" / "a" / "0")
    journal.begin(attempt())
    assert journal.known == {}
    journal.end(0)


def test_what_the_engine_has_completed_goes_and_everything_else_stays(journal):
    root = journal.folder / CHECKPOINTS
    done, unfinished = (CheckpointFolder(root / f"asl-train-{name}", name) for name in ("done", "unfinished"))
    for folder in (done, unfinished):
        with folder.locked():
            folder.save(1, {"x": torch.zeros(1)}, {})
            (folder.folder / ".step-000000002.safetensors.7.tmp").write_text("half")
    done.complete()
    (root / "mine").mkdir()
    (root / "mine/step-1.safetensors").write_text("years of work")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file() and done.folder not in path.parents}
    journal.end(0)
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    assert not done.folder.exists()


def test_a_folder_of_checkpoints_that_is_empty_then_goes(journal):
    done = CheckpointFolder(journal.folder / CHECKPOINTS / "asl-train-done", "done")
    done.save(1, {"x": torch.zeros(1)}, {})
    done.complete()
    journal.end(0)
    assert not (journal.folder / CHECKPOINTS).exists()


def test_what_somebody_else_put_beside_complete_checkpoints_stays(journal):
    done = CheckpointFolder(journal.folder / CHECKPOINTS / "asl-train-done", "done")
    done.save(1, {"x": torch.zeros(1)}, {})
    done.complete()
    (done.folder / "notes.txt").write_text("mine")
    journal.end(0)
    assert [path.name for path in done.folder.iterdir()] == ["notes.txt"]


def test_a_name_that_is_no_text_is_said_all_the_same(capfd):
    journals._echo({"stream": 2, "text": os.fsdecode(b"/scratch/\xff: full\n") + "\ud800\n"})
    assert capfd.readouterr().err == "/scratch/\\udcff: full\n\\ud800\n"


def test_facts_are_recorded_without_secrets_and_durations_that_are_none(journal):
    facts = {"api_key": "hunter2", "rate": float("nan")}
    told = Stage(study="", stage="x", started=1.0, facts=facts, seconds={"a": [float("nan"), 1.0]})
    journal.change(stages=[replace(told, error="got 401 from https://bob:hunter2@data.org/v1?api_key=hunter2")])
    journal.end(0)
    (stage,) = recorded(journal).stages
    assert "got 401 from https://" in stage.error and "hunter2" not in stage.error
    assert (stage.facts, stage.seconds) == ({"api_key": "***", "rate": None}, {"a": [1.0]})
    assert "NaN" not in json.dumps(stage.facts)
