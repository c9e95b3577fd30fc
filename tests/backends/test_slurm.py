"""A real Slurm of two nodes: chains, suspect nodes, cancelling, many runs, daemons that are down. `make backends`."""

import csv
import io
import json
import re
import shutil
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise
from statistics import mean, median

import pytest
from tests.backends.place import RANKS, TRAINING, TWO_ARMS, Place, wait_until
from tests.matrix.toy import ROOT

from assay.engine.checkpoint import read_tensors
from assay.runs.store import RunFolder

pytestmark = pytest.mark.slurm

LOST_PER_HOP_S = 10.0
QUIET_START_S = 5.0
"""From the start of a job until the training goes on: Python, DVC and torch, on quiet cores. Where they are busy and
this takes longer, everything else that a hop consists of does too, and so may the whole."""


def experiments(place: Place) -> dict[str, dict[str, str]]:
    rows = csv.DictReader(io.StringIO(place.give("dvc", "exp", "show", "--csv")))
    return {row["Experiment"]: row for row in rows if row["Experiment"]}


def test_a_study_runs_to_its_end_and_its_runs_are_experiments(place):
    shown = place.submit("--dry-run")
    assert "#SBATCH --array=0-1" in shown and "2 of 2 runs would be submitted" in shown
    assert "2 of 2 runs submitted" in place.submit()
    wait_until(lambda: place.is_complete("slow", 0) and place.is_complete("fast", 0))
    assert experiments(place).keys() == {"toy-slow-s0", "toy-fast-s0"}
    assert "0 of 2 runs submitted, 2 complete" in place.submit()
    (attempt,) = place.attempts("slow", 0)
    assert (attempt.job.scheduler, attempt.job.node in ("n1", "n2")) == ("slurm", True)
    script = (place.run("slow", 0) / "job.sh").read_text()
    assert script.startswith("#!/bin/bash\n#SBATCH --job-name=toy-slow-s0\n")


def test_three_minutes_of_work_within_one_minute_a_job(tmp_path, slurm):
    """Beside it the same on the other node without a limit: the same bits, and less than ten seconds lost per hop."""
    place = Place(tmp_path, stage=TRAINING, study=TWO_ARMS.replace("10}", "160}").replace(": 20", ": 161"))
    place.say(wall_limit=60, chain=12)
    place.submit("--only", "slow", pause=1.0)
    place.say(wall_limit=1200, chain=1)
    place.change_study("161", "160")
    other = Place(tmp_path / "undisturbed", stage=TRAINING, study=TWO_ARMS.replace("10}", "160}"))
    other.say(wall_limit=1200, chain=1)
    other.submit("--only", "slow", pause=1.0)
    wait_until(lambda: place.is_complete("slow", 0) and other.is_complete("slow", 0))
    chained, (whole,) = place.attempts("slow", 0), other.attempts("slow", 0)
    hops = len(chained) - 1
    assert hops >= 2
    assert [each.stop.reason for each in chained[:-1]] == ["deadline"] * hops
    assert model(place) == model(other)
    lost = ((chained[-1].ended - chained[0].started) - (whole.ended - whole.started)) / hops
    restarts = [gone_on(place, number) - each.started for number, each in enumerate(chained[1:], 2)]
    early = [each.deadline - each.ended for each in chained[:-1]]
    between = [after.started - before.ended for before, after in pairwise(chained)]
    for name, seconds in (("ended before the limit", early), ("between jobs", between), ("until it goes on", restarts)):
        print(f"{name}: {median(seconds):.1f} s")
    print(f"{hops} hops: lost {lost:.1f} s each")
    assert lost < LOST_PER_HOP_S * max(1.0, mean(restarts) / QUIET_START_S)
    wait_until(lambda: slurm.ask("squeue", "-h") == "")  # what was not needed of the chain is gone


def gone_on(place: Place, attempt: int) -> float:
    """When an attempt had restored its checkpoint, by its log; s since 1970."""
    log = (place.run("slow", 0) / f"logs/{attempt:04d}.log").read_text()
    (line,) = [line for line in log.splitlines() if "goes on from step" in line]
    return datetime.fromisoformat(line.split()[0].replace("Z", "+00:00")).timestamp()


