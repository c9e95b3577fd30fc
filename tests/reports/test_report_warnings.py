"""What a report warns of and does not count: edited hypotheses, other parameters or code, damaged runs."""

import json
import random
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.matrix.toy import Repository
from tests.reports.records import METRIC, NULL, make_run, make_study, rate

from assay.__main__ import main
from assay.matrix.arms import resolve
from assay.matrix.cells import CellResult
from assay.matrix.jobs import Standing
from assay.matrix.study import read_study
from assay.matrix.verdicts.registration import register, rules_of
from assay.reports.code import of_other_code
from assay.reports.gather import gather
from assay.reports.markdown import write_report
from assay.reports.page import write_page


def test_runs_of_several_commits_and_equal_arms_are_warned_of(small):
    run = small.parent / "runs/made/arm-0001/0/run.json"
    run.write_text(run.read_text().replace("0123456789abcdef", "fedcba9876543210"))
    small.write_text(small.read_text() + "  twin: {reason: Again., set: {train.optimizer.lr: 0.0000019073486328125}}\n")
    report = gather(small)
    assert [warning.partition(";")[0] for warning in report.warnings] == [
        "twin runs exactly the same as arm-0001",
        "the complete runs come from 2 commits: 0123456789ab, fedcba987654",
    ]
    text = write_report(report, [], small.parent / "report.md")
    assert "**Warning**: twin runs exactly the same as arm-0001" in text
    page = write_page(report, [], {}, small.parent / "report.html")
    assert "<li>twin runs exactly the same as arm-0001</li>" in page


def test_runs_of_several_commits_are_warned_of_only_where_code_of_the_pipeline_differs(tmp_path):
    made = Repository(tmp_path)
    one = made.commit()
    (tmp_path / "README.md").write_text("of no stage")
    same = made.commit()
    (tmp_path / "stage.py").write_text("another = 1\n")
    other = made.commit()

    def warnings(*commits: str) -> list[str]:
        cells = [
            CellResult(arm="a", seed=n, folder=tmp_path, state="complete", commit=c) for n, c in enumerate(commits)
        ]
        return list(of_other_code(made.study, read_study(made.study), cells))

    assert warnings(one, one) == warnings(one, same) == []
    (line,) = warnings(one, same, one, other)
    assert line.startswith("1 of 4 complete runs, e.g. a/3, came from other code: stage.py (commit ")


def test_hypotheses_that_were_edited_after_their_registration_are_told(small, capsys):
    assert gather(small).registration.startswith("Not registered")
    again(small)
    assert gather(small).registration.endswith(", not changed since")
    small.write_text(small.read_text().replace("margin: 0.1", "margin: 0.2"))
    found = gather(small)
    assert found.registration.endswith("edited since and not registered: submit again to amend")
    assert "not changed since" not in found.registration
    assert "H2.margin 0.1 -> 0.2 (not registered)" in found.amended["H2"]
    capsys.readouterr()
    assert main(["report", str(small)]) == 0
    assert "; amended after data: " in capsys.readouterr().out.partition("H2: ")[2].partition("\n")[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("failed: worst", "failed: exclude"),
        ("name: made", "name: made\ncorrection: none"),
        ("[0, 1]", "[1, 0]"),
        (f'controls: {{"null": {NULL}}}', "controls: {}"),
        ("baseline: arm-0000", "baseline: arm-0001"),
        ("1.9073486328125e-06", "0.5"),
    ],
)
def test_what_else_decides_a_verdict_may_not_be_edited_in_silence_either(small, old, new):
    again(small)
    small.write_text(small.read_text().replace(old, new))
    assert gather(small).registration.endswith("edited since and not registered: submit again to amend")


def test_an_amendment_after_data_stands_beside_the_hypotheses_concerned(small):
    runs = small.parent / "runs/made"
    results = shutil.move(runs, small.parent / "aside")
    again(small)
    shutil.move(runs / "registered.json", results)
    runs.rmdir()
    shutil.move(results, runs)
    small.write_text(small.read_text().replace("margin: 0.1", "margin: 0.2"))
    again(small)
    report = gather(small)
    assert report.amended.keys() == {"H1", "H2"}, "Holm's correction ties them"
    text = write_report(report, [], small.parent / "report.md")
    assert re.search(r"^- \*\*H2\*\*: .*; amended after data: H2.margin 0.1 -\\> 0.2", text, re.MULTILINE)
    page = write_page(report, [], {}, small.parent / "report.html")
    assert page.count("; amended after data: H2.margin 0.1 -&gt; 0.2") == 2


def again(study: Path) -> None:
    """What `assay submit` registers."""
    resolved = resolve(study)
    register(study.parent / "runs/made", resolved.config.hypotheses, rules_of(resolved))


def test_a_run_that_ended_short_and_was_submitted_again_is_queued(tmp_path, monkeypatch):
    study = make_study(tmp_path, arms=2, seeds=1)
    short = study.parent / "runs/made/arm-0001/0"
    shutil.rmtree(short)
    make_run(short, 1, "partial", random.Random(0))
    job = Standing(scheduler="local", job="7", word="QUEUED", meaning="queued")
    again = SimpleNamespace(repository=str(tmp_path))
    monkeypatch.setattr("assay.reports.gather.read_submission", lambda run: again if run == short else None)
    before = gather(study).summaries["arm-0001"].state
    monkeypatch.setattr(
        "assay.reports.gather.jobs_of", lambda root, runs, **_: {run: job for run in runs if run == short}
    )
    assert (before, gather(study).summaries["arm-0001"].state) == ("partial", "queued")


def test_numbers_of_parameters_that_the_study_file_has_no_longer_are_warned_of(small):
    assert gather(small).warnings == []
    small.write_text(small.read_text().replace("2.86102294921875e-06", "0.5"))
    (warning,) = gather(small).warnings
    assert warning.startswith(
        "2 complete runs have numbers of other parameters than the study file now says, e.g. arm-0002/0 with "
        "train.optimizer.lr=2.86102294921875e-06 (now 0.5)"
    )


def test_nothing_follows_from_runs_of_parameters_that_their_arm_has_no_longer(small):
    before = gather(small).verdicts["H1"]
    small.write_text(small.read_text().replace(str(rate(1)), "0.25"))
    found = gather(small).verdicts["H1"]
    assert before.verdict != "INADMISSIBLE"
    assert (found.verdict, found.reason) == (
        "INADMISSIBLE",
        "arm-0001: run with other parameters than it now has, seeds 0, 1",
    )


def test_a_complete_run_whose_metric_is_not_finite_is_a_failed_seed(small):
    metrics = small.parent / "runs/made/arm-0001/0/metrics.json"
    metrics.write_text(json.dumps({**json.loads(metrics.read_text()), METRIC: None}))
    report = gather(small)
    assert report.verdicts["H1"].failed_seeds == {"arm-0001": (0,)}
    assert "| 1/2; 1 of 2 failed [9, 91] % |" in write_report(report, [], small.parent / "report.md")


def test_damaged_metrics_are_named(small, capsys):
    (small.parent / "runs/made/arm-0000/0/metrics.json").write_text("{")
    assert main(["report", str(small)]) == 2
    assert "arm-0000/0/metrics.json: not valid JSON" in capsys.readouterr().err


def test_a_run_whose_record_is_damaged_is_reported_as_failed(small):
    shutil.copy(small, small.parent / "runs/made/arm-0002/1/run.json")
    text = write_report(gather(small), [], small.parent / "report.md")
    assert "### arm-0002, seed 1: FAILED" in text
