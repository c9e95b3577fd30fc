"""The stages one after the other at a tiny size: what they write, that it repeats, and what they refuse."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.studies.scanlines.conftest import ARCHITECTURES, ARCHIVE, NO_TOKENS, ONE_LABEL, choose

from assay.errors import CheckpointError, ConfigError, DataError
from assay.studies.scanlines import networks, simulate, train, validate
from assay.studies.scanlines.dataset import open_dataset
from assay.studies.scanlines.evaluation import padded, template_probabilities
from assay.studies.scanlines.metrics import balanced_accuracy
from assay.studies.scanlines.templates import matches, references


def pipeline(params):
    for stage in (simulate, train, validate):
        stage.run(params)
    return json.loads(Path("results/validate/metrics.json").read_text())


def table(name):
    with Path(f"results/validate/{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_goes_through_the_pipeline(architecture, make_params):
    found = pipeline(make_params(*choose(architecture)))
    assert 0 <= found["balanced_accuracy_low"] <= found["balanced_accuracy"] <= found["balanced_accuracy_high"] <= 1
    assert found["balanced_accuracy_constant"] == pytest.approx(0.25)
    assert ("change_recall" in found) == (architecture in ("causal", "lrcn", "single_line"))


def test_the_same_parameters_give_the_same_files(make_params):
    files = []
    for _ in range(2):
        pipeline(make_params())
        content = {path: path.read_bytes() for path in sorted(Path("results/validate").iterdir())}
        files.append(content | {path: path.read_bytes() for path in Path("data/scanlines").iterdir()})
    assert files[0] == files[1]


def test_tables_have_every_image_class_and_control(make_params):
    pipeline(make_params())
    tables = {name: table(name) for name in ("models", "classes", "confusion", "lines", "per_image")}
    manifest = json.loads(Path("data/scanlines/manifest.json").read_text())
    assert [int(row["row"]) for row in tables["per_image"]] == manifest["splits"]["test"]
    assert [row["model"] for row in tables["models"]] == ["network", "untrained", "constant", "template"]
    assert [row["class"] for row in tables["classes"]] == [
        "atoms",
        "asymmetry/dimer",
        "rows",
        "tip_change/generic_defect",
    ]
    counts = [[int(row[name]) for name in list(row)[1:]] for row in tables["confusion"]]
    assert sum(map(sum, counts)) == len(tables["per_image"])
    assert [int(row["lines"]) for row in tables["lines"]] == [2, 8, 16]


@pytest.mark.parametrize("architecture", ["cnn", "causal", "line_encoder"])
def test_an_ensemble_decides_by_its_mean_or_by_votes(architecture, make_params):
    ensemble = [*choose(architecture), "train.ensemble_size=3"]
    pipeline(make_params(*ensemble))
    assert len(list(Path("results/train/model").iterdir())) == 3
    validate.run(make_params(*ensemble, "evaluation.vote=majority"))
    confidences = [float(row["confidence"]) for row in table("per_image")]
    thirds = [round(3 * confidence, 2) for confidence in confidences]
    assert set(thirds) <= {1.0, 2.0, 3.0}


def test_six_outputs_are_judged_in_four_classes(make_params):
    found = pipeline(make_params("data.merge=[0,1,2,3,4,5]", "evaluation.merge=[0,1,1,2,3,3]"))
    baselines = json.loads(Path("results/validate/baselines.json").read_text())
    assert baselines["classes"] == 6 and baselines["uniform_entropy"] == pytest.approx(1.79176)
    assert found["balanced_accuracy_constant"] == pytest.approx(0.25)
    with pytest.raises(CheckpointError, match=r"with data.merge \[0, 1, 2, 3, 4, 5\], not \[0, 1, 1, 2, 3, 3\]"):
        validate.run(make_params())


def test_templates_of_merged_classes_compete_one_by_one(make_params):
    """With sums of their shares a class that is made of two would win by their number."""
    params = make_params("data.merge=[0,1,2,3,4,5]", "evaluation.merge=[0,1,1,2,3,3]")
    simulate.run(params)
    dataset = open_dataset(params.data)
    test, training = dataset.part("test"), dataset.part("training")
    known = references(training.images, training.labels, 6)
    best = matches(test.images, known, params.evaluation.template_angles).argmax(1)
    found = template_probabilities(dataset, test, params)
    assert found.shape == (len(test.labels), 4)
    assert torch.equal(found.argmax(1), torch.tensor(params.evaluation.merge)[best])


def test_the_shares_that_a_constant_knows_are_of_the_training_part_whatever_the_weights_are_of(make_params):
    params = make_params("legacy.weights_from_all=true")
    pipeline(params)
    dataset = open_dataset(params.data)
    training, every = (rows.labels.bincount(minlength=4) for rows in (dataset.part("training"), dataset.rows))
    classes = json.loads(Path("results/train/classes.json").read_text())
    assert classes["counts"] == training.tolist()
    assert classes["weights"] == pytest.approx((64 / (4 * every)).tolist(), rel=1e-4)
    baselines = json.loads(Path("results/validate/baselines.json").read_text())
    assert baselines["majority_rate"] == pytest.approx(float(training.max() / training.sum()), rel=1e-5)


@pytest.mark.parametrize("architecture", ["causal", "cnn", "lrcn"])
def test_the_early_score_is_that_of_the_lines_seen_until_then(architecture, make_params):
    """Of the network asked with the first eight lines alone, the others being 0; a label stands until the next."""
    found = pipeline(make_params(*choose(architecture)))
    test = open_dataset(make_params().data).part("test")
    model = networks.load(networks.FOLDER, torch.device("cpu"))
    said = model.probabilities(padded(test.images, 8, "zero"), 32, "mean")
    after = {"causal": 7, "cnn": 0, "lrcn": 1}[architecture]  # windows of lrcn end with lines 6, 8, 10, ...
    assert found["balanced_accuracy_early"] == pytest.approx(balanced_accuracy(said[:, after], test.clean_labels), 1e-5)
    assert found["balanced_accuracy"] == pytest.approx(float(table("lines")[-1]["balanced_accuracy"]), 1e-5)


def test_a_watched_scan_of_an_earlier_network_does_not_stay(make_params):
    pipeline(make_params())
    assert Path("results/validate/watched.png").exists()
    pipeline(make_params(*choose("cnn")))
    assert not Path("results/validate/watched.png").exists()


def test_reports_are_not_judged_where_no_file_says_when_the_tip_changed(make_params):
    images, parents = np.random.default_rng(0).normal(size=(60, 16, 24)), np.arange(60)
    np.savez("own.npz", images=images, labels=parents % 3, parent=parents)
    found = pipeline(make_params(*ARCHIVE, "evaluation.change_from=2", "evaluation.hold=1"))
    assert "balanced_accuracy" in found and not [name for name in found if name.startswith("change_")]
    assert table("changes") == [] and not Path("results/validate/watched.png").exists()


def test_lines_that_have_not_been_scanned_do_not_count_where_padding_is_masked(make_params):
    params = make_params(*choose("line_encoder"))
    simulate.run(params)
    train.run(params)
    validate.run(params)
    zeros = table("lines")
    validate.run(make_params(*choose("line_encoder"), "evaluation.padding=tile"))
    assert table("lines") == zeros


def test_the_train_stage_leaves_counts_and_weights_of_its_own_part(make_params):
    params = make_params()
    simulate.run(params)
    train.run(params)
    found = json.loads(Path("results/train/classes.json").read_text())
    manifest = json.loads(Path("data/scanlines/manifest.json").read_text())
    assert sum(found["counts"]) == len(manifest["splits"]["training"])
    for count, weight in zip(found["counts"], found["weights"], strict=True):
        assert weight == pytest.approx(sum(found["counts"]) / (4 * count) if count else 0, abs=1e-5)


def test_a_model_of_other_data_is_refused(make_params):
    pipeline(make_params())
    other = make_params("data.seed=1")
    simulate.run(other)
    with pytest.raises(CheckpointError, match=r"results/train/model: trained on data .* run assay stage scanlines t"):
        validate.run(other)


def test_without_a_model_validate_says_which_stage_to_run(make_params):
    params = make_params()
    simulate.run(params)
    with pytest.raises(CheckpointError, match=r"got no member-\*.safetensors; allowed: a trained model; run the train"):
        validate.run(params)


def test_another_data_set_than_that_of_the_parameters_is_refused(make_params):
    simulate.run(make_params())
    with pytest.raises(DataError, match=r"made with data\.images 64, not 32; run assay stage scanlines simulate again"):
        train.run(make_params("data.images=32"))


def test_an_image_model_without_its_library_is_refused(make_params, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    params = make_params(*NO_TOKENS, *ONE_LABEL, "model.architecture=library", "model.library_name=resnet18")
    simulate.run(params)
    with pytest.raises(ConfigError, match=r"model\.architecture: got library, but timm is not installed; allowed: ano"):
        train.run(params)
