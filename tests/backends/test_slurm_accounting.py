"""A real Slurm with accounting, whose controller soon forgets jobs that ended: only sacct knows. `make backends`."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.backends.place import Place, wait_until
from tests.backends.slurm import ACCOUNT, NO_ACCOUNTING, Cluster, temporary_cluster

from assay.schedulers import Job
from assay.schedulers.config import SlurmConfig
from assay.schedulers.slurm import Slurm

pytestmark = pytest.mark.slurm

STUBS = Path(__file__).parents[1] / "stubs"
SACCT = ("sacct", "--noheader", "--allocations", "--parsable2")
KEEPS_S = 2
"""The controller looks every 10 s what is older."""
ENDS = {
    "COMPLETED": ("exit 0", 1),
    "FAILED": ("exit 3", 1),
    "CANCELLED by 0": ("sleep 600", 1),
    "TIMEOUT": ("touch begun; sleep 600", 1),
    "COMPLETED, a chain whose second job completes": ('[ "$SLURM_ARRAY_TASK_ID" -eq 2 ] || exit 75', 3),
    "FAILED, a chain whose first job fails": ("exit 3", 3),
    "FAILED, a chain that was too short": ("exit 75", 2),
}
"""STATE by sacct, and what distinguishes the case -> what such a job does, and how many times at most."""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Cluster]:
    """Beside that of other tests, which their commands speak to again afterwards."""
    with temporary_cluster(keeps_s=KEEPS_S, accounting=True) as cluster:
        yield cluster


@pytest.fixture(scope="module", autouse=True)
def ended(slurm, tmp_path_factory) -> dict[str, str]:
    """The id of a job for each of ENDS; before all tests, for some of them take a while."""
    folder = tmp_path_factory.mktemp("ended")
    scheduler = Slurm(folder / "slurm", SlurmConfig())
    jobs = {end: job(folder / end, command, attempts=attempts) for end, (command, attempts) in ENDS.items()}
    ids = {end: scheduler.submit(each) for end, each in jobs.items()}
    wait_until((folder / "TIMEOUT/begun").exists)
    run_out(slurm, ids["TIMEOUT"])
    scheduler.cancel(ids["CANCELLED by 0"])
    return ids


@pytest.fixture
def scheduler(slurm, tmp_path, monkeypatch) -> Slurm:
    """It has been told nothing of any job, and asks at once."""
    monkeypatch.setattr("assay.schedulers.words.POLL_S", 0.0)
    return Slurm(tmp_path / "slurm", SlurmConfig())


def job(folder: Path, command: str, **more: object) -> Job:
    folder.mkdir(parents=True)
    paths = {"folder": folder, "log": folder / "job.log", "script": folder / "job.sh"}
    return Job(name="job", command=["bash", "-c", command], wall_limit=60.0, **paths, **more)


def run_out(slurm: Cluster, job_id: str) -> None:
    """The time of a job that has begun: Slurm looks for that every 30 s."""
    slurm.ask("scontrol", "update", f"JobId={job_id}", "EndTime=now")


def kill_job(supervisor: int) -> None:
    """All processes of a job at once, Slurm's own first: the controller learns nothing before the time has run out."""
    (step,) = [each for each in psutil.Process(supervisor).parents() if each.name() == "slurmstepd"]
    for each in [step, *step.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            each.kill()


def is_forgotten(slurm: Cluster, job_id: str) -> bool:
    """Whether the controller does not even list it among the jobs that have ended."""
    return slurm.ask("squeue", "--noheader", "--states=all", f"--jobs={job_id}") == ""


def job_of(run: Path) -> str:
    job_id: str = json.loads((run / "submission.json").read_text())["job"]
    return job_id


def status(place: Place) -> str:
    """What `assay status` says after it has asked; nobody need wait for the next question."""
    (place.folder / ".assay/slurm/words.json").unlink(missing_ok=True)
    return place.give("assay", "status", "study.yaml")


def test_an_account_that_does_not_exist_is_refused_with_the_fix_and_nothing_is_submitted(place, slurm):
    place.say(slurm={"account": "nope"})
    said = place.submit(code=2)
    assert "Invalid account" in said
    assert "correct slurm.account; sacctmgr show associations user=$USER lists them" in said
    assert "toy" not in slurm.ask("squeue", "--noheader", "--states=all", "--format=%j")
    assert "2 missing" in status(place)


def test_too_many_jobs_for_an_account_are_refused_with_the_fix(place, slurm):
    slurm.ask("sacctmgr", "--immediate", "modify", "user", "root", "set", "MaxSubmitJobs=1")
    try:
        said = place.submit(code=2)
    finally:
        slurm.ask("sacctmgr", "--immediate", "modify", "user", "root", "set", "MaxSubmitJobs=-1")
    assert "AssocMaxSubmitJobLimit" in said
    assert "wait until some have ended, then submit again" in said
    assert "toy" not in slurm.ask("squeue", "--noheader", "--states=all", "--format=%j")


def test_a_study_that_the_controller_has_forgotten_is_complete_and_its_account_was_charged(place, slurm):
    place.say(slurm={"account": ACCOUNT})
    place.submit()
    wait_until(lambda: place.is_complete("slow", 0) and place.is_complete("fast", 0))
    job_id = job_of(place.run("slow", 0))
    wait_until(lambda: is_forgotten(slurm, job_id))
    assert "2 complete" in status(place)
    assert "0 of 2 runs submitted, 2 complete" in place.submit()
    assert slurm.ask(*SACCT, "--format=Account,State", f"--jobs={job_id}") == f"{ACCOUNT}|COMPLETED"


def test_runs_that_somebody_removed_before_they_began_are_said_to_be_and_are_submitted_again(place, slurm):
    whole = slurm.ask("sbatch", "--parsable", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 600")
    place.submit()
    array = job_of(place.run("slow", 0)).partition("_")[0]
    wait_until(lambda: slurm.ask(*SACCT, "--format=JobID,State", f"--jobs={array}") == f"{array}_[0-1]|PENDING")
    slurm.ask("scancel", array, whole)
    wait_until(lambda: is_forgotten(slurm, array))
    said = status(place)
    for task in (0, 1):
        assert f"job {array}_{task} of slurm ended before it began (CANCELLED by 0)" in said
    assert "2 of 2 runs submitted" in place.submit()
    wait_until(lambda: place.is_complete("slow", 0) and place.is_complete("fast", 0))


def test_why_a_run_was_cut_is_known_by_accounting_alone_and_only_while_it_answers(place, slurm):
    """Nothing of the run is left that could have written it down."""
    (place.toy / "hold").touch()
    place.say(wall_limit=600, chain=1)
    place.submit("--only", "slow")
    wait_until(lambda: place.begun())
    job_id = job_of(place.run("slow", 0))
    kill_job(place.attempts("slow", 0)[0].holder.pid)
    (place.toy / "hold").unlink()
    run_out(slurm, job_id)
    slurm.stop_accounting()
    try:
        wait_until(lambda: is_forgotten(slurm, job_id))
        said = status(place)
        assert "slurmdbd does not answer; how jobs ended is known again when it does" in said
        assert re.search("toy/slow/0 +lost", said)
        assert "1 of 1 runs submitted" in place.submit("--only", "fast")
        wait_until(lambda: place.is_complete("fast", 0))
    finally:
        slurm.start_accounting()
    wait_until(lambda: "lost" not in status(place))
    said = status(place)
    assert "slurmdbd" not in said
    assert re.search("toy/slow/0 +failed +time limit", said)
    assert "scheduler.State: TIMEOUT" in said


@pytest.mark.parametrize("end", ENDS)
def test_how_a_job_ended_is_still_known_when_the_controller_has_forgotten_it(slurm, ended, scheduler, end):
    wait_until(lambda: is_forgotten(slurm, ended[end]))
    said = scheduler.states([ended[end]])
    assert said == {ended[end]: end.partition(",")[0]}
    assert scheduler.meaning(said[ended[end]]) == "ended"


@pytest.mark.parametrize(
    "given",
    [
        ["--format=JobID,State", "--jobs={all}"],
        ["--format=JobID,State", "--jobs=999999"],
        ["--format=JobID,Nonsense", "--jobs={all}"],
        ["--format=JobID,State", "--jobs={all}", "--noheader=1"],
        ["--format=JobID,State", "--jobs={all}", "--nonsense"],
    ],
    ids=" ".join,
)
def test_the_stand_in_of_sacct_accepts_and_refuses_what_sacct_does(slurm, ended, given, tmp_path):
    """tests/stubs/sacct, with the same jobs on record."""
    jobs = ",".join(ended.values())
    on_record = slurm.ask(*SACCT, "--format=JobID,State", f"--jobs={jobs}")
    (tmp_path / "accounting").write_text(f"{on_record}\n")
    real, stood_in = both(tmp_path, *(option.format(all=jobs) for option in given))
    assert (stood_in.returncode, stood_in.stdout) == (real.returncode, real.stdout)


def both(folder: Path, *options: str) -> list[subprocess.CompletedProcess[str]]:
    """What sacct does, and the stand-in of a cluster in that folder."""
    environment = {**os.environ, "STUB_CLUSTER": str(folder)}
    commands = [[program, *SACCT[1:], *options] for program in ("sacct", STUBS / "sacct")]
    return [subprocess.run(each, capture_output=True, text=True, env=environment) for each in commands]


def test_without_accounting_what_is_forgotten_is_unknown_and_nobody_minds(
    slurm, ended, scheduler, tmp_path, monkeypatch
):
    """The same controller, and a configuration as on a cluster without; there the stand-in says the same."""
    wait_until(lambda: is_forgotten(slurm, ended["COMPLETED"]))
    lines = [line for line in slurm.config.read_text().splitlines() if not line.startswith("Accounting")]
    (tmp_path / "slurm.conf").write_text("\n".join([*lines, NO_ACCOUNTING, ""]))
    monkeypatch.setenv("SLURM_CONF", str(tmp_path / "slurm.conf"))
    assert scheduler.states([ended["COMPLETED"]]) == {}
    real, stood_in = both(tmp_path, "--format=JobID,State", "--jobs=1")
    assert (stood_in.returncode, stood_in.stderr) == (real.returncode, real.stderr)


def test_a_job_whose_end_was_never_put_on_record_does_not_run_for_ever(slurm, scheduler, tmp_path):
    """Slurm calls it a runaway job. The last test, for here whatever is not on record yet is lost."""
    job_id = scheduler.submit(job(tmp_path / "job", "while [ ! -e go ]; do sleep 0.1; done"))
    wait_until(lambda: slurm.ask(*SACCT, "--format=State", f"--jobs={job_id}") == "RUNNING")
    slurm.stop_accounting()
    (tmp_path / "job/go").touch()
    wait_until(lambda: is_forgotten(slurm, job_id))
    slurm.stop_controller()
    (slurm.folder / "state/dbd.messages").unlink()
    slurm.start_accounting()
    slurm.start_controller()
    assert slurm.ask(*SACCT, "--format=State", f"--jobs={job_id}") == "RUNNING"
    assert scheduler.states([job_id]) == {}
