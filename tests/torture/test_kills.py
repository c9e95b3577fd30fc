"""SIGKILL at random moments, of whichever process: nothing survives it, nothing is torn, the result is the same."""

import json
import os
import random
import re
import signal
import statistics
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import psutil
import pytest

from assay.engine.checkpoint import read_tensors
from assay.runs.store import RunFolder

KILLS = int(os.environ.get("TORTURE_KILLS", "3"))
SEED = int(os.environ.get("TORTURE_SEED", "0"))
KILLS_PER_RUN = 5
STEPS, INTERVAL = 300, 20
PARAMETERS = {"train.steps": str(STEPS), "train.checkpoint_every": str(INTERVAL)}
SHARE_AIMED = 0.5
"""Of the kills, how many wait for a checkpoint to be written."""
LATER_S = 0.002
"""An aimed kill comes up to this much after the file has appeared; writing it takes about 5 ms."""
GONE_WITHIN_S = 5.0
VICTIMS = {
    "guardian": re.compile(""),
    "supervisor": re.compile(""),
    "dvc": re.compile(r"^\S*python\S* \S*dvc repro"),
    "stage": re.compile(r"^\S*python\S* \S*assay stage "),
}
"""Each is a descendant of the one before; two of them are known by their command lines."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill. cut_off: it left a checkpoint half written, under a temporary name; gone_s: until nothing was left.

    repeated: steps done and lost; None where all were done.
    """

    victim: str
    at_s: float
    in_checkpoint: bool
    cut_off: bool
    gone_s: float
    code: int
    repeated: int | None


def victim_pid(guardian: int, name: str) -> int | None:
    """The process of that role, None if there is none yet or any more."""
    with suppress(psutil.Error):
        if name == "guardian":
            return guardian
        children = psutil.Process(guardian).children(recursive=True)
        if name == "supervisor":
            return children[0].pid if children else None
        for process in children:
            with suppress(psutil.Error):
                if VICTIMS[name].match(" ".join(process.cmdline())):
                    return process.pid
    return None


def written(trial) -> set[str]:
    """Names of checkpoints that are being written, or were when their writer died."""
    found: set[str] = set()
    for folder in trial.run.glob("checkpoints/*"):
        with suppress(FileNotFoundError):
            found |= {name for name in os.listdir(folder) if name.startswith(".step-")}
    return found


def wait_until_written(trial, process: subprocess.Popen[bytes], left: set[str]) -> None:
    """Until a checkpoint is being written, or the attempt has ended. left: those that dead writers left."""
    while written(trial) <= left and process.poll() is None:
        time.sleep(0.0003)


def aim(trial, process: subprocess.Popen[bytes], name: str, rng: random.Random) -> int | None:
    """The victim, at a moment when one of the next checkpoints is being written."""
    left, pid = written(trial), None
    for _ in range(rng.randint(1, 6)):
        wait_until_written(trial, process, left)
        pid = victim_pid(process.pid, name)  # takes longer than to write a checkpoint
    wait_until_written(trial, process, left)
    time.sleep(rng.uniform(0, LATER_S))
    return pid


def kill_once(trial, rng: random.Random, life_s: float) -> Kill | None:
    """Start an attempt and kill one of its processes; None if it had completed before."""
    name, aimed, moment = rng.choice(list(VICTIMS)), rng.random() < SHARE_AIMED, rng.uniform(0, life_s)
    begun, left = time.monotonic(), written(trial)
    process = trial.start()
    if aimed:
        pid = aim(trial, process, name, rng)
    else:
        with suppress(subprocess.TimeoutExpired):
            process.wait(moment)
        pid = victim_pid(process.pid, name)
    name, pid = (name, pid) if pid else ("guardian", process.pid)
    if process.poll() is not None:
        assert process.returncode == 0, f"it ended by itself: {trial.log()}"
        return None
    in_checkpoint = written(trial) > left
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    killed = time.monotonic()
    code = process.wait(30)
    while alive := trial.processes():
        assert time.monotonic() - killed < GONE_WITHIN_S, f"{name} killed, and left: {alive}"
    gone = time.monotonic() - killed
    refuse_damage(trial)
    if code == 0:
        return None
    return Kill(
        victim=name,
        at_s=killed - begun,
        in_checkpoint=in_checkpoint,
        cut_off=written(trial) > left,
        gone_s=gone,
        code=code,
        repeated=repeated(trial),
    )


def refuse_damage(trial) -> None:
    """Every file under its own name is whole. DVCLive's are not looked at: a new attempt writes them afresh."""
    for root in (trial.run, trial.folder / "results"):
        for path in root.rglob("[!.]*.json"):
            if "live" not in path.parts:
                json.loads(path.read_bytes())
        for path in root.rglob("[!.]*.safetensors"):
            read_tensors(path)
    if trial.run.exists():
        RunFolder(trial.run).read()
    for line in (trial.run / "events.jsonl").read_text().splitlines() if (trial.run / "events.jsonl").exists() else []:
        json.loads(line)


def stage_has_ended(trial) -> bool:
    """The stage has written its model and marked its checkpoints, or DVC has taken note and they are removed."""
    return is_noted(trial) or any(trial.run.glob("checkpoints/*/complete"))


def is_noted(trial) -> bool:
    """DVC has taken note of the stage, and does not begin it again."""
    return "\n  train:\n" in (trial.folder / "dvc.lock").read_text()


