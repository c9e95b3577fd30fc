"""assay exec: any command becomes a run that ends in time, tells why, and leaves nothing behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

import pytest

from assay.runs import local_memory

PYTHON = sys.executable
STAGE = """
    import sys, time
    from assay import progress

    progress.announce("toy", "train", identity="abc")
    with progress.phase("train", total=int(sys.argv[1]), unit="steps") as p:
        for step in range(p.total):
            if progress.stop_requested():
                with progress.phase("checkpoint"):
                    time.sleep(0.05)
                progress.verdict(75, f"stopped at {step}", "Unfinished")
                sys.exit(75)
            time.sleep(0.05)
            p.advance(loss=1 / (step + 1))
            print("step", step)
    progress.verdict(0)
"""
HIDDEN = ["sh", "-c", '"$0" "$@" || exit 255', PYTHON]
"""How a pipeline tool stands between: a process in between, and every failure is 255."""


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_asks_a_stage_to_save_and_stop_through_whatever_stands_between(supervised, number):
    process = supervised.start(command=[*HIDDEN, supervised.script("stage.py", STAGE), "1000"])
    supervised.wait_for("step 3")
    process.send_signal(number)
    assert process.wait(10) == 75
    attempt = supervised.attempt()
    assert attempt["stop"]["reason"] == number.name
    assert attempt["stages"][0]["code"] == 75
    assert supervised.ended()


def test_a_plain_command_gets_the_signal_itself(supervised):
    process = supervised.start(command=["sh", "-c", "trap 'echo saved; exit 3' TERM; echo ready; sleep 100 & wait"])
    supervised.wait_for("ready")
    process.terminate()
    assert process.wait(10) == 3
    assert "saved" in supervised.log()
    assert supervised.ended()


def test_a_plain_command_that_the_request_ends_is_unfinished(supervised):
    process = supervised.start(command=["sh", "-c", "echo ready; sleep 100"])
    supervised.wait_for("ready")
    process.terminate()
    assert process.wait(10) == 75


def test_a_second_signal_ends_at_once(supervised):
    process = supervised.start(command=["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"])
    supervised.wait_for("ready")
    process.terminate()
    supervised.wait_for("asking the command to stop")
    time.sleep(1.2)
    process.terminate()
    assert process.wait(10) == 143
    assert supervised.ended()


SAVES_FOR_LONG = "trap 'sleep 2; echo saved; exit 3' INT; trap '' TERM; echo ready; while :; do sleep 0.1; done"


@pytest.mark.parametrize(
    ("job", "second", "code"),
    [
        ("101", signal.SIGTERM, 3),  # LSF sends SIGINT, then SIGTERM: the command goes on saving
        ("101", signal.SIGINT, 130),
        (None, signal.SIGTERM, 143),
    ],
)
def test_another_signal_in_a_job_of_lsf_is_no_second_request_but_the_same_again_is(supervised, job, second, code):
    supervised.environment |= {} if job is None else {"LSB_JOBID": job}
    process = supervised.start("--grace", "20", command=["sh", "-c", SAVES_FOR_LONG])
    supervised.wait_for("ready")
    process.send_signal(signal.SIGINT)
    supervised.wait_for("asking the command to stop")
    time.sleep(1.2)
    process.send_signal(second)
    assert process.wait(10) == code
    assert supervised.ended()


def test_a_command_that_does_not_stop_is_killed_after_its_grace(supervised):
    process = supervised.start("--grace", "1", command=["sh", "-c", "trap '' TERM; echo ready; sleep 100; sleep 100"])
    supervised.wait_for("ready")
    process.terminate()
    assert process.wait(10) == 75
    assert "did not stop in time" in supervised.log()
    assert supervised.ended()


def test_a_stage_stops_before_the_deadline_and_not_long_before(supervised):
    begun = time.monotonic()
    code, _ = supervised.run("--deadline", "6", command=[*HIDDEN, supervised.script("stage.py", STAGE), "1000"])
    took = time.monotonic() - begun
    assert code == 75
    assert supervised.attempt()["stop"]["reason"] == "deadline"
    assert 6 - 5.15 < took < 6


def test_a_plain_command_is_ended_before_the_deadline(supervised):
    begun = time.monotonic()
    assert supervised.run("--deadline", "3", command=["sleep", "100"])[0] == 75
    assert time.monotonic() - begun < 3.3


def test_nothing_outlives_the_command(supervised):
    assert supervised.run(command=["sh", "-c", "setsid sleep 100 & exit 0"])[0] == 0
    assert supervised.ended(0.1)


def test_nothing_outlives_a_killed_guardian(supervised):
    process = supervised.start(command=["sh", "-c", "setsid sh -c 'sleep 100; true' & echo ready; wait"])
    supervised.wait_for("ready")
    process.kill()
    assert supervised.ended()


def test_nothing_outlives_a_killed_supervisor(supervised):
    process = supervised.start(command=["sh", "-c", "setsid sh -c 'sleep 100; true' & echo ready; wait"])
    supervised.wait_for("ready")
    os.kill(supervised.attempt()["holder"]["pid"], signal.SIGKILL)
    assert process.wait(10) == 137
    assert supervised.ended()


STALL = """
    import os
    from assay import progress

    progress.announce("toy", "train")
    os.mkfifo("fifo") if not os.path.exists("fifo") else None
    with progress.phase("load"):
        text = open("fifo").read()  # the culprit
