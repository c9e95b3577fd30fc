"""What a complete run hands back is its own: metrics of other pipelines, and of two meanings, are none of it."""

import json

import pytest
from tests.matrix.toy import PIPELINE, Inline, Repository

from assay.matrix.handback import keep_results
from assay.matrix.submit import open_study, submit

NESTED = """\
stages:
  validate:
    cmd: "true"
    metrics:
      - results/validate/metrics.json
"""
LOCK = """\
schema: '2.0'
stages:
  validate:
    cmd: "true"
    outs:
      - path: results/validate/metrics.json
        hash: md5
        md5: {md5}
        size: 16
"""
FOR_ALL = PIPELINE.replace(
    "    metrics:\n      - results/validate/metrics.json:\n          cache: false\n",
    "      - results/validate/metrics.json\nmetrics:\n  - results/validate/metrics.json\n",
).replace("outs: [results/validate/table.csv]", "outs:\n      - results/validate/table.csv")


def metrics(repository: Repository) -> dict[str, float]:
    submit(open_study(repository.study, "fast"), Inline())
    found: dict[str, float] = json.loads((repository.run("fast", 0) / "metrics.json").read_text())
    return found


def test_metrics_of_a_pipeline_below_that_has_not_run_here_are_not_the_run_s(repository):
    """Its lock file is committed and its result lies in the cache that all clones share."""
    md5, content = "8ba2b5f3ee1cb0a8a4df4b2e3e0f6bd5", '{"error": 99999}'
    (repository.folder / "other").mkdir()
    (repository.folder / "other/dvc.yaml").write_text(NESTED)
    (repository.folder / "other/dvc.lock").write_text(LOCK.format(md5=md5))
    kept = repository.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    kept.parent.mkdir(parents=True)
    kept.write_text(content)
    repository.commit()
    assert metrics(repository)["validate/error"] == 0.5


def test_metrics_declared_for_all_stages_are_the_run_s(repository):
    repository.pipeline.write_text(FOR_ALL)
    repository.commit()
    assert metrics(repository)["validate/error"] == 0.5


@pytest.mark.parametrize("declared", ["by its stage", "for all stages"])
def test_a_pipeline_in_a_folder_of_its_own_hands_back_the_same(tmp_path, declared):
    repository = Repository(tmp_path, "studies/toy")
    if declared == "for all stages":
        repository.pipeline.write_text(FOR_ALL)
        repository.commit()
    assert metrics(repository) == {"validate/error": 0.5, "validate/by.snr": 2, "validate/bad": None}
    experiment = repository.git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()[0]
    files = repository.git("ls-tree", "-r", "--name-only", experiment).splitlines()
    assert {"studies/toy/dvc.lock", "studies/toy/params.yaml"} <= set(files)
    assert "will not be included" not in (repository.run("fast", 0) / "job.log").read_text()


def test_metrics_that_cannot_be_read_are_named(repository):
    stage = repository.folder / "stage.py"
    stage.write_text(stage.read_text().replace("raise", 'open("results/validate/ood.json", "w").write("{")\nraise'))
    declared = "      - results/validate/ood.json:\n          cache: false\n"
    repository.pipeline.write_text(PIPELINE + declared)
    repository.commit()
    assert metrics(repository)["validate/error"] == 0.5
    log = (repository.run("fast", 0) / "job.log").read_text()
    assert "assay: results/validate/ood.json: its metrics cannot be read (" in log


def test_two_files_that_give_one_name_two_values_are_refused(repository):
    stage = repository.folder / "stage.py"
    more = 'json.dump({"error": 7}, open("results/validate/ood.json", "w"))\nraise'
    stage.write_text(stage.read_text().replace("raise", more))
    declared = "      - results/validate/ood.json:\n          cache: false\n"
    repository.pipeline.write_text(PIPELINE + declared)
    repository.commit()
    submit(open_study(repository.study, "fast"), Inline())
    run = repository.run("fast", 0)
    assert not (run / "metrics.json").exists()
    assert "toy-fast" not in repository.git("for-each-ref", "refs/exps"), "and nothing was published"
    said = "got validate/error, which another metrics file has too; give each a folder of its own"
    assert said in (run / "job.log").read_text()


def test_losses_are_kept_however_long_the_training_was_and_other_large_files_are_not(tmp_path):
    losses = tmp_path / "clone/results/train/log/live/plots/metrics/train/loss.tsv"
    losses.parent.mkdir(parents=True)
    losses.write_text("step\tloss\n" + "100000\t0.123456789\n" * 120_000)
    (tmp_path / "clone/results/train/table.csv").write_bytes(losses.read_bytes())
    keep_results(tmp_path / "clone/results", tmp_path / "run/results")
    assert [path.name for path in (tmp_path / "run").rglob("*.*sv")] == ["loss.tsv"]
