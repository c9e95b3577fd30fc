"""How assay exec ends a command: on request, before its deadline, or because it stalls."""

import signal
import time

import pytest
from tests.runs.toy_stage import HIDDEN, PYTHON, STAGE


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
