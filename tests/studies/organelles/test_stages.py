"""The stages one after the other at a tiny size: what they write, that it repeats, and what they refuse."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.studies.organelles.conftest import SLOTS

from assay.errors import CheckpointError, ConfigError, DataError
from assay.studies.organelles import networks, predict, simulate, train, validate
from assay.studies.organelles.classes import CLASSES

QUICK = ("unet_2d", "vit_3d")
LONGER = tuple(slot for slot in SLOTS if slot not in QUICK)


def pipeline(params):
    for stage in (simulate, train, validate):
        stage.run(params)
    return json.loads(Path("results/validate/metrics.json").read_text())


def table(name):
    with Path(f"results/validate/{name}.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("slot", [*QUICK, *(pytest.param(slot, marks=pytest.mark.pipeline) for slot in LONGER)])
def test_every_network_goes_through_the_pipeline_and_predicts(slot, make_params):
    params = make_params(*SLOTS[slot], "train.steps=2", "train.accumulate=2", "evaluation.overlap=0")
    found = pipeline(params)
    assert 0 <= found["dice"] <= 1 and 1 <= found["classes"] <= 14
    edges = params.sampling.edges
    np.savez("own.npz", np.random.default_rng(0).integers(0, 255, [max(2, edges[0]), 64, 64], np.uint8))
    predict.run(make_params(*SLOTS[slot], "predict.volume=own.npz", "predict.output=out.npz"))
    with np.load("out.npz") as given:
        assert given["label"].shape == given["probability"].shape[1:] == (max(2, edges[0]), 64, 64)
        assert list(given["classes"]) == list(CLASSES)
        decided = np.where(given["probability"].max(0) > 0.5, given["probability"].argmax(0) + 1, 0)
        assert (decided == given["label"]).mean() > 0.99  # half precision makes ties


def test_the_same_parameters_give_the_same_files(make_params):
    files = []
    for _ in range(2):
        pipeline(make_params())
        content = {path: path.read_bytes() for path in sorted(Path("results/validate").iterdir())}
        files.append(content | {path: path.read_bytes() for path in Path("data/organelles").iterdir()})
    assert files[0] == files[1]


def test_tables_have_every_class_control_and_data_set(make_params):
    found = pipeline(make_params())
    models = {row["model"]: row for row in table("models")}
    assert list(models) == ["network", "untrained", "intensity", "everything", "nothing"]
    assert float(models["network"]["dice"]) == pytest.approx(found["dice"], abs=1e-4)
    assert float(models["nothing"]["dice"]) == 0
    classes = table("classes")
    assert [row["class"] for row in classes] == list(CLASSES)
    scored = [float(row["dice"]) for row in classes if float(row["positive"])]
    assert found["dice"] == pytest.approx(sum(scored) / len(scored), abs=1e-4) and len(scored) == found["classes"]
    for row in classes:
        dice, iou, precision, recall = (float(row[name] or 0) for name in ("dice", "iou", "precision", "recall"))
        if dice > 0:
            assert iou == pytest.approx(dice / (2 - dice), rel=1e-3)
            assert dice == pytest.approx(2 * precision * recall / (precision + recall), rel=1e-3)
    recalls = [float(row["recall"]) for row in classes if float(row["positive"])]
    assert found["recall"] == pytest.approx(sum(recalls) / len(recalls), abs=1e-4)
    assert {row["dataset"] for row in table("datasets")} <= {"simulated-01", "simulated-02"}
    confusion = [[int(row[name]) for name in ("other", *CLASSES)] for row in table("confusion")]
    assert sum(map(sum, confusion)) == 2 * 4 * 64 * 64  # two crops, of which every fourth slice is judged
    assert {path.name for path in Path("results/validate").glob("*.png")} == {
        "examples.png",
        "classes.png",
        "confusion.png",
    }


def test_everything_has_the_dice_of_its_share_of_voxels(make_params):
    pipeline(make_params())
    for row in table("classes"):
        annotated, positive = float(row["annotated"]), float(row["positive"])
        if annotated:
            assert float(row["everything"]) == pytest.approx(2 * positive / (annotated + positive), rel=1e-4)


def test_truth_is_every_label_whatever_training_saw(make_params):
    counts = []
    for annotation in ("masked", "absent", "full"):
        pipeline(make_params(f"data.annotation={annotation}", "train.steps=1"))
        counts.append([(row["annotated"], row["positive"]) for row in table("classes")])
    assert counts[0] == counts[1] == counts[2]
    assert len({annotated for annotated, _ in counts[0]}) == 1


def test_adjusted_logits_are_judged_if_asked_for(make_params):
    raw = pipeline(make_params("train.steps=10"))
    validate.run(make_params("train.steps=10", "evaluation.logits=adjusted"))
    adjusted = json.loads(Path("results/validate/metrics.json").read_text())
    assert (adjusted["dice"], adjusted["dice_other_logits"]) == (raw["dice_other_logits"], raw["dice"])
    assert raw["dice"] != adjusted["dice"]


def watched() -> dict[int, float]:
    """Mean Dice of the validations while training, by step."""
    with Path("results/train/log/live/plots/metrics/validate/dice.tsv").open() as file:
        return {int(row["step"]): float(row["dice"]) for row in csv.DictReader(file, delimiter="\t")}


def test_untrained_weights_are_never_kept(make_params):
    """What predicts nothing has less Dice than an untrained network, which would win."""
    away = ["loss.adjust=none", "loss.tversky=0", "loss.bce=1", "train.optimizer.lr=0.1", "train.validate_every=10"]
    params = make_params(*away, "train.steps=30")
    simulate.run(params)
    train.run(params)
    dice = watched()
    assert list(dice) == [0, 10, 20, 30] and max(dice, key=lambda step: dice[step]) == 0
    budget = json.loads(Path("results/train/metrics.json").read_text())
    best = max((10, 20, 30), key=lambda step: dice[step])
    assert (budget["best_step"], budget["validation_dice"]) == (best, pytest.approx(dice[best]))


def test_the_best_validation_is_kept(make_params):
    params = make_params("train.steps=30", "train.validate_every=5", "train.optimizer.lr=0.02")
    simulate.run(params)
    train.run(params)
    dice = watched()
    budget = json.loads(Path("results/train/metrics.json").read_text())
    assert budget["best_step"] == max(dice, key=lambda step: dice[step]) > 0
    assert budget["validation_dice"] == pytest.approx(max(dice.values()))


def test_the_train_stage_leaves_the_prior_of_its_own_crops(make_params):
    params = make_params()
    simulate.run(params)
    train.run(params)
    with Path("results/train/classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CLASSES)
    logs = [math.log(float(row["frequency"])) for row in rows]
    for row, log in zip(rows, logs, strict=True):
        assert float(row["adjustment"]) == pytest.approx(log - sum(logs) / 14, abs=1e-3)
        positive, annotated = max(float(row["voxels"]), 1), float(row["annotated_voxels"])
        assert not annotated or float(row["frequency"]) == pytest.approx(positive / annotated, rel=1e-3)
    budget = json.loads(Path("results/train/metrics.json").read_text())
    assert budget["voxels"] == 6 * 2 * 32 * 32


def segmented(make_params, volume, *overrides):
    np.savez("own.npz", volume)
    predict.run(make_params("predict.volume=own.npz", "predict.output=out.npz", *overrides))
    with np.load("out.npz") as given:
        return given["label"], given["probability"]


@pytest.mark.parametrize("scale", [(4, 4, 4), (8, 4, 2)])
def test_a_volume_of_another_scale_gets_its_labels_at_the_same_places(scale, make_params):
    """Of voxels that are each cut into several of the same grey value."""
    pipeline(make_params("train.steps=20", "loss.adjust=none"))
    coarse = np.random.default_rng(0).integers(0, 255, [3, 40, 48], np.uint8)

    def fine(values):
        for axis, edge in zip((-3, -2, -1), scale, strict=True):
            values = values.repeat(8 // edge, axis)
        return values

    label, probability = segmented(make_params, coarse)
    assert len(np.unique(label)) > 1
    other, others = segmented(make_params, fine(coarse), f"predict.voxel_nm={list(scale)}")
    assert (other == fine(label)).all() and (others == fine(probability)).all()


def test_a_volume_gets_the_labels_by_which_its_network_was_trained_to_decide(make_params):
    for kind, sign in (("raw", 0), ("adjusted", 1)):
        whole = ["sampling.patch=[64,64]", "train.steps=8", "evaluation.overlap=0"]
        pipeline(make_params(*whole, f"evaluation.logits={kind}"))
        image = np.random.default_rng(0).integers(0, 255, [5, 64, 64], np.uint8)
        label, probability = segmented(make_params, image, *whole)
        module = networks.load(networks.FOLDER, torch.device("cpu")).module
        with torch.no_grad():
            logits = module.network(torch.from_numpy(image)[:, None] / 255)
        logits = logits + sign * module.objective.tversky.adjustment.view(-1, 1, 1)
        best, place = logits.max(1)
        assert (label == torch.where(best > 0, place + 1, 0).numpy()).mean() > 0.999
        assert np.allclose(probability, logits.sigmoid().transpose(0, 1).numpy(), atol=1e-3)


BAD_VOLUMES = {
    "float": (np.linspace(0, 1, 16 * 64 * 64).reshape(16, 64, 64), r"own\.npz: got float64 of 16 x 64 x 64; allowed"),
    "constant": (np.full((16, 64, 64), 7, np.uint8), r"own\.npz: is constant; allowed: an image"),
    "small": (np.arange(16 * 64 * 16, dtype=np.uint8).reshape(16, 64, 16), r"own\.npz: got 16 x 64 x 16 voxels at"),
    "slice": (np.arange(64 * 64, dtype=np.uint8).reshape(64, 64), r"own\.npz: got uint8 of 64 x 64; allowed: uint8"),
}  # fmt: skip


@pytest.fixture
def trained(make_params):
    params = make_params()
    simulate.run(params)
    train.run(params)
    return make_params


@pytest.mark.parametrize("case", BAD_VOLUMES)
def test_a_volume_that_cannot_be_segmented_is_refused(case, trained):
    volume, message = BAD_VOLUMES[case]
    np.savez("own.npz", volume)
    with pytest.raises(DataError, match=message):
        predict.run(trained("predict.volume=own.npz"))


def test_predict_says_what_it_needs(trained):
    with pytest.raises(
        ConfigError, match=r"predict\.volume: got null; allowed: a zarr array or an npz file; give --pr"
    ):
        predict.run(trained())
    with pytest.raises(DataError, match=r"none\.npz: no such file; allowed: a zarr array or an npz file"):
        predict.run(trained("predict.volume=none.npz"))
    np.savez("own.npz", one=np.zeros(3), two=np.zeros(3))
    with pytest.raises(DataError, match=r"own\.npz: has several arrays and none called image"):
        predict.run(trained("predict.volume=own.npz"))
    np.savez("own.npz")
    with pytest.raises(DataError, match=r"own\.npz: has no array; allowed: an npz file with a volume"):
        predict.run(trained("predict.volume=own.npz"))
    for content in (b"", b"\x93NUMPY\x01\x00v\x00{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }"):
        Path("empty.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"empty\.npz: is no npz file of numbers"):
            predict.run(trained("predict.volume=empty.npz"))
    Path("multiscale").mkdir()
    with pytest.raises(DataError, match=r"multiscale: cannot be read .*; allowed: the folder of one array, such as s0"):
        predict.run(trained("predict.volume=multiscale"))
    Path("text.npz").write_text("no archive")
    with pytest.raises(DataError, match=r"text\.npz: is no npz file of numbers"):
        predict.run(trained("predict.volume=text.npz"))


def test_a_model_of_other_crops_is_refused(trained):
    other = trained("data.seed=1")
    simulate.run(other)
    with pytest.raises(
        CheckpointError, match=r"results/train/model: trained on data .* run assay stage organelles tra"
    ):
        validate.run(other)


def test_without_a_model_validate_says_which_stage_to_run(make_params):
    params = make_params()
    simulate.run(params)
    with pytest.raises(CheckpointError, match=r"got no model\.safetensors; allowed: a trained model; run the train"):
        validate.run(params)


def test_other_crops_than_those_of_the_parameters_are_refused(make_params):
    simulate.run(make_params())
    with pytest.raises(DataError, match=r"made with data\.volumes 6, not 8; run assay stage organelles simulate again"):
        train.run(make_params("data.volumes=8"))
