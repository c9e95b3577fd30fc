"""A run's folder: records, events and logs that survive whatever killed their writer, and how runs are found."""

import dataclasses
import json
import os
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.runs.begun_runs import attempt

from assay.errors import DataError
from assay.runs import store
from assay.runs.record import Progress, Run, Stage
from assay.runs.store import RunFolder, find


def test_attempts_are_numbered_from_one_and_each_has_its_file(folder):
    first = folder.begin(attempt())
    folder.update(dataclasses.replace(first, ended=time.time(), code=75))
    second = folder.begin(attempt())
    assert (first.number, second.number) == (1, 2)
    assert sorted(os.listdir(folder.path / "attempts")) == ["0001.json", "0002.json"]


@settings(deadline=None, max_examples=15)
@given(
    code=st.none() | st.integers(-64, 255),
    loss=st.floats(allow_nan=False, allow_infinity=False),
    facts=st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)
def test_what_is_begun_and_updated_is_what_is_read(code, loss, facts):
    with tempfile.TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary) / "asl" / "deep" / "3")
        begun = folder.begin(attempt(progress=Progress(loss=loss)))
        assert folder.read().attempts == [begun]
        stages = [Stage(study="asl", stage="train", started=1.0, facts=facts)]
        ended = dataclasses.replace(begun, ended=2.0, code=code, stages=stages)
        folder.update(ended)
        run = Run(study="asl", arm="deep", seed="3", params=dict(facts))
        folder.write_run(run)
        assert folder.read() == store.RunRecord(folder=folder.path, run=run, attempts=[ended])


class TestEvents:
    def test_events_come_back_in_order_with_their_times(self, folder):
        before = time.time()
        folder.event("begin", number=1)
        folder.event("stall", phase="load", time=5.0)
        first, second = folder.events()
        assert before <= first.pop("time") <= time.time()
        assert (first, second) == ({"kind": "begin", "number": 1}, {"kind": "stall", "phase": "load", "time": 5.0})

    def test_a_run_without_events_has_none(self, folder):
        assert list(folder.events()) == []

    def test_wherever_a_line_is_torn_the_others_are_read_and_the_next_is_whole(self, folder):
        for number in range(3):
            folder.event("x", number=number, text="ü")
        path = folder.path / "events.jsonl"
        whole = path.read_bytes()
        for length in range(whole.rindex(b"\n", 0, -1) + 1, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert [event["number"] for event in folder.events()] == [0, 1]
            folder.event("x", number=9)
            assert [event["number"] for event in folder.events()] == [0, 1, 9]

    def test_bytes_that_are_no_event_are_left_out(self, folder):
        folder.event("x", number=1)
        with (folder.path / "events.jsonl").open("ab") as file:
            file.write(b"\x00\xff\xfe\n[1]\n3\n")
        assert [event["kind"] for event in folder.events()] == ["x"]

    def test_what_the_disk_took_half_of_is_taken_back(self, folder, monkeypatch):
        folder.event("x")
        before = (folder.path / "events.jsonl").read_bytes()
        write = os.write
        monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:5]))
        with pytest.raises(DataError, match=r"events\.jsonl: cannot be written \(No space left on device\)"):
            folder.event("y")
        assert (folder.path / "events.jsonl").read_bytes() == before


def test_files_say_null_where_a_number_is_none(folder):
    def refuse(word):
        raise AssertionError(word)

    begun = folder.begin(attempt(progress=Progress(loss=float("nan"))))
    folder.update(dataclasses.replace(begun, stages=[Stage(study="", stage="", started=1.0, facts={"x": [-1e999]})]))
    folder.event("x", loss=float("inf"))
    folder.write_run(Run(study="a", arm="b", seed="c", params={"limit": float("inf")}))
    for path in ("attempts/0001.json", "events.jsonl", "run.json"):
        json.loads((folder.path / path).read_text(), parse_constant=refuse)
    assert folder.read().attempts[0].stages[0].facts == {"x": [None]}


def test_a_file_is_no_folder_of_a_run(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text("")
    told = f"^{file}: got a file; allowed: a run's folder; give one, e.g. runs/asl/baseline/0$"
    for give in (RunFolder(file).read, lambda: RunFolder(file).begin(attempt())):
        with pytest.raises(DataError, match=told):
            give()


@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        ("runs/asl/baseline/0", "runs/asl", "around"),
        ("runs/asl/baseline/0", "runs", "around"),
        ("runs/asl", "runs/asl/baseline/0", "within"),
    ],
)
def test_a_new_run_neither_hides_another_nor_is_hidden_by_it(tmp_path, first, second, place):
    RunFolder(tmp_path / first).begin(attempt())
    told = f"^{tmp_path / second}: got a folder {place} another run, {tmp_path / first}; allowed: one where no run is "
    with pytest.raises(DataError, match=told + "above or below; choose another, e.g. runs/asl/baseline/0$"):
        RunFolder(tmp_path / second).begin(attempt())
    assert [run.path for run in find(tmp_path)] == [tmp_path / first]


def test_runs_lie_beside_one_another(tmp_path):
    for name in ("asl/baseline/0", "asl/baseline/1", "asl/wide/0", "burgers/baseline/0"):
        assert RunFolder(tmp_path / name).begin(attempt()).number == 1


