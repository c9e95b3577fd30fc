"""What `assay report` writes: files, links, notes, leaderboard, refusals."""

import csv
import json
import math
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.reports.records import HOSTILE, METRIC, make_run, make_study

from assay.__main__ import main
from assay.errors import ConfigError, DataError
from assay.reports.canvas import broken
from assay.reports.details import changes, tail
from assay.reports.figures import chosen, labels_apart
from assay.reports.gather import gather
from assay.reports.markdown import write_report
from assay.reports.markup import cell, quoted
from assay.reports.notes import add_headings, read_notes
from assay.reports.report import write
from assay.reports.spreadsheets import write_leaderboard


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_file_where_the_folder_would_be_is_left_alone_and_named(small, tmp_path):
    file = tmp_path / "dvc.yaml"
    file.write_text("stages: {}\n")
    for out in (file, file / "below"):
        with pytest.raises(ConfigError, match=f"^{out}: is a file, or below one; allowed: a folder; .* --out$"):
            write(small, out)
    assert file.read_text() == "stages: {}\n"


def test_every_file_is_there(written):
    found = {path.relative_to(written.folder).as_posix() for path in written.folder.rglob("*.*")}
    names = {"metric-by-arm", "loss", "cost", "time", "memory"}
    files = {"report.md", "report.html", "arms.csv", "runs.csv", "summary.csv", "experiments.md", "notes.md"}
    assert found == files | {f"figures/{name}.png" for name in names}
    assert (written.folder.parent / "leaderboard.csv").is_file()


def test_runs_csv_has_a_row_for_every_arm_and_seed_and_the_exact_numbers(written, study):
    found = rows(written.folder / "runs.csv")
    assert [(row["arm"], row["seed"]) for row in found] == [
        (f"arm-{a:04d}", str(s)) for a in range(6) for s in range(3)
    ]
    for row in found:
        if row["state"] == "complete":
            metrics = json.loads((written.folder / row["run"] / "metrics.json").read_text())
            assert float(row[METRIC]) == metrics[METRIC]
    assert {row["state"] for row in found if row["arm"] == "arm-0005"} == {"missing"}


def test_summary_csv_takes_every_value_from_the_runs_own_record_and_sorts_the_best_first(tmp_path):
    study = make_study(tmp_path, 4, 2)
    runs = tmp_path / "runs/made"
    failed, unfinished = runs / "arm-0002/0", runs / "arm-0003/1"
    for folder, outcome in ((failed, "failed"), (unfinished, "lost")):
        shutil.rmtree(folder)
        make_run(folder, int(folder.parent.name[-1]), outcome, random.Random(0))
    for name in ("arm-0001", "arm-0000"):  # folders are listed in another order than they were made in
        shutil.copytree(runs / name, tmp_path / "aside")
        shutil.rmtree(runs / name)
        shutil.move(tmp_path / "aside", runs / name)
    found = rows(write(study, tmp_path / "report").folder / "summary.csv")
    assert list(found[0])[:3] == ["train.optimizer.lr", "seed", METRIC]
    assert len({(row["arm"], row["seed"]) for row in found}) == len(found) == 8
    for row in found:
        record = json.loads((runs / row["arm"] / row["seed"] / "run.json").read_text())
        assert float(row["train.optimizer.lr"]) == record["params"]["train"]["optimizer"]["lr"]
    values = [float(row[METRIC]) for row in found if row[METRIC]]
    assert values == sorted(values) and len(values) == sum(row["state"] == "complete" for row in found)
    last = {(row["arm"], row["seed"]): row["state"] for row in found[len(values) :]}
    assert last["arm-0002", "0"] == "failed" and last["arm-0003", "1"] in ("lost", "running")
    assert not any(row[METRIC] for row in found[len(values) :])


def test_arms_csv_has_means_of_what_runs_csv_has(written):
    runs = rows(written.folder / "runs.csv")
    for row in rows(written.folder / "arms.csv"):
        values = [float(run[METRIC]) for run in runs if run["arm"] == row["arm"] and run[METRIC]]
        assert int(row[f"{METRIC}:n"] or 0) == len(values)
        if values:
            assert float(row[METRIC]) == pytest.approx(sum(values) / len(values))


@pytest.mark.parametrize("name", ["report.md", "experiments.md"])
def test_every_link_of_the_texts_leads_to_something(written, name):
    links = re.findall(r"\]\(<?([^)>]+)>?\)", (written.folder / name).read_text().replace(HOSTILE, ""))
    targets = {link for link in links if not link.startswith("javascript:")}
    assert {link for link in targets if not (written.folder / link).exists()} == set()
    assert any(link.endswith("arm-0003/1") for link in targets)


