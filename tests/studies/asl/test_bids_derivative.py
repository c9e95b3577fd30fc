"""BIDS derivatives: names, sidecars, place in space, and that a file is complete, repeatable or absent."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from assay.errors import DataError
from assay.studies.asl.bids import Provenance, read_asl, write_derivative

PROVENANCE = Provenance(
    version="0.1.0", model_name="homogeneous", model_digest="sha256:abc", physics={"t1_artery": 1850.0}
)


def only(folder, **options):
    (series,) = read_asl(folder, **options)
    return series


@pytest.fixture
def joint(bids_dataset):
    dataset = bids_dataset()
    dataset.write_joint(folder="sub-01/ses-1/perf", subject="sub-01_ses-1")
    dataset.m0_map[0, 0, 0] = 0
    return dataset, only(dataset.root)


def written(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_derivative_is_a_bids_data_set_with_maps_sidecars_and_sources(joint, tmp_path):
    dataset, series = joint
    out = tmp_path / "derivatives" / "assay"
    images = write_derivative(series, dataset.cbf, dataset.att, out=out, provenance=PROVENANCE)
    perf = out / "sub-01" / "ses-1" / "perf"
    assert images == tuple(
        perf / f"sub-01_ses-1_desc-{name}.nii.gz" for name in ("assay_cbf", "assay_att", "brain_mask")
    )
    description = json.loads((out / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"] == [{"Name": "assay", "Version": "0.1.0"}]
    assert description["DatasetLinks"]["raw"] == "../../raw"
    cbf = json.loads((perf / "sub-01_ses-1_desc-assay_cbf.json").read_text())
    att = json.loads((perf / "sub-01_ses-1_desc-assay_att.json").read_text())
    assert (cbf["Units"], att["Units"]) == ("mL/100 g/min", "ms")
    assert (cbf["ModelName"], cbf["ModelDigest"]) == ("homogeneous", "sha256:abc")
    assert cbf["Physics"] == {"t1_artery": 1850.0}
    assert cbf["PostLabelingDelay"] == [0.5, 1.5, 2.5]
    assert "bids:raw:sub-01/ses-1/perf/sub-01_ses-1_acq-vsasl_asl.nii.gz" in cbf["Sources"]
    assert set(cbf["SourceSHA256"]) == set(cbf["Sources"])


def test_maps_keep_their_place_in_space_and_are_zero_outside_the_mask(bids_dataset, tmp_path):
    dataset = bids_dataset()
    dataset.m0_map[0] = 0
    perf = dataset.write()
    source = nib.load(perf / "sub-01_asl.nii.gz")
    source.set_sform(source.affine, code="scanner")
    source.set_qform(source.affine, code="scanner")
    (perf / "sub-01_asl.nii.gz").write_bytes(gzip.compress(source.to_bytes()))
    series = only(dataset.root)
    predicted = np.where(series.mask, dataset.cbf, np.nan)
    cbf_path, *_ = write_derivative(series, predicted, dataset.att, out=tmp_path / "out", provenance=PROVENANCE)
    image = nib.load(cbf_path)
    np.testing.assert_allclose(image.affine, source.affine)
    assert (image.header["sform_code"], image.header["qform_code"]) == (1, 1)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.get_fdata(), np.where(series.mask, dataset.cbf.astype(np.float32), 0))


def test_two_runs_give_the_same_bytes(joint, tmp_path):
    dataset, series = joint
    for out in (tmp_path / "a", tmp_path / "b"):
        write_derivative(
            series, dataset.cbf, dataset.att, out=out, provenance=PROVENANCE, extra={"cbf_sd": dataset.cbf}
        )
    assert written(tmp_path / "a") == written(tmp_path / "b")
    stamps = {content[4:8] for name, content in written(tmp_path / "a").items() if name.endswith(".gz")}
    assert stamps == {b"\0\0\0\0"}  # gzip keeps the time of compression here
    assert len(written(tmp_path / "a")) == 9


def test_uncertainty_and_fit_quality_are_written_when_given(joint, tmp_path):
    dataset, series = joint
    extra = {"cbf_sd": dataset.cbf, "att_sd": dataset.att, "residual": dataset.cbf}
    images = write_derivative(series, dataset.cbf, dataset.att, out=tmp_path, provenance=PROVENANCE, extra=extra)
    names = {path.name.removeprefix("sub-01_ses-1_desc-") for path in images}
    assert {"assaySd_cbf.nii.gz", "assaySd_att.nii.gz", "assayResidual_asl.nii.gz"} < names


def test_prediction_that_is_not_finite_is_refused_before_anything_is_written(joint, tmp_path):
    dataset, series = joint
    dataset.att[2, 2, 2] = np.nan
    with pytest.raises(DataError, match=r"1 of .* voxels of desc-assay_att are not finite"):
        write_derivative(series, dataset.cbf, dataset.att, out=tmp_path / "out", provenance=PROVENANCE)
    assert not (tmp_path / "out").exists()


def test_map_of_another_shape_is_an_error_of_the_caller(joint, tmp_path):
    dataset, series = joint
    with pytest.raises(ValueError, match=r"desc-assay_cbf has shape \(2, 5, 4\); the series has \(6, 5, 4\)"):
        write_derivative(series, dataset.cbf[:2], dataset.att, out=tmp_path, provenance=PROVENANCE)


@pytest.mark.parametrize("description", ['{"GeneratedBy": [{"Name": "ASLPrep"}]}', '{"Name": "raw"}', "{"])
def test_data_set_of_another_tool_is_not_overwritten(joint, tmp_path, description):
    dataset, series = joint
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dataset_description.json").write_text(description)
    with pytest.raises(DataError, match=r"GeneratedBy is .*; allowed: a data set of assay, or an empty folder"):
        write_derivative(series, dataset.cbf, dataset.att, out=tmp_path / "out", provenance=PROVENANCE)