"""


def test_a_stage_that_hangs_is_tried_again_and_then_given_up_with_the_culprit_named(supervised):
    script = supervised.script("hangs.py", STALL)
    begun = time.monotonic()
    code, said = supervised.run("--stall-after", "1.5", command=[*HIDDEN, script])
    assert code == 76
    assert time.monotonic() - begun < 20
    tries = supervised.attempt()["tries"]
    assert [item["stall"]["phase"] for item in tries] == ["load", "load"]
    assert all(item["stall"]["silent_s"] < 2 * 1.5 for item in tries)
    assert 'hangs.py", line 8' in "\n".join(tries[0]["stall"]["evidence"].values())
    assert "this node is suspect" in said
    assert supervised.ended()


def test_a_stage_that_hangs_once_completes_at_the_second_try(supervised):
    script = supervised.script(
        "once.py",
        """
        import os, sys, time
        from assay import progress

        with progress.phase("load"):
            if not os.path.exists("tried"):
                open("tried", "w").close()
                time.sleep(100)
        """,
    )
    assert supervised.run("--stall-after", "1.5", command=[PYTHON, script])[0] == 0
    assert len(supervised.attempt()["tries"]) == 2


def test_a_stopped_process_is_a_stall(supervised):
    process = supervised.start("--stall-after", "2", command=[PYTHON, supervised.script("stage.py", STAGE), "60"])
    supervised.wait_for("step 3")
    (stage,) = [one for one in supervised.processes() if "stage.py" in " ".join(one.cmdline()[:3])]
    stage.suspend()
    assert process.wait(30) == 0
    assert supervised.attempt()["tries"][0]["stall"]["phase"] == "train"


def test_a_silent_command_that_works_is_no_stall(supervised):
    busy = "import time; end = time.time() + 4\nwhile time.time() < end: pass"
    assert supervised.run("--stall-after", "1.5", command=[PYTHON, "-c", busy])[0] == 0
    assert len(supervised.attempt()["tries"]) == 1


def test_a_silent_command_that_waits_is_one(supervised):
    assert supervised.run("--stall-after", "2", command=["sleep", "100"])[0] == 76
    stalls = [item["stall"] for item in supervised.attempt()["tries"]]
    assert [stall["phase"] for stall in stalls] == ["command", "command"]
    assert all(stall["silent_s"] < 2 * 2 for stall in stalls)


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


SAVES = """
    import signal, sys, time

    def save(*_):
        time.sleep(1)
        open("saved", "w").close()
        sys.exit(0)

    signal.signal(signal.SIGTERM, save)
    print("ready", flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("before", [[], ["sh", "-c", '"$0" "$@"; echo after'], ["bash", "-c", '"$0" "$@" & wait']])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_plain_command_has_its_grace_whatever_stands_before_it(supervised, before, number):
    """USR2 is what LSF sends at the run limit; to a program it means something else."""
    process = supervised.start("--grace", "10", command=[*before, PYTHON, supervised.script("saves.py", SAVES)])
    supervised.wait_for("ready")
    process.send_signal(number)
    assert process.wait(20) == (75 if before else 0)
    assert (supervised.folder / "saved").exists()


def test_what_says_nothing_after_one_that_spoke_is_asked_too(supervised):
    speaks = supervised.script("speaks.py", "from assay import progress\nwith progress.phase('load'): pass")
    saves = supervised.script("saves.py", SAVES)
    process = supervised.start("--grace", "20", command=["sh", "-c", f"{PYTHON} {speaks}; exec {PYTHON} {saves}"])
    supervised.wait_for("ready")
    process.terminate()
    assert process.wait(20) in (0, 75)
    assert (supervised.folder / "saved").exists()


def test_unfinished_is_what_a_stage_says_though_its_shell_says_success(supervised):
    script = supervised.script("stage.py", STAGE)
    code, _ = supervised.run("--deadline", "6", command=["sh", "-c", f"{PYTHON} {script} 1000; echo next"])
    assert code == 75


def test_a_program_that_does_not_exist_is_recorded_with_the_code_it_ended_with(supervised):
    assert supervised.run(command=["no-such-program"])[0] == 2
    assert supervised.attempt()["code"] == 2


def test_the_last_word_is_in_the_record_however_short_the_stage(supervised):
    supervised.run(command=[PYTHON, supervised.script("stage.py", STAGE), "3"])
    progress = supervised.attempt()["progress"]
    assert (progress["stage"], progress["phase"], progress["done"], progress["of"]) == ("train", "train", 3, 3)


def test_a_killed_supervisor_leaves_nothing_in_local_memory(supervised):
    process = supervised.start(command=["sh", "-c", "echo $ASSAY_PROGRESS; echo ready; sleep 100"])
    supervised.wait_for("ready")
    (socket,) = [line.split()[-1] for line in supervised.log().splitlines() if line.endswith("/socket")]
    os.kill(supervised.attempt()["holder"]["pid"], signal.SIGKILL)
    process.wait(10)
    assert not os.path.exists(os.path.dirname(socket))


def test_the_command_dies_with_both_of_its_keepers(supervised):
    process = supervised.start(command=[PYTHON, "-c", "import time; print('ready', flush=True); time.sleep(100)"])
    supervised.wait_for("ready")
    supervisor = supervised.attempt()["holder"]["pid"]
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(supervisor, signal.SIGKILL)
    process.kill()
    assert supervised.ended()


def test_a_program_that_started_another_may_be_silent_while_that_one_speaks(supervised):
    train = supervised.script("train.py", STAGE)
    parent = supervised.script(
        "parent.py",
        f"""
        import subprocess, sys
        from assay import progress

        with progress.phase("prepare"):
            pass
        sys.exit(subprocess.call([sys.executable, {train!r}, "80"]))
        """,
    )
    assert supervised.run("--stall-after", "2", command=[PYTHON, parent])[0] == 0
    assert len(supervised.attempt()["tries"]) == 1


@pytest.mark.parametrize("failing", ["kill_tree", "_collect", "remove_local_memory"])
def test_a_guardian_that_cannot_clear_up_ends_with_the_supervisors_code(failing):
    code = f"""
        import sys
        from assay.runs import guardian

        def fails(*_):
            raise FileNotFoundError("no usable temporary directory")

        guardian.{failing} = fails
        guardian.guard()
        sys.exit(75)
        """
    done = subprocess.run([PYTHON, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (75, "")


def test_local_memory_is_cleared_where_no_disk_has_room_for_more(tmp_path, monkeypatch):
    def full():
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr(local_memory, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(tempfile, "gettempdir", full)
    made = local_memory.make_local_memory(4711)
    local_memory.remove_local_memory(4711)
    assert not made.exists()


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