def test_the_report_has_the_sections_of_a_status_report(written):
    found = re.findall(r"^## (.*)$", (written.folder / "report.md").read_text(), re.MULTILINE)
    assert [name.partition(":")[0] for name in found] == [
        "Overview", "Status", "Verdicts", "Results", "Results", "Figures", "Failed, partial and lost runs",
        "Action items", "Cost", "How the numbers are made",
    ]  # fmt: skip


def test_what_to_submit_is_named_as_it_was_given(tmp_path):
    """From another folder, the same name may be that of another study."""
    study = make_study(tmp_path / "my studies", 2, 1, runs=False)
    assert f"assay submit '{study}'" in write_report(gather(study), [], tmp_path / "report.md")


def test_a_failed_run_is_told_with_cause_evidence_and_what_to_do(written):
    text = (written.folder / "report.md").read_text()
    told = text[text.index("### arm-0003, seed 1: FAILED (NaN)") :].partition("###")[2].partition("\n### ")[0]
    assert "train.optimizer.lr=" in told
    assert "loss is nan at step 512" in told
    assert "study.yaml --only arm-0003 --again" in told
    assert "1 of 3 failed" in text


def test_runs_that_never_began_are_an_action_item(written, study):
    text = (written.folder / "report.md").read_text()
    assert f"assay submit {study}" in text.partition("### Low priority")[2]


def test_an_action_is_a_list_item_with_its_command_in_a_fence(written):
    text = (written.folder / "report.md").read_text()
    command = r"assay submit \S+ --only arm-0003 --again .*"
    assert re.search(rf"^1\. arm-0003/1 \(NaN\)\n\n   ```\n   {command}\n   ```$", text, re.MULTILINE)


def test_controls_stand_beside_the_first_metric(written):
    text = (written.folder / "report.md").read_text()
    assert re.search(r"\| arm \| mean \[95 % interval\] \| seeds \| against the baseline, paired \| null \|", text)


def test_notes_are_kept_and_shown(small):
    folder = write(small).folder
    mine = (folder / "notes.md").read_text().replace("## arm-0001\n", "## arm-0001\nIt *diverged* late.\n")
    (folder / "notes.md").write_text(mine + "\nA last line without an arm")
    written = (folder / "notes.md").read_bytes()
    write(small)
    assert (folder / "notes.md").read_bytes() == written
    entry = (folder / "experiments.md").read_text().partition("## Experiment: arm-0001")[2].partition("## Exp")[0]
    assert "It *diverged* late." in entry
    assert "It *diverged* late." in (folder / "report.html").read_text()


def test_a_seed_without_a_finite_value_has_failed_wherever_failures_are_counted(small):
    path = small.parent / "runs/made/arm-0001/0/metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), METRIC: math.nan}))
    folder = write(small).folder
    entry = (folder / "experiments.md").read_text().partition("## Experiment: arm-0001")[2].partition("## Exp")[0]
    assert "1 of 2 seeds failed: not a finite number" in entry
    assert "1 of 2 failed" in (folder / "report.md").read_text()


def test_new_arms_get_a_heading_after_what_a_person_wrote(tmp_path):
    path = tmp_path / "notes.md"
    path.write_text("## a\nmine, no newline at the end")
    add_headings(path, ["a", "b"])
    assert path.read_text() == "## a\nmine, no newline at the end\n## b\n"
    assert read_notes(path) == {"a": "mine, no newline at the end", "b": ""}


def test_notes_that_are_no_text_are_refused_and_kept(small):
    notes = small.parent / "reports/made/notes.md"
    notes.parent.mkdir(parents=True)
    notes.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"notes\.md: cannot be read \(.*\); make it UTF-8 text or move it away"):
        write(small)
    assert notes.read_bytes() == b"\xff\xfe"


def test_the_leaderboard_keeps_other_studies_and_replaces_this_one(small, tmp_path):
    board = tmp_path / "leaderboard.csv"
    report = gather(small)
    write_leaderboard(board, report)
    first = board.read_text()
    other = first.replace("\nmade,", "\nother,")
    board.write_text(other)
    write_leaderboard(board, report)
    write_leaderboard(board, report)
    found = rows(board)
    assert [row["study"] for row in found] == ["made"] * 6 + ["other"] * 6
    best = [row for row in found if (row["study"], row["metric"]) == ("made", METRIC)]
    assert [row["rank"] for row in best] == ["1", "2", "3"]
    means = [float(row["mean"]) for row in best]
    assert means == sorted(means)
    assert all((tmp_path / row["runs"]).is_dir() for row in best)