def model(place: Place) -> dict[str, bytes]:
    """The weights, to the bit; the files of a complete run are DVC's."""
    place.give("dvc", "exp", "apply", "toy-slow-s0")
    found = read_tensors(place.folder / "results/train/out/model.safetensors")
    tensors = found[0] if isinstance(found, tuple) else found
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_a_run_that_stalls_on_one_node_completes_on_the_other(place):
    place.say(chain=3, wall_limit=600, watch={"retries": 0, "floors": dict.fromkeys(FLOORS, 8.0)})
    (place.toy / "hang-on-n1").touch()
    place.submit("--only", "slow")
    wait_until(lambda: place.is_complete("slow", 0))
    first, second = place.attempts("slow", 0)
    assert (first.code, first.job.node, second.code, second.job.node) == (76, "n1", 0, "n2")
    assert (place.run("slow", 0) / "suspect-nodes").read_text() == "n1\n"


def test_two_nodes_train_together_and_a_chain_of_such_jobs_goes_on_to_the_bit(tmp_path, slurm):
    """One rank and one supervisor on each; the same in one job, with both ranks on this computer, has the same bits."""
    place = Place(tmp_path, stage=RANKS, study=TWO_ARMS.replace("10}", "100}"))
    together = {"nodes": 2, "cpus": 2, "processes": 2}
    place.say(resources=together, wall_limit=60, chain=8)
    place.submit("--only", "slow", pause=0.6)
    wait_until(lambda: place.is_complete("slow", 0))
    attempts = place.attempts("slow", 0)
    assert len(attempts) >= 2
    assert [each.code for each in attempts] == [75] * (len(attempts) - 1) + [0]
    elsewhere = [RunFolder(folder).read().attempts for folder in (place.run("slow", 0) / "nodes").glob("n?")]
    parts = sum(map(len, elsewhere))  # the last job may find the training done
    assert 2 <= parts <= len(attempts)
    log = (place.run("slow", 0) / "job.log").read_text()
    assert log.count("rank 0 is process") == log.count("rank 1 is process") == parts
    assert "it did not stop in time" not in log
    assert "CANCELLED" not in log
    wait_until(lambda: slurm.ask("squeue", "-h") == "")

    other = Place(tmp_path / "alone", stage=RANKS, study=TWO_ARMS.replace("10}", "100}"))
    other.say(resources={"cpus": 2, "processes": 2})
    other.submit("--only", "slow")
    wait_until(lambda: other.is_complete("slow", 0))
    assert model(place) == model(other)


FLOORS = ("load", "train", "validate", "checkpoint", "other", "command")


def test_what_was_cancelled_in_the_middle_is_all_that_is_submitted_again(place):
    place.submit("--only", "slow")
    wait_until(lambda: place.is_complete("slow", 0))
    (place.toy / "hold").touch()
    place.submit()
    wait_until(lambda: any(line.startswith("0 20 ") for line in place.begun()))
    assert "fast/0: asked job" in place.give("assay", "cancel", "study.yaml")
    wait_until(lambda: place.states()["fast/0"] in ("cancelled", "partial"), 90)
    (place.toy / "hold").unlink()
    said = place.submit()
    assert "1 of 2 runs submitted, 1 complete" in said
    wait_until(lambda: place.is_complete("fast", 0))
    assert Counter(line.split()[1] for line in place.begun()) == {"10": 1, "20": 2}


def test_scancel_is_a_cancel_too(place, slurm):
    (place.toy / "hold").touch()
    place.say(wall_limit=600, chain=3)
    place.submit("--only", "slow")
    wait_until(lambda: place.begun())
    job = json.loads((place.run("slow", 0) / "submission.json").read_text())["job"]
    slurm.ask("scancel", job)
    wait_until(lambda: place.attempts("slow", 0)[0].ended)
    (place.toy / "hold").unlink()
    wait_until(lambda: slurm.ask("squeue", "-h", "-j", job) == "", 90)
    (place.folder / ".assay/slurm/words.json").unlink()  # nobody need wait for the next question
    assert "1 of 1 runs submitted" in place.submit("--only", "slow")
    wait_until(lambda: place.is_complete("slow", 0))


def test_sixty_runs_drain_while_the_controller_is_started_anew(tmp_path, slurm):
    study = TWO_ARMS.replace("seeds: [0]", f"seeds: {list(range(30))}")
    place = Place(tmp_path, study=study)
    place.say(resources={"cpus": 1})
    begun = time.monotonic()
    place.submit()
    cells = [(arm, seed) for seed in range(30) for arm in ("slow", "fast")]
    wait_until(lambda: len(place.begun()) >= 12)
    slurm.stop_controller()
    time.sleep(5)
    slurm.start_controller()
    wait_until(lambda: all(place.is_complete(arm, seed) for arm, seed in cells), 1500)
    print(f"60 runs took {time.monotonic() - begun:.0f} s")
    assert len(place.begun()) == len({line.rpartition(" ")[0] for line in place.begun()}) == 60
    assert {len(place.attempts(arm, seed)) for arm, seed in cells} == {1}
    assert {line.split()[2] for line in place.begun()} == {"n1", "n2"}
    assert len(experiments(place)) == 60


