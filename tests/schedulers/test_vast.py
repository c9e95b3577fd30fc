"""Jobs on rented machines, with tests/stubs/vastai for the service: what is sent, fetched, paid for and given back.

The keeper's rounds are called here one after the other; machines, and what runs on them, are processes of their own.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.schedulers.vast_desk import CONFIG, HOLD, KEY, SAVE_WHEN_ASKED, wait_for

from assay.errors import ConfigError
from assay.schedulers import SUSPECTS, Job
from assay.schedulers.client import SilentError
from assay.schedulers.config import ResourcesConfig
from assay.schedulers.vast_machine import onstart

pytestmark = pytest.mark.vast


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True, text=True).stdout


def test_a_run_gets_the_last_commit_and_comes_back_with_its_results_cache_and_experiment(desk, world, tmp_path):
    git(desk.folder, "init", "--quiet")
    (desk.folder / "committed").write_text("committed")
    git(desk.folder, "add", "committed")
    git(desk.folder, "commit", "--quiet", "-m", "first")
    (desk.folder / "not-committed").touch()
    (desk.run / "checkpoint").write_text("earlier")
    (desk.folder / "data").mkdir()
    (desk.folder / "data/asked-for").write_text("sent")
    script = (
        "cat committed runs/r/checkpoint data/asked-for; ls; env | grep -c API_KEY; "
        "echo later >runs/r/checkpoint; mkdir -p runs/r/results .dvc/cache/aa; echo 1 >runs/r/results/m.json; "
        "echo out >.dvc/cache/aa/bb; git -c user.name=a -c user.email=a@b commit -q --allow-empty -m exp; "
        "git update-ref refs/exps/ab/cd/study-arm-s0 HEAD"
    )
    scheduler, job_id = desk.submit(script, send=("data",))
    word = desk.ended(scheduler, job_id)
    assert word.startswith("EXIT 0 $")
    log = (desk.run / "job.log").read_text()
    assert "committedearliersent" in log and "not-committed" not in log and log.endswith("\n0\n")
    assert (desk.run / "checkpoint").read_text() == "later\n"
    assert (desk.run / "results/m.json").read_text() == "1\n"
    assert (desk.folder / ".dvc/cache/aa/bb").read_text() == "out\n"
    assert "exp" in git(desk.folder, "log", "-1", "--format=%s", "refs/exps/ab/cd/study-arm-s0")
    assert world.rented == [] and len(world.ever) == 1
    machine_key = world.ever[0]["key"]
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "world.json"]
    texts = [path.read_bytes() for path in files]
    assert not any(KEY.encode() in text or machine_key.encode() in text for text in texts)


def test_what_is_rendered_is_a_script_with_the_requests(desk, tmp_path):
    scheduler = desk.scheduler(options=("--user root",))
    job = desk.job(scheduler, "x", resources=ResourcesConfig(gpus=2, gpu="RTX 4090", memory=16.0))
    text = scheduler.render(job)
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    subprocess.run(["bash", "-n"], input=onstart(CONFIG), text=True, check=True)
    assert "num_gpus=2 gpu_name=RTX_4090 reliability>=0.98" in text and "--user root" in text


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"image": None}, "vast.image: got null; allowed: a Docker image with assay in a registry"),
        ({"bid": 2.0}, "vast.bid: got 2; allowed: up to vast.max_price, 1"),
        ({"options": ("--login '-u me -p secret'",)}, "vast.options: got --login; allowed: no secret"),
        ({"options": ("--label x",)}, "vast.options: got '--label x'; allowed: --name value, and none of"),
        ({"python": f"/{'x' * 3000}"}, "vast.python: got a path that makes the script which the machine starts 5024"),
        ({"send": ("../elsewhere",)}, "vast.send: got ../elsewhere; allowed: a path below the repository"),
    ],
)
def test_a_machine_file_that_cannot_be_is_refused_in_words(desk, section, words):
    scheduler = desk.scheduler(**section)
    job = Job(name="j", command=["x"], folder=desk.folder, log=desk.run / "l", script=desk.run / "s")
    with pytest.raises(ConfigError, match=words):
        scheduler.render(job)
    assert words in scheduler.unavailable(job)[0]


def test_the_cheapest_offer_that_can_be_had_is_rented(desk, world):
    world.fault(taken=[1])
    scheduler, job_id = desk.submit(HOLD)
    desk.rounds(scheduler, job_id, lambda word: word.startswith("LOADING"))
    assert [(each["machine_id"], each["label"].split("-")[0]) for each in world.rented] == [(20, "assay")]


def test_where_no_offer_will_do_nothing_is_rented_and_what_to_change_is_said(desk, world):
    scheduler, job_id = desk.submit("true", max_price=0.1)
    desk.round()
    assert "none of 0 offers for $0.1 an hour could be had" in scheduler.states([job_id])[job_id]
    job = desk.job(scheduler, "true")
    assert "raise vast.max_price, or lower vast.reliability" in scheduler.unavailable(job)[0]
    (absent,) = desk.scheduler(client="vastai-that-is-not-there").unavailable(job)
    assert "pip install vastai in an environment of its own" in absent
    assert absent.endswith("name its program in vast.client of the machine file, or with assay stop --client")
    assert desk.scheduler().unavailable(job) == []
    assert world.ever == []


def test_a_machine_that_never_gets_out_of_loading_is_given_back_and_another_rented(desk, world):
    world.fault(stuck=[10])
    scheduler, job_id = desk.submit("true")
    desk.rounds(scheduler, job_id, lambda _: any(each["actual_status"] == "loading" for each in world.rented))
    desk.later(scheduler, job_id, CONFIG.loading)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert [each["machine_id"] for each in world.ever] == [10, 20] and world.rented == []


def test_a_run_whose_machine_vanishes_goes_on_elsewhere_from_what_was_fetched_last(desk, world):
    script = f"echo step >>runs/r/checkpoint; [ $(wc -l <runs/r/checkpoint) -eq 2 ] || {HOLD}"
    scheduler, job_id = desk.submit(script)
    number = desk.running(scheduler, job_id)
    desk.rounds(scheduler, job_id, lambda _: (desk.run / "checkpoint").exists())
    world.vanish(number)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "checkpoint").read_text() == "step\nstep\n" and len(world.ever) == 2


def test_a_request_to_rent_whose_answer_is_lost_is_found_by_its_label_and_not_made_again(desk, world):
    world.fault(answers_lost=1)
    scheduler, job_id = desk.submit("true")
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert len(world.ever) == 1


def test_while_the_service_is_silent_nothing_is_rented_and_what_was_known_is_said(desk, world):
    world.fault(down=True)
    scheduler, job_id = desk.submit("true")
    desk.round()
    with pytest.raises(SilentError, match=r"vastai show instances: failed .*ConnectionError") as silence:
        scheduler.states([job_id])
    assert silence.value.known == {job_id: "QUEUED"}
    assert KEY not in str(silence.value)
    assert "ConnectionError" in scheduler.unavailable(desk.job(scheduler, "true"))[0]
    world.fault(down=False)
    assert scheduler.states([job_id], insist=True) == {job_id: "QUEUED"}
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert len(world.ever) == 1


def test_without_credit_the_run_waits_and_says_what_to_do(desk, world):
    world.fault(credit=True)
    scheduler, job_id = desk.submit("true")
    desk.round()
    assert "insufficient_credit" in (word := scheduler.states([job_id])[job_id])
    assert word.startswith("QUEUED") and word.endswith("add credit on the console of vast.ai")
    world.fault(credit=False)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")


def test_a_machine_that_is_listed_only_after_another_was_rented_is_given_back(desk, world):
    scheduler, job_id = desk.submit(HOLD)
    number = desk.running(scheduler, job_id)
    with world.changed() as state:
        (mine,) = state["instances"]
        label = f"{mine['label'].rpartition('-')[0]}-9"
        state["instances"].append({**mine, "id": 7999, "offer": 2, "label": label, "onstart": "true"})
    desk.round()
    assert [each["id"] for each in world.rented] == [number]


def test_a_run_that_is_outbid_waits_a_while_and_goes_on_where_it_was(desk, world):
    scheduler, job_id = desk.submit(f"echo x >>runs/r/starts; {HOLD}", bid=0.2)
    number = desk.running(scheduler, job_id)
    assert world.rented[0]["dph_total"] == 0.2
    world.change(number, outbid=True)
    desk.rounds(scheduler, job_id, lambda word: word == f"OUTBID {number}")
    world.change(number, outbid=False)
    desk.running(scheduler, job_id)
    desk.go(number)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "starts").read_text() == "x\nx\n" and len(world.ever) == 1


def test_a_run_that_is_outbid_for_too_long_goes_on_elsewhere_from_where_its_stopped_machine_had_got(desk, world):
    script = f"echo step >>runs/r/checkpoint; [ $(wc -l <runs/r/checkpoint) -eq 2 ] || {HOLD}"
    scheduler, job_id = desk.submit(script, bid=0.2)
    number = desk.running(scheduler, job_id)
    wait_for((world.disk(number) / "assay/out/run/checkpoint").exists)
    world.change(number, outbid=True)
    desk.rounds(scheduler, job_id, lambda word: word == f"OUTBID {number}")
    desk.later(scheduler, job_id, CONFIG.loading)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "checkpoint").read_text() == "step\nstep\n" and world.rented == []


def test_a_machine_that_becomes_too_dear_is_given_back_once_the_run_has_saved(desk, world):
    script = f"[ -e runs/r/state ] && exit 0; {SAVE_WHEN_ASKED}{HOLD}"
    scheduler, job_id = desk.submit(script)
    number = desk.running(scheduler, job_id)
    world.change(number, dph_total=1.5)
    assert desk.ended(scheduler, job_id).startswith("EXIT 0")
    assert (desk.run / "state").read_text() == "saved\n"
    assert [each["machine_id"] for each in world.ever] == [10, 20] and world.rented == []


def test_without_this_computer_a_run_is_stopped_before_its_money_is_gone_and_waits_to_be_fetched(
    desk, world, monkeypatch
):
    monkeypatch.setattr("assay.schedulers.vast_steps.SHORTEST_S", 1.0)
    with world.changed() as state:
        for offer in state["offers"]:
            offer["dph_base"] = 360.0  # ten cents a second
    script = f"{SAVE_WHEN_ASKED}{HOLD}"
    scheduler, job_id = desk.submit(script, max_price=400.0, max_cost=2.0, keep=0.5)
    number = desk.running(scheduler, job_id)
    wait_for(lambda: world.rented[0]["intended_status"] == "stopped")
    wait_for(lambda: world.rented[0]["actual_status"] == "exited")
    assert (world.disk(number) / "assay/out/code").read_text() == "75\n"
    assert desk.ended(scheduler, job_id).startswith("EXIT 75")
    assert (desk.run / "state").read_text() == "saved\n" and world.rented == []


def test_without_this_computer_a_run_that_never_stops_is_ended_with_its_machine(desk, world, monkeypatch):
    monkeypatch.setattr("assay.schedulers.vast_steps.SHORTEST_S", 1.0)
    with world.changed() as state:
        for offer in state["offers"]:
            offer["dph_base"] = 360.0
    scheduler, job_id = desk.submit(
        "trap : TERM; while :; do sleep 1; done", max_price=400.0, max_cost=1.5, unclaimed="destroy"
    )
    desk.running(scheduler, job_id)
    wait_for(lambda: world.rented == [])
    assert world.state["paid"] < 1.5 + 0.3  # a second or two of a loaded computer
    assert desk.ended(scheduler, job_id).startswith("CAPPED")


@pytest.mark.parametrize("python", [sys.executable, "/an/image/without/it"])
def test_a_machine_to_which_nothing_is_sent_gives_itself_back(desk, world, python):
    scheduler, job_id = desk.submit("true", loading=1.0, python=python)
    desk.rounds(scheduler, job_id, lambda word: word.startswith("LOADING"))
    wait_for(lambda: world.rented == [])


def test_what_is_cancelled_before_it_runs_costs_nothing_or_is_given_back(desk, world):
    scheduler, first = desk.submit("touch ran", loading=100.0)
    with world.changed() as state:
        state["loading_s"] = 1000.0
    second = scheduler.submit(desk.job(scheduler, "touch ran"))
    desk.rounds(scheduler, first, lambda word: word.startswith("LOADING"))
    scheduler.cancel(first, second)
    assert desk.ended(scheduler, second) == "CANCELLED $0.00"
    assert desk.ended(scheduler, first).startswith("CANCELLED")
    assert world.rented == [] and len(world.ever) == 1


def test_a_run_that_stalls_goes_on_another_machine_and_on_a_second_is_itself_suspect(desk, world):
    scheduler, job_id = desk.submit("exit 76", attempts=4)
    assert desk.ended(scheduler, job_id).startswith("EXIT 76")
    assert [each["machine_id"] for each in world.ever] == [10, 20]
    assert (desk.run / SUSPECTS).read_text() == "vast-10\nvast-20\n"


def test_a_machine_is_avoided_that_a_job_is_to_avoid(desk, world):
    scheduler = desk.scheduler()
    job_id = scheduler.submit(desk.job(scheduler, HOLD, avoid=("vast-10",)))
    desk.rounds(scheduler, job_id, lambda word: word.startswith("LOADING"))
    assert [each["machine_id"] for each in world.rented] == [20]


def test_a_machine_is_found_by_its_label_when_all_records_are_lost_and_its_run_comes_back(desk, world):
    scheduler, job_id = desk.submit(f"echo result >runs/r/result; {HOLD}")
    number = desk.running(scheduler, job_id)
    shutil.rmtree(desk.kept)
    again = desk.scheduler()
    (found,) = again.find([desk.run / "job.sh", desk.run / "other/job.sh"]).values()
    assert again.meaning(again.states([found])[found]) == "queued"
    desk.go(number)
    assert desk.ended(again, found).startswith("EXIT 0")
    assert (desk.run / "result").read_text() == "result\n" and len(world.ever) == 1


def test_a_run_that_is_submitted_again_without_its_records_goes_on_with_the_machine_it_has(desk, world):
    scheduler, job_id = desk.submit(f"echo x >>runs/r/starts; {HOLD}")
    number = desk.running(scheduler, job_id)
    shutil.rmtree(desk.kept)
    again, second = desk.submit("a job that is given again is the same job")
    desk.running(again, second)
    desk.go(number)
    assert desk.ended(again, second).startswith("EXIT 0")
    assert (desk.run / "starts").read_text() == "x\n" and len(world.ever) == 1


def test_no_more_machines_are_rented_at_a_time_than_the_machine_file_says(desk, world):
    scheduler, first = desk.submit(HOLD)
    second = scheduler.submit(desk.job(scheduler, HOLD))
    desk.running(scheduler, first)
    assert len(world.rented) == 1 and scheduler.states([second])[second] == "QUEUED"
