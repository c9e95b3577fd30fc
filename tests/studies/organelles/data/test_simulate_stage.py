"""The simulate stage: simulated crops and the challenge's, and parameters that are refused."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.studies.organelles.data.conftest import Store, noise, ones

from assay.config import config_digest
from assay.config.fields import leaves
from assay.errors import ConfigError, DataError, Unfinished
from assay.studies.organelles import simulate, train, validate
from assay.studies.organelles.cache import Crops, open_crops
from assay.studies.organelles.cache_files import MANIFEST, SPLIT
from assay.studies.organelles.config import CROPS, STAGES
from assay.studies.organelles.reader import read_crop
from assay.studies.organelles.splits import read_split
from assay.studies.organelles.zarr_layout import find_crops

FOLDER = Path("data/organelles")
CHALLENGE = [
    "data.source=challenge",
    "data.zarr=challenge",
    *(f"data.{key}=null" for key in ("volumes", "datasets", "shape", "fully_annotated")),
    "data.context=[0,0,0]",
    "data.faulty=refuse",
]


def contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in FOLDER.iterdir()}


def test_the_same_parameters_give_the_same_bytes(make_params):
    simulate.run(make_params())
    first = contents()
    simulate.run(make_params())
    assert contents() == first
    simulate.run(make_params("data.seed=1"))
    assert contents() != first


def test_the_number_of_threads_changes_no_bit(make_params):
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 3):
            torch.set_num_threads(count)
            simulate.run(make_params())
            found.append(contents())
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert found[0] == found[1]


def test_crops_and_split_are_those_of_the_parameters(make_params):
    params = make_params("data.annotation=full")
    simulate.run(params)
    crops = open_crops(params.data)
    assert len(crops) == 6 and set(crops.datasets) == {"simulated-01", "simulated-02"}
    assert crops.view == "full" and all(crop.annotated.all() for crop in crops)
    assert crops[0].image.shape == (16, 64, 64)
    split = read_split(FOLDER, crops.names)
    assert len(split.validation) == 2 and len(split.train) == 4
    masked = open_crops(params.data, "masked")
    assert not all(crop.annotated.all() for crop in masked)


def test_views_and_paths_share_the_crops_and_other_parameters_are_refused(make_params):
    simulate.run(make_params())
    for view in ("masked", "absent", "full"):
        assert open_crops(make_params(f"data.annotation={view}").data).view == view
    with pytest.raises(DataError, match=r"data/organelles: made with data.seed 2029, not 4; run assay stage"):
        open_crops(make_params("data.seed=4").data)


def test_what_is_written_as_zarr_is_what_is_kept(make_params):
    params = make_params("data.zarr=store")
    simulate.run(params)
    kept = Crops.open(FOLDER)
    places = find_crops(Path("store"))
    assert sorted(place.name for place in places) == sorted(kept.names)
    for place in places:
        there, here = read_crop(place, (8.0, 8.0, 8.0), (0, 0, 0)), kept[kept.names.index(place.name)]
        assert (there.image == here.image).all()
        assert (there.label == here.shown[here.label]).all()
        assert (there.annotated == here.annotated).all()
    simulate.run(params)
    (Path("store") / "thesis.tex").write_text("")
    match = r"store: holds other files than simulated data sets; allowed: a new folder; set data.zarr to another folder"
    with pytest.raises(DataError, match=match):
        simulate.run(params)
    assert (Path("store") / "thesis.tex").exists()


def test_crops_of_the_challenge_are_read_and_faulty_ones_refused_or_left_out(make_params):
    for number in range(1, 5):
        store = Store(Path("challenge"), f"set-{number}", number)
        store.image(noise(8, 20, 20, seed=number)).label("pm", ones(8, 20, 20, last=3))
    Store(Path("challenge"), "blank", 9).image(np.zeros((8, 20, 20), np.uint8)).label("pm", ones(8, 20, 20))
    Store(Path("challenge"), "wide", 8).image(noise(8, 20, 40)).label("pm", ones(8, 20, 40))
    with pytest.raises(DataError, match=r"crop blank/crop9: got an image that is 0 everywhere"):
        simulate.run(make_params(*CHALLENGE))
    assert not FOLDER.exists()
    simulate.run(make_params(*CHALLENGE, "data.faulty=skip", "data.largest=4000"))
    crops = Crops.open(FOLDER)
    assert crops.names == [f"set-{number}/crop{number}" for number in range(1, 5)]
    assert [each["name"] for each in crops.skipped] == ["blank/crop9", "wide/crop8"]
    assert "everywhere in the label box" in crops.skipped[0]["reason"]
    assert crops.skipped[1]["reason"] == "6400 voxels, more than data.largest 4000"
    assert len(read_split(FOLDER, crops.names).validation) == 1


def test_a_chunk_that_was_not_fetched_whole_is_a_fault_of_its_crop(make_params):
    for number in range(1, 4):
        store = Store(Path("challenge"), f"set-{number}", number)
        store.image(noise(8, 20, 20, seed=number)).label("pm", ones(8, 20, 20, last=3))
    chunks = Path("challenge/set-2").glob("**/em/fibsem-uint8/s0/**/*")
    torn = next(path for path in chunks if path.is_file() and not path.name.startswith("."))
    torn.write_bytes(torn.read_bytes()[:5])
    with pytest.raises(DataError, match=r"set-2/.*crop2: cannot be read \(.*\); fetch the crop again"):
        simulate.run(make_params(*CHALLENGE))
    simulate.run(make_params(*CHALLENGE, "data.faulty=skip"))
    assert Crops.open(FOLDER).names == ["set-1/crop1", "set-3/crop3"]


def test_crops_of_the_challenge_come_to_another_scale(make_params):
    for number in (1, 2):
        Store(Path("challenge"), "a", number).label("pm", ones(8, 40, 40, last=4))
    Store(Path("challenge"), "a").image(noise(8, 40, 40))
    simulate.run(make_params(*CHALLENGE, "data.voxel_nm=[16,16,16]"))
    crops = Crops.open(FOLDER)
    assert [crop.image.shape for crop in crops] == [(4, 20, 20)] * 2
    assert crops[0].voxel_nm == (16.0, 16.0, 16.0)


def test_a_request_to_stop_leaves_what_stood_there(make_params, monkeypatch):
    simulate.run(make_params("data.zarr=store"))
    before, exported = contents(), sorted(Path("store").rglob("*"))
    made = simulate.simulate_crop

    def interrupted(seed, number, *rest):
        if number == 2:
            signal.raise_signal(signal.SIGTERM)
        return made(seed, number, *rest)

    monkeypatch.setattr(simulate, "simulate_crop", interrupted)
    with pytest.raises(Unfinished, match=r"simulate: stopped at [1-5] of 6 crops"):  # others are being made beside it
        simulate.run(make_params("data.seed=5", "data.zarr=store"))
    assert contents() == before and sorted(Path("store").rglob("*")) == exported


def test_a_split_that_cannot_be_made_leaves_what_stood_there(make_params):
    simulate.run(make_params())
    before = contents()
    wrong = ["data.split=dataset", "data.validation_fraction=null", "data.held_out=[mouse]"]
    with pytest.raises(DataError, match=r"data.held_out: got mouse; allowed: simulated-01, simulated-02"):
        simulate.run(make_params(*wrong))
    assert contents() == before


OTHER_SPLITS = {
    "split": (["data.split=dataset"], "crop, not dataset"),
    "validation_fraction": (["data.validation_fraction=0.5"], "0.34, not 0.5"),
}


@pytest.mark.parametrize("key", OTHER_SPLITS)
def test_a_split_of_other_parameters_is_refused(key, make_params):
    """The crops are the same, so that nothing else would tell."""
    simulate.run(make_params())
    overrides, words = OTHER_SPLITS[key]
    for stage in (train, validate):
        if stage is validate:
            train.run(make_params("train.steps=1"))
        match = rf"split.json: made with data.{key} {words}; run assay stage organelles simulate again"
        with pytest.raises(DataError, match=match):
            stage.run(make_params("train.steps=1", *overrides))


def test_what_training_sees_of_the_crops_is_no_key_of_theirs(make_params):
    """Neither view nor export makes them again, and an export trains no network again."""
    params = make_params()
    for stage, key, changed in (
        ("simulate", "data.annotation", "absent"),
        ("validate", "data.annotation", "absent"),
        ("train", "data.zarr", "store"),
        ("validate", "data.zarr", "store"),
    ):
        other = make_params(f"{key}={changed}")
        assert config_digest(other, STAGES[stage]) == config_digest(params, STAGES[stage]), (stage, key)
    for stage, key, changed in (("train", "data.annotation", "absent"), ("simulate", "data.zarr", "store")):
        other = make_params(f"{key}={changed}")
        assert config_digest(other, STAGES[stage]) != config_digest(params, STAGES[stage]), (stage, key)
    every = {key for key in leaf_names(params) if key.startswith("data.")}
    assert every == set(CROPS) | {"data.annotation", "data.zarr"}


def leaf_names(params):
    return {name for name, _, _ in leaves(params)}


def test_the_manifest_names_parameters_annotation_and_counts(make_params):
    simulate.run(make_params())
    document = json.loads((FOLDER / MANIFEST).read_text())
    assert document["parameters"]["seed"] == 2029 and "path" not in document["parameters"]
    entry = document["crops"][0]
    assert set(entry["annotated"]) <= set(entry["labelled"]) and len(entry["labelled"]) == 14
    assert entry["known_voxels"] == 16 * 64 * 64
    assert (FOLDER / SPLIT).is_file()


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (["data.source=challenge"], r"data.context: got null; allowed: a value with source challenge"),
        ([*CHALLENGE, "data.volumes=3"], r"data.volumes: got 3; allowed: null with source challenge"),
        ([*CHALLENGE, "data.zarr=null"], r"data.zarr: got null; allowed: a folder with source challenge"),
        ([*CHALLENGE, "data.annotation=full"], r"data.annotation: got full; allowed: masked or absent with source"),
        (["data.held_out=[simulated-01]"], r"data.held_out: got simulated-01; allowed: null with split crop"),
        (["data.validation_fraction=null"], r"data.validation_fraction: got null; allowed: a number, or null where"),
        (["data.split=dataset", "data.datasets=1"], r"data.split: got dataset; allowed: crop with datasets 1"),
        (["data.voxel_nm=[8,8,0]"], r"data.voxel_nm"),
        (["sampling.patch=[8]"], r"sampling.patch: got \[8\]; allowed: a list of 2 or more whole numbers >= 4"),
        (["sampling.patch=[8,8,8,8]"], r"sampling.patch: got \[8, 8, 8, 8\]; allowed: two edges \(y, x\) or three"),
        (["loss.tversky=0"], r"loss.tversky: got 0; allowed: one of tversky, bce, focal, marginal, exclusion above 0"),
        (["loss.alpha=[1,2]"], r"loss.alpha: got 2 numbers; allowed: 1 or 14 numbers; in the order ecs, pm,"),
        (["loss.alpha=[0]", "loss.beta=[0]"], r"loss.beta: got 0; allowed: above 0 where alpha is 0"),
        (["loss.prior=running"], r"loss.prior_momentum: got null; allowed: a value with these settings"),
        (["loss.seesaw=[0.8,2]"], r"loss.seesaw: got .*; allowed: null with these settings; it would not be read"),
        (
            ["loss.adjust=none", "loss.prior=running", "loss.prior_momentum=0.9", "loss.prior_every=1"],
            r"loss.prior: got running; allowed: fixed with adjust none; it would not be read",
        ),
        (
            ["loss.adjust=none", "loss.tversky=0", "loss.marginal=1", "loss.class_weights=inverse"],
            r"loss.class_weights: got inverse; allowed: none with tversky, bce and focal 0; the other terms have none",
        ),
        (
            ["loss.tversky=0", "loss.bce=1", "loss.class_weights=seesaw", "loss.seesaw=[0.8,2]"],
            r"loss.class_weights: got seesaw; allowed: others with tversky 0; only that term has its compensation",
        ),
        (
            ["loss.as_published=true", "loss.bce=0.5"],
            r"loss.bce: got 0.5; allowed: 0.0 with as_published true; or set that to false",
        ),
        (["loss.as_published=true"], r"loss.adjust: got add; allowed: subtract with as_published true"),
        (["loss.marginal=1"], r"loss.adjust: got add; allowed: none with marginal above 0"),
        (["loss.class_weights=manual", "loss.manual_weights=[1]"], r"loss.manual_weights: got 1 numbers; allowed: 14"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(overrides, match, make_params):
    with pytest.raises(ConfigError, match=match):
        make_params(*overrides)


def test_simulated_crops_have_voxels_of_8_nm(make_params):
    with pytest.raises(ConfigError, match=r"data.voxel_nm: got \[4.0, 4.0, 4.0\]; allowed: \[8.0, 8.0, 8.0\] with sou"):
        make_params("data.voxel_nm=[4,4,4]")