def test_what_dvc_has_queued_is_taken_over(place):
    for number in (1, 2, 3):
        place.give("dvc", "exp", "run", "--queue", "--name", f"by-hand-{number}", "-S", f"train.steps={number}")
    place.submit("--only", "slow")
    place.submit("--only", "slow", "--queued")
    names = [f"by-hand-{number}" for number in (1, 2, 3)]
    wait_until(lambda: all((place.folder / f"runs/toy/queued/{name}/metrics.json").is_file() for name in names))
    found = experiments(place)
    assert [found[name]["train.steps"] for name in names] == ["1", "2", "3"]


def test_folders_may_be_called_anything(tmp_path, slurm):
    place = Place(tmp_path / "a b'c\"d;rm -rf $HOME %j#", study=TWO_ARMS)
    place.say(wall_limit=600, chain=2)
    place.submit()
    wait_until(lambda: place.is_complete("slow", 0) and place.is_complete("fast", 0))
    wait_until(lambda: "handed back" in (place.run("slow", 0) / "job.log").read_text(), 30)


def test_the_script_for_one_run_ends_as_an_experiment(place, slurm):
    shutil.copy(ROOT / "run.slurm", place.folder)
    place.give("git", "add", "run.slurm")
    place.give("git", "commit", "--quiet", "--message", "how to run it")
    job = place.give("sbatch", "--parsable", "run.slurm").strip()
    wait_until(lambda: slurm.ask("squeue", "--noheader", "--jobs", job) == "")
    log = (place.folder / f"slurm-{job}.log").read_text()
    assert f"asl-slurm-{job}" in experiments(place), log
    words = slurm.ask("squeue", "--noheader", "--states=all", "--array", "--jobs", job, "--format=%T")
    assert words.count("COMPLETED") == 1
    (attempt,) = RunFolder(place.folder / "runs/asl/slurm/0").read().attempts
    assert (attempt.code, attempt.job.scheduler) == (0, "slurm")
    assert 0 < attempt.deadline - attempt.started <= 6 * 3600


def test_a_study_name_that_is_a_command_is_refused(place):
    place.change_study("name: toy", "name: ';rm -rf /'")
    assert "name: got ';rm -rf /'" in place.submit(code=2)


def test_while_munge_is_down_nothing_is_submitted_and_the_fix_is_named(place, slurm):
    slurm.stop_munge()
    try:
        said = place.submit(code=2)
        assert "start it on this computer: systemctl start munge" in said
        assert "Did you start munged?" in said
    finally:
        slurm.start_munge()
    assert slurm.ask("squeue", "-h") == ""
    assert "2 of 2 runs submitted" in place.submit()
    assert "0 of 2 runs submitted" in place.submit()
    wait_until(lambda: place.is_complete("slow", 0) and place.is_complete("fast", 0))
    assert len(place.begun()) == 2


def test_a_job_whose_submitter_was_killed_is_not_submitted_twice(place, slurm):
    (place.toy / "hold").touch()
    place.submit()
    for arm in ("slow", "fast"):  # as if it had died before it could write down what sbatch said
        path = place.run(arm, 0) / "submission.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "job": ""}))
    assert re.search("0 of 2 runs submitted, 2 (running|queued)|1 running, 1 queued", place.submit())
    (place.toy / "hold").unlink()
    wait_until(lambda: place.is_complete("slow", 0) and place.is_complete("fast", 0))
    assert len(place.begun()) == 2


def test_a_silent_controller_is_said_and_the_last_words_are_shown(place, slurm):
    (place.toy / "hold").touch()
    place.submit("--only", "slow")
    wait_until(lambda: place.begun())
    slurm.stop_controller()
    try:
        path = place.folder / ".assay/slurm/words.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "asked": 0.0}))
        said = place.give("assay", "status", "study.yaml")
        assert "slurmctld does not answer" in said and "shown is what was known before" in said
        assert re.search("toy/slow/0 +running", said)
        assert "slurmctld does not answer" in place.submit(code=2)
    finally:
        slurm.start_controller()
        (place.toy / "hold").unlink()
    wait_until(lambda: place.is_complete("slow", 0))