def test_a_log_takes_any_text(folder):
    folder.append_log(2, "first\n")
    folder.append_log(2, "päivää \udcff\n")
    assert folder.log(2) == folder.path / "logs" / "0002.log"
    assert folder.log(2).read_text() == "first\npäivää \\udcff\n"


class TestReading:
    def test_a_run_that_died_before_it_was_described_has_the_names_of_its_folder(self, folder, monkeypatch):
        folder.begin(attempt())
        assert folder.read().run == Run(study="asl", arm="deep", seed="3")
        monkeypatch.chdir(folder.path)
        assert RunFolder(Path()).read().run == Run(study="asl", arm="deep", seed="3")

    def test_a_run_without_attempts_can_be_read(self, folder):
        folder.write_run(Run(study="a", arm="b", seed="c"))
        assert folder.read().attempts == []

    def test_temporary_files_of_a_killed_writer_are_no_attempts(self, folder):
        begun = folder.begin(attempt())
        (folder.path / "attempts" / ".0002.json.4711.tmp").write_text("{")
        assert folder.read().attempts == [begun]

    @pytest.mark.parametrize("content", ["", "\x00\x00"])
    def test_a_file_that_a_crash_has_emptied_was_never_written(self, folder, content):
        assert not folder.has_run
        folder.write_run(Run(study="a", arm="b", seed="c", stages=["train"]))
        assert folder.has_run
        (folder.path / "run.json").write_text(content)
        assert folder.read().run.stages == [] and not folder.has_run

    @pytest.mark.parametrize("content", ["{", "[" * 100_000, "{\x00"])
    def test_damaged_json_is_refused_by_name(self, folder, content):
        folder.write_run(Run(study="a", arm="b", seed="c"))
        (folder.path / "run.json").write_text(content)
        with pytest.raises(DataError, match=r"run\.json: damaged \(.*\); restore it or move it away"):
            folder.read()

    @pytest.mark.parametrize(("name", "why"), [("run.json", "No such file or directory"), ("x", "Is a directory")])
    def test_what_cannot_be_read_is_refused_by_name(self, folder, name, why):
        folder.path.mkdir(parents=True)
        (folder.path / "x").mkdir()
        (folder.path / "run.json").symlink_to("nowhere" if name == "run.json" else "x")
        with pytest.raises(DataError, match=rf"run\.json: cannot be read \({why}\); restore it or move it away"):
            folder.read()

    def test_a_later_schema_is_refused_by_name(self, folder):
        folder.begin(attempt())
        path = folder.path / "attempts" / "0001.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
        with pytest.raises(DataError, match=r"0001\.json: schema: got 2; allowed: 1"):
            folder.read()


class TestFinding:
    def test_runs_are_found_at_any_depth_sorted_and_seeds_by_number(self, tmp_path):
        for name in ("b/x/10", "b/x/9", "a", "b/a/0"):
            RunFolder(tmp_path / name).begin(attempt())
        RunFolder(tmp_path / "c").write_run(Run(study="", arm="", seed=""))
        found = [str(run.path.relative_to(tmp_path)) for run in find(tmp_path)]
        assert found == ["a", "b/a/0", "b/x/9", "b/x/10", "c"]

    def test_a_run_is_found_by_itself_and_nothing_within_it(self, folder, tmp_path):
        folder.begin(attempt())
        RunFolder(tmp_path / "elsewhere").begin(attempt())
        (tmp_path / "elsewhere").rename(folder.path / "moved here")
        assert [run.path for run in find(folder.path)] == [folder.path]

    def test_hidden_folders_are_not_entered(self, tmp_path):
        RunFolder(tmp_path / ".venv" / "x").begin(attempt())
        assert list(find(tmp_path)) == []

    def test_a_run_that_was_moved_away_and_linked_is_found_under_its_name(self, tmp_path):
        RunFolder(tmp_path / "scratch/old").begin(attempt())
        (tmp_path / "runs/deep").mkdir(parents=True)
        (tmp_path / "runs/deep/3").symlink_to(tmp_path / "scratch/old")
        (tmp_path / "runs/wide").symlink_to("deep")
        assert [run.path for run in find(tmp_path / "runs")] == [tmp_path / "runs/deep/3", tmp_path / "runs/wide/3"]

    def test_links_that_lead_up_or_nowhere_are_not_entered(self, tmp_path):
        runs = tmp_path / "runs"
        RunFolder(runs / "asl/3").begin(attempt())
        (tmp_path / "scratch/x").mkdir(parents=True)
        for link, target in {
            "runs/up": tmp_path,
            "runs/asl/itself": runs / "asl",
            "runs/x": tmp_path / "scratch/x",
            "scratch/x/back": runs,
            "scratch/x/above": tmp_path / "scratch",
            "runs/round": runs / "round",
            "runs/nowhere": tmp_path / "none",
        }.items():
            (tmp_path / link).symlink_to(target)
        assert [run.path for run in find(runs)] == [runs / "asl/3"]

    def test_a_missing_folder_is_one_line(self, tmp_path):
        with pytest.raises(DataError, match=r"nowhere: cannot be read \(No such file.*\); give a folder of runs"):
            list(find(tmp_path / "nowhere"))
