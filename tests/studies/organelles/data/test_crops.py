"""The kept crops: what is written comes back, views of annotation, digests, and what is refused."""

import json

import numpy as np
import pytest
from tests.studies.organelles.data.conftest import flags, keep, new_crop

from assay.errors import DataError
from assay.studies.organelles.cache import Crops
from assay.studies.organelles.cache_files import IMAGES, LABELS, MANIFEST, new_crops
from assay.studies.organelles.classes import CLASSES, OUTSIDE


def test_what_is_written_comes_back(make_crops):
    given = [new_crop("a/crop1"), new_crop("b/crop2", (4, 9, 7), seed=1, box=((1, 3), (2, 9), (0, 5)))]
    crops = make_crops(*given)
    assert (crops.names, crops.datasets) == (["a/crop1", "b/crop2"], ["a", "b"])
    for crop, there in zip(crops, given, strict=True):
        assert (crop.image == there.image).all() and (crop.label == there.label).all()
        assert (crop.annotated == there.annotated).all()
        assert (crop.known, crop.voxel_nm) == (there.box, there.voxel_nm)
    assert crops[1].box == ((1, 3), (2, 9), (0, 5))
    assert crops[0].box == ((0, 6), (0, 20), (0, 24))


def test_the_digest_is_of_voxels_and_annotation(tmp_path):
    def digest(crop):
        return Crops.open(keep(tmp_path / "crops", crop)).digest

    first = digest(new_crop())
    assert digest(new_crop()) == first
    assert digest(new_crop(seed=1)) != first
    assert digest(new_crop(annotated=flags("pm"))) != first


def test_a_view_hides_what_was_not_annotated(make_crops):
    crop = new_crop(annotated=flags("pm", "nuc"))
    masked = make_crops(crop)
    pm = CLASSES.index("pm") + 1
    _, label, _ = masked[0].cut((0, 0, 0), crop.image.shape)
    assert set(np.unique(label)) == {0, pm, len(CLASSES)}
    assert ((label == pm) == (crop.label == pm)).all()
    absent = masked.seen_as("absent")
    assert absent[0].annotated.all()
    assert (absent[0].cut((0, 0, 0), crop.image.shape)[1] == label).all()
    full = masked.seen_as("full")
    assert full[0].annotated.all()
    assert (full[0].cut((0, 0, 0), crop.image.shape)[1] == crop.label).all()


def test_a_full_view_of_labels_that_nobody_knows_is_refused(make_crops):
    crops = make_crops(new_crop("hela/crop3", annotated=flags("pm"), labelled=flags("pm")))
    with pytest.raises(DataError, match=r"got crop hela/crop3 without labels of ecs, .*annotation full: labels of eve"):
        crops.seen_as("full")


def test_frequencies_count_what_a_view_shows(make_crops):
    crop = new_crop(annotated=flags("pm"), box=((0, 3), (0, 20), (0, 24)))
    crop.label[0, 0, :5] = OUTSIDE
    crops = make_crops(crop, new_crop("a/crop2", seed=3))
    inside = crop.label[:3]
    pm, nuc = CLASSES.index("pm"), CLASSES.index("nuc")
    masked = crops.frequencies([0])
    assert int(masked.positive[pm]) == (inside == pm + 1).sum()
    assert int(masked.annotated[pm]) == inside.size - 5
    assert (int(masked.positive[nuc]), int(masked.annotated[nuc]), int(masked.crops[nuc])) == (0, 0, 0)
    absent = crops.seen_as("absent").frequencies([0])
    assert (int(absent.positive[nuc]), int(absent.annotated[nuc])) == (0, inside.size - 5)
    full = crops.seen_as("full").frequencies([0, 1])
    assert int(full.positive[nuc]) == (inside == nuc + 1).sum() + (crops[1].label == nuc + 1).sum()
    assert int(full.annotated_crops[nuc]) == 2