def test_a_file_that_is_no_leaderboard_is_refused(small, tmp_path):
    board = tmp_path / "board.csv"
    board.write_text("name,score\nme,1\n")
    with pytest.raises(DataError, match=r"board\.csv: not a leaderboard; .* move it away and report again"):
        write(small, leaderboard=board)


def test_only_shows_some_arms_judges_all_and_leaves_the_leaderboard_alone(small):
    found = write(small, only="*-0002")
    assert [row["arm"] for row in rows(found.folder / "arms.csv")] == ["arm-0002"]
    assert set(found.report.verdicts) == {"H1", "H2"}
    assert not (found.folder.parent / "leaderboard.csv").exists()


def test_a_study_without_any_run_is_reported(tmp_path):
    folder = write(make_study(tmp_path / "none", 2, 2, runs=False)).folder
    text = (folder / "report.md").read_text()
    assert "**0 of 4 runs are complete.**" in text
    assert "INADMISSIBLE" in text
    assert not (folder / "figures").exists()


def test_many_arms_are_drawn_by_the_best_and_the_worst_and_the_report_says_so(tmp_path):
    arms, note = chosen(gather(make_study(tmp_path / "many", 30, 1)), 8)
    means = [arm.metrics[METRIC].mean for arm in arms]
    assert means == sorted(means)
    assert "arm-0000" in {arm.arm for arm in arms}
    assert re.fullmatch(r"The best and the worst 4 of \d+ arms by validate/cbf_mae, and the baseline; .*", note)


def test_the_verb_says_verdicts_and_where(small, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["report", str(small), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^H1: [A-Z]+: ", said, re.MULTILINE)
    assert f"written: {out}/report.md and {out}/report.html" in said
    assert (out / "leaderboard.csv").is_file()


def test_a_report_imports_neither_torch_nor_pandas(small):
    code = f"""import sys
from assay.__main__ import main
sys.exit(main(["report", {str(small)!r}]) or ", ".join({{"torch", "pandas"}} & sys.modules.keys()) or None)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_verb_gives_verdicts_as_json(small, capsys):
    assert main(["report", str(small), "--only", "arm-0001", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["verdicts"]) == {"H1", "H2"}


@pytest.mark.parametrize("text", [HOSTILE, "a|b", "two\nlines", "`x`", "<b>", "[a](b)", "&amp;"])
def test_any_text_is_one_plain_cell_of_a_table(text):
    escaped = cell(text)
    assert "\n" not in escaped
    assert not re.search(r"(?<!\\)[`|<>\[\]&]", escaped)
    assert re.sub(r"\\(.)", r"\1", escaped) == " ".join(text.split())


def test_a_fence_cannot_be_closed_from_within():
    assert quoted(["```", "# heading", "`````"]).splitlines()[0] == "``````"


def test_config_differences_are_leaves_without_the_seed():
    own = {"seed": 1, "a": {"b": 1, "c": 2}, "new": [1]}
    assert changes(own, {"seed": 0, "a": {"b": 1, "c": 3}, "old": 0}) == {"a.c": 2, "new": [1], "old": None}


def test_the_tail_of_a_log_is_short_however_long_its_lines(tmp_path):
    path = tmp_path / "log"
    path.write_text("first\n" + "x" * 5000 + "\nlast\n")
    found = tail(path, 2).splitlines()
    assert found[-1] == "last"
    assert len(found[0]) < 400
    assert tail(tmp_path / "none", 3) == ""


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("validate/mse", ["validate/mse"]),
        ("validate/ratio_pca_ridge_stimulus", ["validate/ratio_pca_", "ridge_stimulus"]),
        ("validate/cbf_mae (ml/100 g/min)", ["validate/cbf_mae", "(ml/100 g/min)"]),
        ("onewordthatislongerthanthewidth", ["onewordthatislongerthanthewidth"]),
    ],
)
def test_a_long_name_is_broken_between_its_parts_and_loses_nothing(name, lines):
    assert broken(name, 20).split("\n") == lines


def test_labels_that_would_lie_upon_one_another_are_one():
    found = labels_apart({"null": 0.13, "classical": 0.5, "constant": 0.12})
    assert [list(group) for group in found] == [["constant", "null"], ["classical"]]
