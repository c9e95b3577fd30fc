"""The data set: splits by group, label noise, files of the user, and what is refused."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from tests.studies.scanlines.conftest import ARCHIVE

from assay.errors import DataError
from assay.studies.scanlines.archive import looks_transposed
from assay.studies.scanlines.dataset import noisy_labels, open_dataset, simulate_block, write_dataset
from assay.studies.scanlines.splits import shared_groups, split_digest, split_groups
from assay.studies.scanlines.surface import COUNTS

FOLDER = Path("data/scanlines")


def labelled(count=30, lines=16, points=20):
    """Arrays of a user's file: three classes, ten parents with three images each."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(count, lines, 1)).cumsum(1)
    images = (offsets + 0.1 * rng.normal(size=(count, lines, points))).astype(np.float32)
    return {"images": images, "labels": np.arange(count) // 3 % 3, "parent": np.arange(count) // 3}


def write_archive(**changed):
    np.savez("own.npz", **{**labelled(), **changed})


def test_no_group_is_on_two_sides_and_the_classes_are_spread_evenly():
    rng = np.random.default_rng(1)
    parents = np.repeat(np.arange(300), 4)
    labels = rng.integers(0, 3, 300)[parents]
    splits = split_groups(labels, parents, 0.2, 0.3, seed=5)
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(1200))
    assert shared_groups(splits, parents) == {"training+validation": 0, "training+test": 0, "validation+test": 0}
    shares = [np.bincount(labels[rows], minlength=3) / len(rows) for rows in splits.values()]
    assert np.ptp(shares, axis=0).max() < 0.03
    assert [len(rows) for rows in splits.values()] == pytest.approx([600, 240, 360], abs=12)


def test_a_split_by_image_as_published_leaks_copies(make_params):
    write_dataset(make_params("data.copies=4", "data.split=image").data, FOLDER)
    assert json.loads((FOLDER / "manifest.json").read_text())["groups_in_two_parts"]["training+test"] > 0
    write_dataset(make_params("data.copies=4").data, FOLDER)
    assert json.loads((FOLDER / "manifest.json").read_text())["groups_in_two_parts"]["training+test"] == 0


def test_the_digest_is_of_the_rows(make_params):
    splits = split_groups(np.arange(20) % 2, np.arange(20), 0.2, 0.2, seed=0)
    other = split_groups(np.arange(20) % 2, np.arange(20), 0.2, 0.2, seed=1)
    assert split_digest(splits) == split_digest(dict(splits)) != split_digest(other)


def test_a_part_without_images_is_refused():
    with pytest.raises(DataError, match="split: 2 groups leave the validation part empty; allowed: one image or more"):
        split_groups(np.zeros(2, dtype=int), np.arange(2), 0.1, 0.4, seed=0)


def test_label_noise_is_of_a_parent_and_spares_the_test_part(make_params):
    write_dataset(make_params("data.images=400", "data.copies=2", "data.label_noise=0.5").data, FOLDER)
    dataset = open_dataset(make_params("data.images=400", "data.copies=2", "data.label_noise=0.5").data)
    training, test = dataset.part("training"), dataset.part("test")
    assert torch.equal(test.labels, test.clean_labels)
    wrong = training.labels != training.clean_labels
    assert 0.2 < float(wrong.float().mean()) < 0.45
    for group in training.group[wrong].tolist():
        assert wrong[training.group == group].all()


def test_a_share_of_labels_is_drawn_from_the_priors():
    clean, parents = np.zeros(20000, dtype=np.int64), np.arange(20000)
    noisy = noisy_labels(clean, parents, 0.05, seed=0)
    expected = 0.05 * (1 - COUNTS[0] / sum(COUNTS))
    assert np.mean(noisy != clean) == pytest.approx(expected, abs=0.005)


def test_the_file_says_what_its_axes_are(make_params):
    params = make_params()
    write_dataset(params.data, FOLDER)
    with h5py.File(FOLDER / "scanlines.h5") as file:
        assert file.attrs["axes"] == "image, line (slow, in order of acquisition), point (fast)"
        assert file["images"].shape == (64, 16, 24)
        assert {"group", "switch", "labels"} <= set(file) and {"angle", "blur"} <= set(file["parameters"])
        assert np.array_equal(file["images"][:], simulate_block(params.data, 0)[0].numpy())


def test_labels_are_merged_when_they_are_read(make_params):
    write_dataset(make_params().data, FOLDER)
    six = open_dataset(make_params("data.merge=[0,1,2,3,4,5]", "evaluation.merge=[0,1,2,3,4,5]").data).rows
    four = open_dataset(make_params().data).rows
    assert torch.equal(torch.tensor([0, 1, 1, 2, 3, 3])[six.labels], four.labels)


def test_an_archive_of_the_published_layout_is_read(make_params):
    params = make_params(*ARCHIVE)
    write_archive()
    write_dataset(params.data, FOLDER)
    rows = open_dataset(params.data).rows
    assert torch.equal(rows.images, torch.from_numpy(labelled()["images"]))
    assert rows.labels.tolist() == labelled()["labels"].tolist()
    assert torch.equal(rows.switch, torch.full((30,), 16))


def test_an_archive_whose_lines_are_columns_is_turned(make_params, capsys):
    write_archive(images=labelled()["images"].swapaxes(1, 2))
    turned = make_params(*ARCHIVE, "data.transpose=true")
    write_dataset(turned.data, FOLDER)
    assert torch.equal(open_dataset(turned.data).rows.images, torch.from_numpy(labelled()["images"]))
    assert capsys.readouterr().err == ""


