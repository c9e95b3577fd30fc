"""Several processes for one stage: how they start, what becomes of a signal, and whose end counts."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from assay.__main__ import _report, main
from assay.engine.checkpoint import CheckpointFolder, read_tensors
from assay.errors import ConfigError, Unfinished
from assay.progress import STALLED, UNFINISHED
from assay.runs.diagnose import Diagnosis, diagnose
from assay.runs.ranks import OTHERS_WITHIN_S, PROCESSES, processes_wanted
from assay.runs.store import RunFolder
from assay.studies import study_config, study_names

ROOT = Path(__file__).parents[2]
STAGE = [sys.executable, str(ROOT / "tests/runs/rank_stage.py")]
RANK = 'import os, signal, sys, time; rank = int(os.environ["RANK"])\n'


def started(tmp_path: Path, program: str, processes: int = 2) -> "subprocess.Popen[str]":
    """Ranks that run a program of a few lines."""
    script = tmp_path / "program.py"
    script.write_text(RANK + textwrap.dedent(program))
    command = [sys.executable, "-S", "-E", str(script)]
    launch = f"import sys; from assay.runs.nodes import launch; sys.exit(launch({command!r}, {processes}, {{}}))"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", launch], cwd=tmp_path, text=True, **pipes)


def ended(tmp_path: Path, program: str, processes: int = 2) -> tuple[int, str, str]:
    """Exit code, output, complaints."""
    process = started(tmp_path, program, processes)
    said, complained = process.communicate(timeout=120)
    return process.returncode, said, complained


def test_every_rank_is_told_what_torchrun_would_tell_it(tmp_path):
    code, said, _ = ended(tmp_path, """
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
        print(*(os.environ[name] for name in names), os.environ["MASTER_PORT"].isdecimal())
    """, 3)  # fmt: skip
    assert code == 0
    assert sorted(said.splitlines()) == [f"{rank} 3 {rank} 3 127.0.0.1 True" for rank in range(3)]


@pytest.mark.parametrize(
    ("program", "code", "complaint"),
    [
        ("sys.exit(0)", 0, ""),
        ("time.sleep(0.2 * rank); sys.exit(75)", UNFINISHED, ""),
        ("sys.exit(2 if rank == 1 else 71)", 2, "assay: rank 1 of 2 on {node} ended with 2"),
        ("time.sleep(0.5 * rank); sys.exit(3 if rank == 1 else 71)", 3, "assay: rank 1 of 2 on {node} ended with 3"),
        ("os.kill(os.getpid(), 9) if rank == 1 else sys.exit(71)", 137, "rank 1 of 2 on {node} was killed by SIGKILL"),
        ("sys.exit(71)", 1, "assay: a rank did not answer the others; all were ended"),
    ],
)
def test_the_rank_at_fault_decides_the_code(tmp_path, program, code, complaint):
    """Also where another one has noticed, and ended, before it."""
    found, _, complained = ended(tmp_path, program)
    assert found == code
    assert complaint.format(node=os.uname().nodename) in complained


def test_the_others_are_ended_with_one_that_fails(tmp_path):
    begun = time.monotonic()
    code, said, _ = ended(tmp_path, """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print(os.getpid(), flush=True)
        sys.exit(4) if rank == 1 else time.sleep(600)
    """)  # fmt: skip
    assert code == 4
    assert time.monotonic() - begun < 3 * OTHERS_WITHIN_S
    assert not any(Path(f"/proc/{pid}").exists() for pid in said.split())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_reaches_every_rank(tmp_path, number):
    process = started(tmp_path, """
        heard = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, lambda number, _: heard.append(number))
        print("ready", flush=True)
        while not heard:
            time.sleep(0.01)
        print(rank, heard[0], flush=True)
        sys.exit(75)
    """)  # fmt: skip
    assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "ready\n"]
    process.send_signal(number)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == UNFINISHED
    assert sorted(said.splitlines()) == [f"0 {number:d}", f"1 {number:d}"]


def test_no_rank_outlives_whoever_started_it(tmp_path):
    process = started(tmp_path, "print(os.getpid(), flush=True); time.sleep(600)")
    pids = [process.stdout.readline().strip() for _ in range(2)]
    process.kill()
    process.communicate(timeout=30)
    end = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/exe").exists() and state(pid) != "Z" for pid in pids) and time.monotonic() < end:
        time.sleep(0.01)
    assert time.monotonic() < end


def state(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_how_many_is_said_on_the_command_line_or_in_the_environment():
    assert processes_wanted(None, {}) == 1
    assert processes_wanted(None, {PROCESSES: "4"}) == 4
    assert processes_wanted(2, {PROCESSES: "4"}) == 2
    assert processes_wanted(2, {PROCESSES: "4", "RANK": "1"}) == 1


@pytest.mark.parametrize(
    ("given", "environment", "message"),
    [
        (0, {}, "--processes: got 0; allowed: a whole number >= 1"),
        (None, {PROCESSES: "two"}, "ASSAY_PROCESSES: got two; allowed: a whole number >= 1"),
    ],
)
def test_what_is_no_number_of_processes_is_refused(given, environment, message):
    with pytest.raises(ConfigError, match=message):
        processes_wanted(given, environment)


def test_what_all_ranks_raise_alike_the_first_one_says(monkeypatch, capsys):
    for rank, error in (("0", Unfinished("x")), ("1", Unfinished("x")), ("1", ConfigError("y"))):
        monkeypatch.setenv("RANK", rank)
        assert _report(error) == error.exit_code
    assert capsys.readouterr().err == "assay: x\nassay: rank 1: y\n"


@pytest.mark.parametrize("study", study_names())
def test_a_study_shares_a_stage_or_refuses_in_words(study, tmp_path, monkeypatch, capsys):
    """Contract: a stage that trains either is in SHARED_STAGES, and its task takes a group, or says that it cannot."""
    from assay.stages import _trains

    monkeypatch.chdir(tmp_path)
    config = study_config(study)
    for stage in (name for name in config.STAGES if _trains(config, name)):
        if stage in getattr(config, "SHARED_STAGES", ()):
            source = (ROOT / "src/assay/studies" / study / f"{stage}.py").read_text()
            assert "join(" in source and "group" in source
            continue
        assert main(["stage", study, stage, "--processes", "2"]) == 2
        refusal = f"assay: {study} {stage}: got 2 processes; allowed: 1, as it does not share out its batches"
        assert capsys.readouterr().err.startswith(refusal)


def diagnosis(supervised) -> Diagnosis:
    return diagnose(RunFolder(supervised.folder / "run").read(), time.time())


def pid_of(supervised, rank: int, attempt: int) -> int:
    """The process of a rank, once it trains."""
    folder = supervised.folder / "run/checkpoints"
    newest = max(folder.glob("*/step-*"), default=None)
    path = supervised.folder / f"run/logs/{attempt:04d}.log"
    wait_until(lambda: path.exists() and path.read_text().count(" is process ") == 2)
    wait_until(lambda: max(folder.glob("*/step-*"), default=None) != newest)
    (found,) = re.findall(rf"rank {rank} is process (\d+)", path.read_text())  # gloo may say something on the same line
    return int(found)


def wait_until(holds, within_s: float = 120.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def shared(supervised):
    supervised.environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'src'}"
    supervised.environment |= {"OMP_NUM_THREADS": "1", PROCESSES: "2"}
    return supervised


def test_two_ranks_stop_with_one_checkpoint_and_go_on_and_a_killed_one_is_named(shared):
    """SIGTERM to the supervisor, then kill -9 of rank 1."""
    stage = [*STAGE, "--pause", "0.01", "--steps", "2000"]
    process = shared.start(command=stage)
    pid_of(shared, 1, 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == UNFINISHED
    (folder,) = (shared.folder / "run/checkpoints").iterdir()
    saved = CheckpointFolder(folder, "0123456789abcdef").load()[1]
    assert (diagnosis(shared).state, diagnosis(shared).cause) == ("partial", "signal SIGTERM")

    process = shared.start(command=stage)
    os.kill(pid_of(shared, 1, 2), signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGKILL
    assert f"train: goes on from step {saved['step']}" in said
    found = diagnosis(shared)
    assert found.cause == "signal SIGKILL"
    assert f"rank 1 of 2 on {os.uname().nodename} was killed by SIGKILL" in found.evidence[0]
    assert shared.processes() == []
    assert [each["stage"] for each in shared.attempt(2)["stages"]] == ["train"]


@pytest.mark.torture
def test_ranks_that_were_stopped_and_killed_end_with_the_weights_of_undisturbed_ones(shared):
    stage = [*STAGE, "--pause", "0.005", "--steps", "1000"]
    for attempt, number in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM), start=1):
        process = shared.start(command=stage)
        victim = pid_of(shared, attempt % 2, attempt)
        os.kill(victim if number == signal.SIGKILL else process.pid, number)
        process.communicate(timeout=120)
    assert shared.run(command=stage)[0] == 0
    parts, _ = read_tensors(shared.folder / "out/model.safetensors")
    other = shared.start(command=[*stage, "--out", "whole"], run="undisturbed")
    other.communicate(timeout=120)
    assert other.returncode == 0
    whole, _ = read_tensors(shared.folder / "whole/model.safetensors")
    assert all(tensor.equal(parts[name]) for name, tensor in whole.items())


def test_a_rank_that_hangs_is_named_with_its_stack(shared):
    (shared.folder / "machine.yaml").write_text('{"watch": {"retries": 0, "floors": {"train": 3}}}')
    code, said = shared.run("--machine", "machine.yaml", command=[*STAGE, "--at", "8"])
    assert code == STALLED
    found = diagnosis(shared)
    assert found.cause == f"stall@train@{os.uname().nodename}"
    assert f"on rank 1 of 2 on {os.uname().nodename}" in found.evidence[0]
    assert "read_what_nobody_writes" in found.evidence[1]
    assert "stalled in train on rank 1 of 2 on" in said
    assert shared.processes() == []