def repeated(trial) -> int | None:
    """Steps that were done and will be done again; None: all are done, and the pipeline has yet to take note."""
    if stage_has_ended(trial):
        return None
    return max(0, trial.seen() - trial.saved())


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one run. temporaries: files that its dead writers left, after its end."""

    kills: list[Kill]
    attempts: int
    temporaries: int


def torture(project, seed: str, count: int) -> Outcome:
    """Kill a run until `count` kills are done or it completes in spite of them; it must end as the undisturbed one."""
    rng, trial, kills = random.Random(seed), project.trial(), []
    code = None
    while len(kills) < count and code != 0:
        kill = kill_once(trial, rng, project.undisturbed.seconds)
        kills, code = (kills, 0) if kill is None else ([*kills, kill], None)
    if code != 0:
        step, noted = trial.saved(), is_noted(trial)
        code = trial.start().wait(120)
        assert code == 0, trial.log()
        assert (f"goes on from step {step}" in trial.log()) == (step > 0 and not noted)
    assert trial.files() == project.undisturbed.files
    assert not trial.processes()
    refuse_damage(trial)
    assert not trial.checkpoints()
    outcome = Outcome(kills=kills, attempts=trial.attempts(), temporaries=len(trial.temporaries()))
    trial.remove()
    return outcome


def tortured(project, seed: str, count: int) -> list[Outcome]:
    """Runs until `count` kills are done."""
    outcomes: list[Outcome] = []
    while (left := count - sum(len(outcome.kills) for outcome in outcomes)) > 0:
        outcomes.append(torture(project, f"{seed}-{len(outcomes)}", left))
    return outcomes


@pytest.fixture(scope="module")
def project(trained_project):
    return trained_project(PARAMETERS)


def test_a_run_killed_at_random_ends_as_the_undisturbed_one(project, side_by_side, report):
    groups = -(-KILLS // KILLS_PER_RUN)
    shares = [KILLS // groups + (index < KILLS % groups) for index in range(groups)]
    outcomes = side_by_side(lambda index: tortured(project, f"{SEED}-{index}", shares[index]), groups)
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    lost = [kill.repeated for kill in kills if kill.repeated is not None]
    report(
        "kills",
        {
            "kills": len(kills),
            "victims": dict(sorted(Counter(kill.victim for kill in kills).items())),
            "codes": {f"{v} {c}": n for (v, c), n in sorted(Counter((k.victim, k.code) for k in kills).items())},
            "while_a_checkpoint_was_written": sum(kill.in_checkpoint for kill in kills),
            "of_these_left_it_half_written": sum(kill.cut_off for kill in kills),
            "runs": len(outcomes),
            "attempts": sum(outcome.attempts for outcome in outcomes),
            "bit_identical_runs": len(outcomes),
            "checkpoint_interval_steps": INTERVAL,
            "steps_repeated_median": statistics.median(lost),
            "steps_repeated_most": max(lost),
            "kills_after_the_stage_and_before_the_pipeline_had_ended": len(kills) - len(lost),
            "until_nothing_was_left_median_s": round(statistics.median(kill.gone_s for kill in kills), 2),
            "until_nothing_was_left_most_s": round(max(kill.gone_s for kill in kills), 2),
            "temporaries_left_most": max(outcome.temporaries for outcome in outcomes),
        },
    )
    assert len(kills) == KILLS
    assert max(lost) <= INTERVAL


@pytest.mark.torture
def test_a_kill_after_the_stage_and_before_the_pipeline_has_ended_repeats_nothing(project):
    trial = project.trial()
    process = trial.start()
    while not stage_has_ended(trial):
        assert process.poll() is None, trial.log()
        time.sleep(0.002)
    os.kill(victim_pid(process.pid, "dvc"), signal.SIGKILL)
    assert process.wait(30) == 128 + signal.SIGKILL
    assert trial.start().wait(120) == 0
    assert f"goes on from step {STEPS}" in trial.log()


@pytest.mark.torture
def test_a_kill_after_the_pipeline_has_ended_repeats_nothing(project):
    """The checkpoints go when DVC has ended well; the moment between that and the end of the attempt is short."""
    trial = project.trial()
    process = trial.start()
    while "\n  train:\n" not in (trial.folder / "dvc.lock").read_text() or trial.checkpoints():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.0003)
    process.kill()
    process.wait(30)
    while trial.processes():
        time.sleep(0.02)
    assert stage_has_ended(trial)
    assert trial.start().wait(120) == 0
    assert "Stage 'train' didn't change" in trial.log()


@pytest.mark.torture
@pytest.mark.parametrize(
    "left", ["", '{{"write": {{"{out}": {{"pid": 1, "cmd": "dvc repro train"}}}}}}'], ids=["torn", "of another process"]
)
def test_a_lock_left_by_a_killed_dvc_does_not_stop_the_next_attempt(project, left):
    """Half written, or naming a process whose number is another's by now, as in a container or on another node."""
    trial = project.trial()
    first = trial.start()
    time.sleep(1)
    first.kill()
    first.wait(10)
    while trial.processes():
        time.sleep(0.02)
    path = trial.folder / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(left.format(out=trial.folder / "results/train/model"))
    assert trial.start().wait(60) == 0, trial.log()