@pytest.mark.parametrize(
    ("start", "edges"),
    [((0, 0, 0), (6, 20, 24)), ((-2, 5, -3), (4, 30, 8)), ((5, 19, 23), (3, 3, 3)), ((9, 0, 0), (2, 2, 2))],
)
def test_a_patch_that_leaves_the_crop_is_0_there_and_not_inside(start, edges, make_crops):
    crop = new_crop(box=((1, 5), (2, 18), (0, 24)))
    image, label, inside = make_crops(crop)[0].cut(start, edges)
    padded = [np.pad(each, 40) for each in (crop.image, crop.label)]
    known = np.zeros((86, 100, 104), bool)
    known[41:45, 42:58, 40:64] = True
    sides = tuple(slice(40 + first, 40 + first + edge) for first, edge in zip(start, edges, strict=True))
    assert (image == padded[0][sides]).all() and (label == padded[1][sides]).all()
    assert (inside == known[sides]).all()


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_truncated_file_is_refused(name, tmp_path):
    folder = keep(tmp_path / "crops", new_crop())
    path = folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"{name}: got 2879 bytes; allowed: 2880.*simulate again"):
        Crops.open(folder)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_an_altered_voxel_is_refused_by_the_name_of_its_crop(name, tmp_path):
    folder = keep(tmp_path / "crops", new_crop("a/crop1"), new_crop("b/crop2", seed=1))
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{name}: crop b/crop2 is not what its manifest says"):
        Crops.open(folder)
    Crops.open(folder, check=False)


def test_an_altered_or_missing_manifest_is_refused(tmp_path):
    folder = keep(tmp_path / "crops", new_crop())
    document = json.loads((folder / MANIFEST).read_text())
    document["crops"][0]["annotated"].remove("nuc")
    (folder / MANIFEST).write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"manifest.json: has been altered; run assay stage organelles simulate again"):
        Crops.open(folder)
    (folder / MANIFEST).write_text("{")
    with pytest.raises(DataError, match=r"manifest.json: not valid JSON"):
        Crops.open(folder)
    (folder / MANIFEST).write_text("[]")
    with pytest.raises(DataError, match=r"is no manifest of version 1"):
        Crops.open(folder)
    (folder / MANIFEST).unlink()
    with pytest.raises(DataError, match=r"crops: holds no crops; allowed: the simulate stage's; run it"):
        Crops.open(folder)


def test_a_missing_file_is_refused(tmp_path):
    folder = keep(tmp_path / "crops", new_crop())
    (folder / LABELS).unlink()
    with pytest.raises(DataError, match=r"labels.bin: no such file; run assay stage"):
        Crops.open(folder)


def test_a_label_outside_of_the_class_table_is_refused(tmp_path):
    crop = new_crop("hela/crop9")
    crop.label[0, 0, 0] = 15
    with pytest.raises(DataError, match=r"crop hela/crop9: got label 15; allowed: 0 to 14, or 255 for unknown"):
        keep(tmp_path / "crops", crop)
    assert not (tmp_path / "crops").exists()


def test_an_image_and_labels_of_different_shapes_are_refused(tmp_path):
    crop = new_crop("hela/crop9")
    with pytest.raises(DataError, match=r"crop hela/crop9: got an image of \(6, 20, 24\) and labels of \(5, 20, 24\)"):
        keep(tmp_path / "crops", crop._replace(label=crop.label[1:]))


def test_what_stood_there_stays_if_writing_fails(tmp_path):
    folder = keep(tmp_path / "crops", new_crop())
    before = (folder / MANIFEST).read_bytes()
    with pytest.raises(KeyboardInterrupt), new_crops(folder, {}) as writer:
        writer.add(new_crop(seed=1))
        raise KeyboardInterrupt
    assert (folder / MANIFEST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["crops"]
    keep(folder, new_crop(seed=2))
    assert (folder / MANIFEST).read_bytes() != before


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    (tmp_path / "crops").mkdir()
    (tmp_path / "crops/thesis.tex").write_text("")
    with pytest.raises(DataError, match=r"crops: holds other files than crops; allowed: a new folder"):
        keep(tmp_path / "crops", new_crop())


def test_no_crop_at_all_is_refused_with_the_reasons(tmp_path):
    with (
        pytest.raises(DataError, match=r"crops: got none that can be kept \(a/crop1: no image\); allowed: one or more"),
        new_crops(tmp_path / "crops", {}) as writer,
    ):
        writer.skip("a/crop1", "no image")


def test_a_full_disk_is_told_in_words(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("assay.studies.organelles.cache_files.CropWriter.add", full)
    with pytest.raises(DataError, match=r"crops: cannot be written .*No space left on device.*make room"):
        keep(tmp_path / "crops", new_crop())