def test_a_square_file_that_looks_transposed_is_remarked_on(make_params, capsys):
    square = labelled(lines=16, points=16)["images"]
    assert looks_transposed(square.swapaxes(1, 2)) and not looks_transposed(square)
    write_archive(images=square.swapaxes(1, 2))
    write_dataset(make_params(*ARCHIVE).data, FOLDER)
    assert "own.npz: heights jump more between columns than between lines" in capsys.readouterr().err


def with_nan():
    images = labelled()["images"].copy()
    images[4, 7, 2] = np.nan
    return images


BAD = {
    "label outside the list": (
        {"labels": np.arange(30) % 4},
        r"own\.npz: label 3 at image 3; allowed: 0 to 2, an e",
    ),
    "negative label": ({"labels": np.arange(30) % 3 - 1}, r"own\.npz: label -1 at image 0; allowed: 0 to 2"),
    "labels that are no numbers": ({"labels": np.full(30, 0.5)}, r"got labels of type float64; allowed: whole numbers"),
    "empty class": (
        {"labels": np.arange(30) % 2},
        r"own\.npz: no image with label 2; allowed: one or more of",
    ),
    "not N lines": (
        {"images": labelled(lines=20, points=16)["images"]},
        r"got images of 20 lines; allowed: data\.lines 16; set data\.transpose to true if its lines are columns",
    ),
    "not images": (
        {"images": np.zeros((30, 4))},
        r"got images \(30, 4\), labels \(30,\), groups \(30,\); allo",
    ),
    "too few labels": ({"labels": np.zeros(3, dtype=int)}, r"got images \(30, 16, 20\), labels \(3,\)"),
    "one-hot labels": ({"labels": np.eye(3, dtype=int)[np.arange(30) % 3]}, r"labels \(30, 3\)"),
    "one label": ({"labels": np.int64(1)}, r"labels \(\), groups \(30,\)"),
    "a column of groups": ({"parent": np.arange(30)[:, None]}, r"groups \(30, 1\)"),
    "a parent that is not known": (
        {"parent": np.where(np.arange(30) == 7, np.nan, np.arange(30.0))},
        r"own\.npz: got no parent scan of image 7 in parent; allowed: one for each",
    ),
    "a parent without a name": ({"parent": np.array(["a", " "] * 15)}, r"got no parent scan of image 1 in parent"),
    "words for images": ({"images": np.full((30, 16, 20), "x")}, r"got images of type <U1; allowed: real numbers"),
    "complex images": ({"images": np.ones((30, 16, 20), complex)}, r"got images of type complex128; allowed: real"),
    "images of one point": ({"images": np.ones((30, 16, 1))}, r"got images of 1 points; allowed: >= 16"),
    "NaN": (
        {"images": with_nan()},
        r"got 1 lines with NaN or infinite values, the first is line 7 of image 4;",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_archive_is_refused_in_words(case, make_params):
    changed, message = BAD[case]
    write_archive(**changed)
    with pytest.raises(DataError, match=message):
        write_dataset(make_params(*ARCHIVE).data, FOLDER)
    assert not FOLDER.exists()


def test_an_archive_without_parents_is_refused(make_params):
    given = labelled()
    np.savez("own.npz", images=given["images"], labels=given["labels"])
    with pytest.raises(DataError, match="got the arrays images, labels; allowed: one named parent; without parent sca"):
        write_dataset(make_params(*ARCHIVE).data, FOLDER)


def test_an_archive_that_is_missing_or_damaged_or_pickled_is_refused(make_params):
    params = make_params(*ARCHIVE)
    with pytest.raises(DataError, match=r"own\.npz: no such file; allowed: an npz file; set data\.file to one"):
        write_dataset(params.data, FOLDER)
    Path("own.npz").write_bytes(b"PK\x03\x04 not a zip file")
    with pytest.raises(DataError, match=r"own\.npz: cannot be read .*; allowed: an npz file without objects"):
        write_dataset(params.data, FOLDER)
    Path("own.npz").write_bytes(b"")
    with pytest.raises(DataError, match=r"own\.npz: cannot be read \(No data left in file\)"):
        write_dataset(params.data, FOLDER)
    with Path("own.npz").open("wb") as file:
        np.save(file, labelled()["images"])
    with pytest.raises(DataError, match=r"own\.npz: cannot be read"):
        write_dataset(params.data, FOLDER)
    write_archive(labels=np.array([None] * 30))
    with pytest.raises(DataError, match=r"own\.npz: cannot be read \(Object arrays cannot be loaded"):
        write_dataset(params.data, FOLDER)


def test_a_data_set_that_was_changed_or_is_not_there_is_refused(make_params):
    data = make_params().data
    with pytest.raises(DataError, match=r"data/scanlines: holds no data set; allowed: the simulate stage's; run it"):
        open_dataset(data)
    write_dataset(data, FOLDER)
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    manifest["splits"]["training"].append(manifest["splits"]["test"].pop())
    (FOLDER / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="its splits have been changed; run assay stage scanlines simulate again"):
        open_dataset(data)
    with (FOLDER / "scanlines.h5").open("ab") as file:
        file.write(b"!")
    with pytest.raises(DataError, match=r"scanlines\.h5: is not what its manifest says; run assay stage scanlines sim"):
        open_dataset(data)
    (FOLDER / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json: is no manifest of this version"):
        open_dataset(data)


def test_nothing_else_is_replaced_by_a_data_set(make_params):
    params = make_params()
    FOLDER.mkdir(parents=True)
    (FOLDER / "thesis.tex").write_text("all of it")
    with pytest.raises(DataError, match="holds other files than a data set; allowed: a new folder; choose another"):
        write_dataset(params.data, FOLDER)
    assert (FOLDER / "thesis.tex").read_text() == "all of it"
