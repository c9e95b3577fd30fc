"""assay exec: any command becomes a run, one attempt at a time, that passes on what it says and tells what it was."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from tests.runs.toy_stage import PYTHON, STAGE


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_commands_own(supervised, command, code):
    assert supervised.run(command=["sh", "-c", command])[0] == code
    assert supervised.attempt()["code"] == code


def test_output_is_passed_on_with_its_time_and_kept(supervised):
    code, said = supervised.run(command=["sh", "-c", "echo out; echo err >&2; printf end"])
    assert code == 0
    assert sorted(line.split(" ", 1)[1] for line in said.splitlines()) == ["end", "err", "out"]
    lines = supervised.log().splitlines()
    assert sorted(line.split("Z ", 1)[1] for line in lines) == ["end", "err", "out"]
    assert all(line.startswith(time.strftime("%Y-")) for line in lines)


def test_a_command_that_is_nobodys_run_ends_with_the_place_of_its_record(supervised):
    process = subprocess.run(
        [PYTHON, "-m", "assay", "exec", "--", "sh", "-c", "echo out; exit 3"],
        cwd=supervised.folder,
        env=supervised.environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 3
    assert process.stdout.endswith("out\n") and process.stdout.count("\n") == 1
    found = re.search(r"assay: the record is in (\.assay/runs/exec/\d{8}-\d{6}/\d+)\n$", process.stderr)
    assert (supervised.folder / found[1] / "attempts/0001.json").is_file()
    assert (supervised.folder / found[1] / "logs/0001.log").read_text().count("\n") == 1
    assert "the record is in" not in supervised.run(command=["true"])[1]


def test_a_program_that_does_not_exist_is_one_line(supervised):
    code, said = supervised.run(command=["no-such-program"])
    assert code == 2
    assert said.splitlines() == [
        "assay: no-such-program: cannot be started (No such file or directory); give a program after --"
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--deadline", "0"], "--deadline: got 0; allowed: > 0 seconds"),
        (["--stall-after", "-1"], "--stall-after: got -1; allowed: > 0 seconds"),
        (["--grace", "0"], "--grace: got 0; allowed: > 0 seconds"),
        (["--machine", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_a_wrong_option_is_one_line_and_starts_nothing(supervised, options, message):
    code, said = supervised.run(*options, command=["touch", "started"])
    assert code == 2
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (supervised.folder / "started").exists()


def test_no_command_is_one_line(supervised):
    code, said = supervised.run(command=[])
    assert (code, said) == (
        2,
        "assay: exec: got no command; allowed: assay exec [options] -- COMMAND; give one after --\n",
    )


def test_the_record_tells_what_ran_where_and_how_far_it_came(supervised):
    supervised.run(command=[PYTHON, supervised.script("stage.py", STAGE), "20"])
    attempt = supervised.attempt()
    assert attempt["progress"]["stage"] == "train"
    assert attempt["stages"][0]["code"] == 0
    assert attempt["stages"][0]["facts"] == {"identity": "abc"}
    assert len(attempt["stages"][0]["seconds"]["train"]) == 1
    assert attempt["holder"]["host"] == os.uname().nodename
    assert attempt["resources"]["rss_peak"] > 2**20
    assert attempt["ended"] >= attempt["started"]
    assert json.loads((supervised.folder / "run/run.json").read_text())["identity"] == "abc"


def test_what_a_stage_found_out_stays_though_git_answered_after_its_end(supervised, monkeypatch):
    (supervised.folder / ".git").mkdir()
    slow = Path(supervised.script("git", "#!/bin/sh\nsleep 2\nexit 1\n"))
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    supervised.run(command=[PYTHON, supervised.script("stage.py", STAGE), "1"])
    assert described(supervised)["identity"] == "abc" and described(supervised)["command"]


def test_a_run_has_one_attempt_at_a_time(supervised):
    first = supervised.start(command=["sh", "-c", "echo ready; sleep 100"])
    supervised.wait_for("ready")
    code, said = supervised.run(command=["true"])
    assert code == 2
    assert "attempt 1" in said and len(said.splitlines()) == 1
    first.kill()
    assert supervised.ended()
    assert supervised.run(command=["true"])[0] == 0
    assert supervised.attempt(2)["code"] == 0


def test_two_started_together_are_one_run(supervised):
    both = [supervised.start(command=["sleep", "1"]) for _ in range(2)]
    assert sorted(process.wait(20) for process in both) == [0, 2]


def test_who_what_and_where_are_described_however_short_the_command(supervised):
    supervised.run(command=["true", "--token", "hunter2"])
    described = json.loads((supervised.folder / "run/run.json").read_text())
    assert described["command"] == ["true", "--token", "***"]
    assert described["versions"]["assay"]
    assert "hunter2" not in "".join(path.read_text() for path in supervised.folder.rglob("*.json"))


def test_a_program_that_does_not_exist_is_recorded_with_the_code_it_ended_with(supervised):
    assert supervised.run(command=["no-such-program"])[0] == 2
    assert supervised.attempt()["code"] == 2


def test_the_last_word_is_in_the_record_however_short_the_stage(supervised):
    supervised.run(command=[PYTHON, supervised.script("stage.py", STAGE), "3"])
    progress = supervised.attempt()["progress"]
    assert (progress["stage"], progress["phase"], progress["done"], progress["of"]) == ("train", "train", 3, 3)


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_stream_that_the_caller_has_closed_leads_nowhere(supervised, closed):
    redirections = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
    inner = "ls -l /proc/self/fd; cat; echo done; echo done >&2"
    command = f"exec {PYTHON} -m assay exec --run run -- sh -c '{inner}' {redirections}"
    environment = supervised.environment
    shell = {"shell": True, "cwd": supervised.folder, "env": environment, "stdin": subprocess.DEVNULL}
    done = subprocess.run(command, **shell, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert [line.split()[-1] for line in supervised.log().splitlines()].count("done") == 2
    assert " 0 -> /dev/null" in supervised.log()
    assert bool(done.stdout) == (1 not in closed)
    assert bool(done.stderr) == (2 not in closed)


def test_a_folder_of_checkpoints_that_is_the_commands_own_stays(supervised):
    assert (
        supervised.run(command=["sh", "-c", "mkdir -p run/checkpoints/mine; echo x > run/checkpoints/best.pt"])[0] == 0
    )
    assert sorted(path.name for path in (supervised.folder / "run/checkpoints").iterdir()) == ["best.pt", "mine"]


def described(supervised) -> dict:
    return json.loads((supervised.folder / "run/run.json").read_text())


def describe_anew(supervised, **changes) -> None:
    """As if an earlier attempt had found more out."""
    (supervised.folder / "run/run.json").write_text(json.dumps({**described(supervised), **changes}))


def test_a_second_attempt_at_the_same_keeps_what_the_first_found_out(supervised):
    (supervised.folder / "params.yaml").write_text("lr: 1")
    supervised.run(command=["true"])
    describe_anew(supervised, identity="abc", disk={"train": 7}, lock="old")
    supervised.run(command=["true"])
    assert (described(supervised)["identity"], described(supervised)["disk"]) == ("abc", {"train": 7})
    assert described(supervised)["lock"] is None


@pytest.mark.parametrize("before", [{"params": {"lr": 2}}, {"commit": "0123"}, {"dirty": True}])
def test_a_second_attempt_at_something_else_does_not(supervised, before):
    (supervised.folder / "params.yaml").write_text("lr: 1")
    supervised.run(command=["true"])
    describe_anew(supervised, identity="abc", disk={"train": 7}, **before)
    supervised.run(command=["true"])
    assert (described(supervised)["identity"], described(supervised)["disk"]) == (None, {})
