"""BIDS ASL images, and M0 among them, that are refused: damaged, of another kind, on another grid, or not there."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from assay.errors import DataError
from assay.studies.asl.bids import read_asl


def test_missing_m0_scan_is_refused(bids_dataset):
    perf = bids_dataset().write()
    (perf / "sub-01_m0scan.nii.gz").unlink()
    with pytest.raises(DataError, match=r"M0Type is Separate but 0 m0scan images fit.*add sub-01_m0scan.nii.gz"):
        read_asl(perf)


def test_two_m0_scans_for_one_image_are_refused(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    dataset.write_image(perf / "sub-01_dir-pa_m0scan.nii.gz", dataset.m0_map)
    (perf / "sub-01_m0scan.json").unlink()
    with pytest.raises(DataError, match="2 m0scan images fit"):
        read_asl(perf)


def test_m0_scan_of_another_image_is_not_used(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    dataset.edit(perf / "sub-01_m0scan.json", IntendedFor="perf/sub-01_run-9_asl.nii.gz")
    with pytest.raises(DataError, match="0 m0scan images fit"):
        read_asl(perf)


def test_m0_without_signal_is_refused(bids_dataset):
    dataset = bids_dataset(m0_map=np.zeros((6, 5, 4)))
    dataset.write()
    with pytest.raises(DataError, match="M0 has no voxel above 0; allowed: a magnitude image"):
        read_asl(dataset.root)


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((5, 5, 4), np.eye(4), "grid is 5x5x4; allowed: 6x5x4 as sub-01_asl.nii.gz; resample"),
        ((6, 5, 4), np.eye(4), "grid is another position in space; allowed: the affine of sub-01_asl.nii.gz"),
    ],
)
def test_m0_on_another_grid_is_refused(bids_dataset, shape, affine, message):
    dataset = bids_dataset()
    perf = dataset.write()
    dataset.write_image(perf / "sub-01_m0scan.nii.gz", np.ones(shape), affine)
    with pytest.raises(DataError, match=message):
        read_asl(perf)


def test_voxels_that_are_no_numbers_are_refused(bids_dataset):
    dataset = bids_dataset()
    dataset.m0_map[2, 2, 2] = np.nan
    dataset.write()
    with pytest.raises(DataError, match="voxels are NaN or infinite; allowed: finite numbers; set them to 0"):
        read_asl(dataset.root)


def overwrite(path: Path, place: int, content: bytes) -> None:
    """Replace bytes of a compressed image, from its end if `place` is negative; the checksum is made anew."""
    image = bytearray(gzip.decompress(path.read_bytes()))
    first = place % len(image)
    image[first : first + len(content)] = content
    path.write_bytes(gzip.compress(bytes(image)))


def test_truncated_image_is_refused(bids_dataset):
    perf = bids_dataset().write()
    path = perf / "sub-01_asl.nii.gz"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"sub-01_asl\.nii\.gz: cannot be read .*; allowed: NIfTI; fetch the file"):
        read_asl(perf)


def test_a_bit_that_has_flipped_is_refused_by_the_checksum(bids_dataset):
    perf = bids_dataset().write()
    path = perf / "sub-01_asl.nii.gz"
    whole = path.read_bytes()
    overwrite(path, -4, b"abcd")
    path.write_bytes(path.read_bytes()[:-8] + whole[-8:])
    with pytest.raises(DataError, match=r"sub-01_asl\.nii\.gz: cannot be read \(CRC check failed.*fetch the file"):
        read_asl(perf)


def test_a_header_without_a_known_data_type_is_refused(bids_dataset):
    perf = bids_dataset().write()
    overwrite(perf / "sub-01_asl.nii.gz", 70, b"\0\0")
    with pytest.raises(DataError, match=r"sub-01_asl\.nii\.gz: cannot be read \(data code 0"):
        read_asl(perf)


def test_header_that_promises_more_than_the_file_can_hold_is_refused(bids_dataset):
    perf = bids_dataset().write()
    overwrite(perf / "sub-01_asl.nii.gz", 42, np.array([30000, 30000, 30000], dtype="<i2").tobytes())
    with pytest.raises(DataError, match=r"too short for dimensions \(30000, 30000, 30000, 6\)"):
        read_asl(perf)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.ones((2, 2), np.float32), r"dimensions are \(2, 2\); allowed: three, or four with volumes"),
        (np.ones((2, 2, 2, 1, 2), np.float32), r"dimensions are \(2, 2, 2, 1, 2\)"),
        (np.ones((2, 2, 2, 2), np.complex64), "data type is complex64; allowed: integer or real"),
    ],
)
def test_image_of_another_kind_is_refused(bids_dataset, data, message):
    perf = bids_dataset().write()
    nib.save(nib.Nifti1Image(data, np.eye(4)), perf / "sub-01_asl.nii.gz")
    with pytest.raises(DataError, match=message):
        read_asl(perf)


def test_file_that_is_no_image_is_refused(bids_dataset):
    perf = bids_dataset().write()
    (perf / "sub-01_asl.nii.gz").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"sub-01_asl\.nii\.gz: cannot be read"):
        read_asl(perf)


def test_image_format_other_than_nifti_is_refused(bids_dataset, monkeypatch):
    perf = bids_dataset().write()
    monkeypatch.setattr(nib, "load", lambda path: nib.AnalyzeImage(np.ones((2, 2, 2), np.int16), np.eye(4)))
    with pytest.raises(DataError, match="is AnalyzeImage; allowed: NIfTI; convert the image"):
        read_asl(perf)
