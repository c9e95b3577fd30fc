"""BIDS ASL folders: the value of every voxel, and where images and metadata are found."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.studies.asl.bids import read_asl, to_volume
from assay.studies.asl.bids.layout import inherited, parse_name


def only(folder, **options):
    (series,) = read_asl(folder, **options)
    return series


def rewrite_context(perf, change):
    path = perf / "sub-01_aslcontext.tsv"
    path.write_text("\n".join(change(path.read_text().split())) + "\n")


@pytest.mark.parametrize("volumes", ["label first", "control first", "deltam"])
@pytest.mark.parametrize("m0", ["Separate", "Included"])
@pytest.mark.parametrize("repeats", [1, 3])
def test_difference_is_the_signal_of_the_true_perfusion(bids_dataset, volumes, m0, repeats):
    dataset = bids_dataset(volumes=volumes, m0=m0, repeats=repeats)
    dataset.write()
    series = only(dataset.root)
    assert series.plds == (500.0, 1500.0, 2500.0)
    assert series.labellings[0].repeats == (repeats,) * 3
    assert series.mask.all()
    np.testing.assert_allclose(series.difference, dataset.signal("pcasl"), rtol=1e-6)


def test_single_delay_with_repeats_gives_one_channel(bids_dataset):
    dataset = bids_dataset(plds=(1800.0,), repeats=4)
    dataset.write(PostLabelingDelay=1.8, LabelingDuration=[1.8] * 8)
    series = only(dataset.root)
    assert series.difference.shape == (6, 5, 4, 1)
    np.testing.assert_allclose(series.difference, dataset.signal("pcasl"), rtol=1e-6)


def test_three_dimensional_deltam_image_is_one_volume(bids_dataset):
    dataset = bids_dataset(plds=(1800.0,), volumes="deltam")
    perf = dataset.write(PostLabelingDelay=1.8)
    dataset.write_image(perf / "sub-01_asl.nii.gz", dataset.signal("pcasl")[..., 0] * dataset.m0_map)
    np.testing.assert_allclose(only(perf).difference, dataset.signal("pcasl"), rtol=1e-6)


def test_acq_pcasl_and_acq_vsasl_become_one_series_pcasl_first(bids_dataset):
    dataset = bids_dataset()
    dataset.write_joint()
    series = only(dataset.root)
    assert series.kinds == ("pcasl", "vsasl")
    assert series.name == "sub-01"
    truth = np.concatenate([dataset.signal("pcasl"), dataset.signal("vsasl")], axis=-1)
    np.testing.assert_allclose(series.difference, truth, rtol=1e-6)
    assert series.labellings[0].label_duration == 1800.0
    assert series.labellings[1].label_duration is None


def test_m0_estimate_is_that_of_blood_and_is_converted_to_tissue(bids_dataset):
    dataset = bids_dataset(m0="Estimate", m0_map=np.full((6, 5, 4), 1000.0))
    dataset.write()
    series = only(dataset.root)
    np.testing.assert_allclose(series.m0, 900.0)
    np.testing.assert_allclose(series.difference, dataset.signal("pcasl"), rtol=1e-6)


def test_m0_estimate_masks_deltam_images_where_they_are_not_zero(bids_dataset):
    dataset = bids_dataset(m0="Estimate", volumes="deltam")
    dataset.cbf[0, 0, 0] = 0.0
    dataset.write()
    series = only(dataset.root)
    assert not series.mask[0, 0, 0]
    assert np.count_nonzero(~series.mask) == 1


def test_air_is_outside_the_mask_and_is_not_divided_by_nothing(bids_dataset):
    dataset = bids_dataset()
    dataset.m0_map[0] = 0.0
    dataset.m0_map[1] = 5.0
    perf = dataset.write()
    volumes = nib.load(perf / "sub-01_asl.nii.gz").get_fdata()
    volumes[:2] = np.random.default_rng(0).normal(0.0, 1.0, volumes[:2].shape)
    dataset.write_image(perf / "sub-01_asl.nii.gz", volumes)
    series = only(dataset.root, mask_threshold=0.2)
    np.testing.assert_array_equal(series.mask, dataset.m0_map > 5)
    # Differences of two volumes of unit noise, over a fifth of an M0 of about 1190.
    assert np.abs(series.difference[:2]).max() < 6 * np.sqrt(2) / (0.2 * 1190)


def test_noise_is_that_of_the_average_over_repeats(bids_dataset):
    dataset = bids_dataset(repeats=8, m0_map=np.full((6, 5, 4), 1000.0))
    perf = dataset.write()
    path = perf / "sub-01_asl.nii.gz"
    data = nib.load(path).get_fdata()
    clean = np.repeat(data[..., :6].reshape(6, 5, 4, 1, 6), 8, axis=3).reshape(6, 5, 4, 48)
    noisy = clean + np.random.default_rng(0).normal(0.0, 1.0, data.shape)
    dataset.write_image(path, noisy)
    # A pair has variance 2, the mean of 8 pairs 2/8, and dM/M0 is a thousandth of dM.
    assert only(perf).noise == pytest.approx(np.sqrt(2 / 8) / 1000, rel=0.05)


def test_noise_is_unknown_without_repeats(bids_dataset):
    dataset = bids_dataset()
    dataset.write()
    assert only(dataset.root).noise is None


def test_slices_are_images_in_channel_first_order_and_come_back(bids_dataset):
    dataset = bids_dataset()
    dataset.write()
    series = only(dataset.root)
    slices = series.slices()
    assert slices.shape == (4, 3, 6, 5)
    np.testing.assert_array_equal(to_volume(slices[:, 1]), series.difference[..., 1])


def test_metadata_of_the_acquisition_is_in_milliseconds(bids_dataset):
    dataset = bids_dataset()
    dataset.write(SliceTiming=[0.0, 0.045, 0.09, 0.135])
    (labelling,) = only(dataset.root).labellings
    assert (labelling.label_duration, labelling.efficiency) == (1800.0, 0.85)
    assert labelling.background_suppression_pulses == 2
    assert labelling.slice_times == (0.0, 45.0, 90.0, 135.0)


def test_reversed_slice_encoding_reverses_the_slice_times(bids_dataset):
    dataset = bids_dataset()
    dataset.write(SliceTiming=[0.0, 0.045, 0.09, 0.135], SliceEncodingDirection="k-")
    assert only(dataset.root).labellings[0].slice_times == (135.0, 90.0, 45.0, 0.0)


def test_what_the_sidecar_does_not_say_is_unknown(bids_dataset):
    dataset = bids_dataset()
    dataset.write(LabelingEfficiency=None, BackgroundSuppressionNumberPulses=None)
    (labelling,) = only(dataset.root).labellings
    assert labelling.efficiency is None
    assert labelling.background_suppression_pulses is None
    assert labelling.slice_times is None


def test_without_background_suppression_there_are_no_pulses(bids_dataset):
    dataset = bids_dataset()
    dataset.write(BackgroundSuppression=False, BackgroundSuppressionNumberPulses=None)
    assert only(dataset.root).labellings[0].background_suppression_pulses == 0


def test_ignored_volumes_do_not_count(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write(PostLabelingDelay=[0, 0, 2.5, 2.5, 1.5, 1.5, 0.5, 0.5])
    path = perf / "sub-01_asl.nii.gz"
    data = nib.load(path).get_fdata()
    dataset.write_image(path, np.concatenate([data[..., :2] * 7, data], axis=-1))
    rewrite_context(perf, lambda rows: [rows[0], "noRF", "n/a", *rows[1:]])
    np.testing.assert_allclose(only(perf).difference, dataset.signal("pcasl"), rtol=1e-6)


def test_each_subject_and_session_is_a_series_in_the_order_of_paths(bids_dataset):
    dataset = bids_dataset()
    dataset.write_joint(folder="sub-02/ses-b/perf", subject="sub-02_ses-b")
    dataset.write_joint(folder="sub-02/ses-a/perf", subject="sub-02_ses-a")
    dataset.write(stem="sub-01")
    names = [series.name for series in read_asl(dataset.root)]
    assert names == ["sub-01", "sub-02_ses-a", "sub-02_ses-b"]
    for folder in ("sub-02", "sub-02/ses-a", "sub-02/ses-a/perf"):
        series = read_asl(dataset.root / folder)[0]
        assert (series.name, series.root) == ("sub-02_ses-a", dataset.root)


def test_runs_and_other_acquisitions_stay_apart(bids_dataset):
    dataset = bids_dataset()
    dataset.write(stem="sub-01_acq-high_run-1")
    dataset.write(stem="sub-01_acq-high_run-2")
    assert [series.name for series in read_asl(dataset.root)] == [
        "sub-01_acq-high_run-1",
        "sub-01_acq-high_run-2",
    ]


def test_metadata_is_inherited_from_the_root_and_the_nearest_file_wins(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write(LabelingDuration=None, LabelingEfficiency=None)
    (dataset.root / "asl.json").write_text('{"LabelingDuration": 1.8, "LabelingEfficiency": 0.5}')
    (dataset.root / "sub-01" / "sub-01_asl.json").write_text('{"LabelingEfficiency": 0.7}')
    (perf / "sub-01_aslcontext.tsv").rename(dataset.root / "aslcontext.tsv")
    series = only(dataset.root)
    assert (series.labellings[0].label_duration, series.labellings[0].efficiency) == (1800.0, 0.7)
    assert [source.path for source in series.sources][1:4] == [
        "asl.json",
        "sub-01/sub-01_asl.json",
        "sub-01/perf/sub-01_asl.json",
    ]


def test_metadata_of_another_acquisition_does_not_apply(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write_joint()
    (dataset.root / "acq-vsasl_asl.json").write_text('{"LabelingEfficiency": 0.1}')
    image = perf / "sub-01_acq-pcasl_asl.nii.gz"
    found = inherited(image, dataset.root, suffix="asl", extension=".json")
    assert found == [perf / "sub-01_acq-pcasl_asl.json"]


def test_one_m0_scan_may_be_intended_for_both_sequences(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write_joint()
    for name in ("sub-01_acq-vsasl_m0scan.nii.gz", "sub-01_acq-vsasl_m0scan.json"):
        (perf / name).unlink()
    both = ["perf/sub-01_acq-pcasl_asl.nii.gz", "perf/sub-01_acq-vsasl_asl.nii.gz"]
    dataset.edit(perf / "sub-01_acq-pcasl_m0scan.json", IntendedFor=both)
    np.testing.assert_allclose(only(perf).difference[..., 3:], dataset.signal("vsasl"), rtol=1e-6)


def test_the_only_m0_scan_needs_no_intended_for(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    (perf / "sub-01_m0scan.json").unlink()
    assert only(perf).mask.all()


def test_m0_scan_meant_for_the_image_is_preferred(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    for extension in ("nii.gz", "json"):
        (perf / f"sub-01_m0scan.{extension}").rename(perf / f"sub-01_dir-ap_m0scan.{extension}")
    dataset.write_image(perf / "sub-01_dir-pa_m0scan.nii.gz", 7 * dataset.m0_map)
    np.testing.assert_allclose(only(perf).m0, dataset.m0_map, rtol=1e-6)


def test_sources_carry_the_digest_of_every_file_read(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    before = {source.path: source.sha256 for source in only(perf).sources}
    assert set(before) == {
        f"sub-01/perf/sub-01_{name}"
        for name in ("asl.nii.gz", "asl.json", "aslcontext.tsv", "m0scan.nii.gz", "m0scan.json")
    }
    dataset.edit(perf / "sub-01_asl.json", LabelingEfficiency=0.8)
    after = {source.path: source.sha256 for source in only(perf).sources}
    assert [path for path in before if before[path] != after[path]] == ["sub-01/perf/sub-01_asl.json"]


labels = st.text("abcXYZ019", min_size=1, max_size=6)


@given(st.dictionaries(st.sampled_from(["sub", "ses", "acq", "run"]), labels, min_size=1), labels)
def test_names_are_taken_apart_and_joined_again(entities, suffix):
    stem = "_".join(f"{key}-{label}" for key, label in entities.items())
    name = parse_name(f"{stem}_{suffix}.nii.gz")
    assert name is not None
    assert (dict(name.entities), name.suffix, name.extension) == (entities, suffix, ".nii.gz")
    assert name.without("") == stem


@pytest.mark.parametrize("name", ["", "README", "sub_asl.nii", "sub-_asl.nii", "-01_asl.nii", "sub-01.nii"])
def test_other_names_are_no_bids_names(name):
    assert parse_name(name) is None
