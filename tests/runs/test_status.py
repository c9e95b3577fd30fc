"""`assay status`: eleven runs whose outcome is known, what is shown of them, refusals, and speed."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from assay.__main__ import main
from assay.runs.record import Attempt, Holder, Job, Progress, Run, Stage, to_json

ASL = Path(__file__).parents[1] / "recorded/asl_runs.yaml"
BENCHMARK = Path(__file__).parents[2] / "benchmarks/status.py"
KEYS = ["study", "arm", "seed", "state", "cause", "stage", "progress", "attempts", "node", "evidence"]
KEYS += ["missing", "action", "outside", "eta_s"]


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def whole_attempt(recorded: dict[str, Any]) -> Attempt:
    """A complete run: the stages one after the other."""
    started, stages = 1770400000.0, []
    for name, seconds in recorded["typical_s"].items():
        begun = stages[-1].ended if stages else started
        stages.append(Stage(study="asl", stage=name, started=begun, ended=begun + seconds, code=0))
    end = stages[-1].ended
    holder = Holder(host="gpu", pid=0, start_ticks=0, boot_id="")
    command = list(recorded["command"])
    return Attempt(
        number=1, holder=holder, command=command, started=started, heartbeat=end, ended=end, code=0, stages=stages
    )


def cut_attempt(recorded: dict[str, Any], known: dict[str, Any]) -> Attempt:
    """A run that nobody watched: what its log and its job say."""
    started, ended = (known[name].timestamp() for name in ("started", "ended"))
    return Attempt(
        number=1,
        holder=Holder(host=known["node"], pid=0, start_ticks=0, boot_id=""),
        command=list(recorded["command"]),
        job=Job(scheduler="slurm", id=known["job"], node=known["node"], raw={"Timelimit": "06:00:00"}),
        started=started,
        heartbeat=ended,
        deadline=started + recorded["limit_s"],
        ended=ended,
    )


@pytest.fixture(scope="module")
def asl(tmp_path_factory) -> Path:
    """The eleven runs as folders."""
    recorded = YAML(typ="safe").load(ASL)
    top = tmp_path_factory.mktemp("asl") / "runs"
    for arm, known in recorded["runs"].items():
        folder = top / recorded["study"] / arm / recorded["seed"]
        attempt = whole_attempt(recorded) if known == "complete" else cut_attempt(recorded, known)
        write(folder, "attempts/0001.json", json.dumps(to_json(attempt), indent=1))
        run = Run(study=recorded["study"], arm=arm, seed=recorded["seed"], stages=recorded["stages"])
        write(folder, "run.json", json.dumps(to_json(run)))
        if known != "complete":
            write(folder, "logs/0001.log", "".join(f"{line}\n" for line in known["log"]))
    return top


@pytest.fixture
def stated(asl, capsys) -> dict[str, dict[str, Any]]:
    """What `assay status --json` says of them, by their number."""
    assert main(["status", str(asl), "--json"]) == 0
    return {item["arm"].partition("-")[0]: item for item in json.loads(capsys.readouterr().out)}


def test_json_has_exactly_the_promised_keys(stated):
    assert len(stated) == 11
    for item in stated.values():
        assert list(item) == KEYS and list(item["progress"]) == ["done", "of", "unit"]


def test_the_table_of_the_eleven_runs(stated):
    assert {number: (item["state"], item["cause"]) for number, item in stated.items()} == {
        **{number: ("complete", None) for number in ("10", "11", "12", "13", "14", "16", "19")},
        "15": ("failed", "stall@load@gpu108"),
        "17": ("failed", "stall@load@gpu104"),
        "18": ("partial", "time limit"),
        "20": ("partial", "time limit"),
    }
    assert {number: tuple(stated[number]["progress"].values()) for number in ("18", "20")} == {
        "18": (89, 100, "epochs"),
        "20": (51, 100, "epochs"),
    }
    assert stated["10"]["missing"] == [] and stated["10"]["action"] == ""
    for number in ("15", "17", "18", "20"):
        assert stated[number]["missing"] == ["train", "validate", "sensitivity"] and stated[number]["stage"] == "train"


def test_a_silent_stall_is_shown_by_the_last_line_and_the_end_of_the_job(stated):
    last, end = stated["15"]["evidence"]
    assert last.startswith("logs/0001.log:3: initialising the lazy dataset") and "nothing for 21512 s" in last
    assert end.startswith("logs/0001.log:4: slurmstepd") and "DUE TO TIME LIMIT" in end


@pytest.mark.parametrize(("number", "node"), [("15", "gpu108"), ("17", "gpu104")])
def test_a_stall_is_to_be_run_again_elsewhere_within_the_same_limit(stated, number, node):
    action = stated[number]["action"]
    assert action.startswith("assay exec --run ") and " -- bash pipeline.sh  # " in action
    assert f"--exclude={node}" in action
    assert "its limit of 6 h 0 min is enough (4 h 2 min needed)" in action


def test_what_ran_out_of_time_gets_a_limit_from_its_own_pace(stated):
    """Run 18: 22 min, 100 epochs of 3.8 min, half an hour. Run 20: 12 min, 100 epochs of 6.8 min, half an hour."""
    assert "--time=08:15:00 (7 h 9 min needed)" in stated["18"]["action"]
    assert "--time=14:00:00 (11 h 59 min needed)" in stated["20"]["action"]


@pytest.mark.parametrize("number", ["18", "20"])
def test_saved_models_can_be_validated_alone(stated, number):
    assert "with the model that is saved only validate, sensitivity: --time=00:45:00" in stated[number]["action"]
    assert any("saved the best models" in line for line in stated[number]["evidence"])


def test_the_table_is_plain_text_away_from_a_terminal(asl, capsys):
    assert main(["status", str(asl)]) == 0
    said = capsys.readouterr().out
    head, *rows = said.partition("\n\n")[0].splitlines()
    assert head.split() == ["run", "state", "cause", "stage", "progress", "attempts", "node", "eta"]
    assert len(rows) == 11 and said.isascii()
    (row,) = [row for row in rows if "18-longer" in row]
    assert row.split()[:6] == ["asl-amplitude/18-longer-training/0", "partial", "time", "limit", "train", "89/100"]
    assert row.split()[6:] == ["epochs", "1", "gpu120"]
    assert "\nasl-amplitude/18-longer-training/0: partial; time limit; missing train, validate, sensitivity\n" in said
    assert "\n    -> assay exec --run " in said


def test_a_terminal_gets_a_table_with_the_same_words(asl, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["status", str(asl)]) == 0
    said = capsys.readouterr().out
    assert "stall@load@gpu108" in said and "│" in said


def test_one_run_may_be_named(asl, capsys):
    assert main(["status", str(asl / "asl-amplitude/18-longer-training/0"), "--json"]) == 0
    (item,) = json.loads(capsys.readouterr().out)
    assert item["arm"] == "18-longer-training"


def test_a_missing_folder_is_refused(tmp_path, capsys):
    assert main(["status", str(tmp_path / "none")]) == 2
    assert "give a folder of runs" in capsys.readouterr().err


def test_a_folder_without_runs_has_an_empty_list(tmp_path, capsys):
    assert main(["status", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_damaged_record_is_named_and_hides_no_other(asl, tmp_path, capsys):
    top = tmp_path / "runs"
    shutil.copytree(asl, top)
    (top / "asl-amplitude/16-l2-loss/0/attempts/0001.json").write_text('{"number": 1')
    assert main(["status", str(top), "--json"]) == 0
    items = {item["arm"]: item for item in json.loads(capsys.readouterr().out)}
    damaged = items["16-l2-loss"]
    assert len(items) == 11 and (damaged["state"], damaged["cause"]) == ("failed", "unknown")
    assert damaged["evidence"][0].startswith("attempts/0001.json: damaged")


def test_a_record_that_leads_nowhere_hides_no_other(asl, tmp_path, capsys):
    top = tmp_path / "runs"
    shutil.copytree(asl, top)
    damaged = top / "asl-amplitude/16-l2-loss/0/attempts/0001.json"
    damaged.unlink()
    damaged.symlink_to("nowhere")
    assert main(["status", str(top), "--json"]) == 0
    items = {item["arm"]: item for item in json.loads(capsys.readouterr().out)}
    shown = items["16-l2-loss"]
    assert len(items) == 11 and (shown["state"], shown["cause"]) == ("failed", "unknown")
    assert shown["evidence"][0].startswith("attempts/0001.json: cannot be read (No such file or directory)")


def test_a_folder_that_cannot_be_listed_hides_no_other(asl, tmp_path, capsys, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "16-l2-loss":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert main(["status", str(asl), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 11


def test_status_needs_no_torch(asl):
    code = (
        f"import sys; from assay.__main__ import main; main(['status', {str(asl)!r}]); "
        "sys.exit(sorted({'torch', 'numpy', 'jsonargparse', 'rich'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_thousand_records_are_read_within_a_second_or_little_more(tmp_path):
    """The whole command, in CPU time, which a busy machine hardly changes; the benchmark measures its bound of 1 s."""
    subprocess.run([sys.executable, BENCHMARK, "--make", "1000", tmp_path / "runs"], check=True)
    before = sum(os.times()[2:4])
    command = [sys.executable, "-m", "assay", "status", tmp_path / "runs", "--json"]
    said = subprocess.run(command, check=True, capture_output=True).stdout
    assert sum(os.times()[2:4]) - before < 2
    assert len(json.loads(said)) == 1000


def test_running_and_queued_runs_are_shown_with_what_is_left(tmp_path, capsys):
    now = time.time()
    run = Run(study="s", arm="a", seed="0", stages=["train"], command=["dvc", "repro"])
    write(tmp_path, "s/a/0/run.json", json.dumps(to_json(run)))
    here = Progress(stage="train", done=25, of=100, since=now - 50, changed=now)
    holder = Holder(host="elsewhere", pid=1, start_ticks=0, boot_id="")
    attempt = Attempt(number=1, holder=holder, command=["dvc", "repro"], started=now - 60, heartbeat=now, progress=here)
    write(tmp_path, "s/b/0/attempts/0001.json", json.dumps(to_json(attempt)))
    assert main(["status", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "s/a/0  queued" in said and "assay exec --run " in said
    (row,) = [line for line in said.splitlines() if line.startswith("s/b/0")]
    assert row.split()[:3] == ["s/b/0", "running", "train"] and "25/100 steps" in row and "0:02:" in row
