"""BIDS ASL folders refused for what they say, each in one line: file, what was given, what is allowed, what to do."""

import json

import numpy as np
import pytest

from assay.errors import ConfigError, DataError
from assay.studies.asl.bids import read_asl, require_label_duration, require_plds, require_sequences


def only(folder, **options):
    (series,) = read_asl(folder, **options)
    return series


def rewrite_context(perf, change):
    path = perf / "sub-01_aslcontext.tsv"
    path.write_text("\n".join(change(path.read_text().split())) + "\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"M0Type": "Absent"},
            r"asl\.json: M0Type is 'Absent'; allowed: Separate, Included, Estimate; CBF needs M0",
        ),
        ({"M0Type": None}, "M0Type is missing; allowed: Separate, Included, Estimate; add M0Type"),
        ({"M0Type": "Estimate"}, "M0Estimate is missing; allowed: a number above 0"),
        ({"M0Type": "Estimate", "M0Estimate": -3}, "M0Estimate is -3; allowed: a number above 0"),
        ({"M0Type": "Included"}, "M0Type is Included but aslcontext.tsv has no m0scan row"),
        ({"PostLabelingDelay": None}, "PostLabelingDelay is missing; allowed: seconds"),
        (
            {"PostLabelingDelay": [0.5, 1.5, 2.5]},
            r"PostLabelingDelay is 'a list of 3'; allowed: one number, or 6",
        ),
        ({"PostLabelingDelay": 1800}, "PostLabelingDelay is 1800; allowed: seconds.*at most 20; is it in ms"),
        ({"PostLabelingDelay": -0.5}, "PostLabelingDelay is -0.5; allowed: seconds.*not negative"),
        ({"PostLabelingDelay": "1.8"}, "PostLabelingDelay is '1.8'; allowed: seconds"),
        ({"PostLabelingDelay": True}, "PostLabelingDelay is True; allowed: seconds"),
        ({"PostLabelingDelay": float("nan")}, "PostLabelingDelay is nan; allowed: seconds"),
        ({"PostLabelingDelay": 0}, "PostLabelingDelay is 0; allowed: above 0 for control, label and deltam"),
        ({"LabelingDuration": None}, "LabelingDuration is missing"),
        ({"LabelingDuration": 1800}, "LabelingDuration is 1800; allowed: .*at most 20; is it in ms"),
        (
            {"LabelingDuration": [1, 1, 2, 2, 3, 3]},
            "LabelingDuration is .*; allowed: one duration above 0; split",
        ),
        ({"LabelingEfficiency": 85}, "LabelingEfficiency is 85; allowed: a number above 0 and at most 1"),
        ({"ArterialSpinLabelingType": None}, "ArterialSpinLabelingType is missing; allowed: PCASL, CASL"),
        (
            {"ArterialSpinLabelingType": "PASL"},
            "is 'PASL'; allowed: PCASL, CASL; there is no PASL model here",
        ),
        (
            {"AssayLabelingType": "VSASL"},
            "is 'PCASL'; allowed: absent beside AssayLabelingType VSASL; remove it",
        ),
        ({"AssayLabelingType": "vsasl"}, "AssayLabelingType is 'vsasl'; allowed: VSASL"),
        ({"LookLocker": True}, "LookLocker is True; allowed: false"),
        ({"BackgroundSuppression": None}, "BackgroundSuppression is missing; allowed: true, false"),
        ({"BackgroundSuppression": "yes"}, "BackgroundSuppression is 'yes'; allowed: true, false"),
        ({"BackgroundSuppressionNumberPulses": 1.5}, "NumberPulses is 1.5; allowed: a whole number from 0"),
        ({"SliceTiming": [0, 0.1]}, "SliceTiming is 'a list of 2'; allowed: a list of 4, one per slice"),
        ({"SliceTiming": [0, 45, 90, 135]}, "SliceTiming is 45; allowed: seconds.*at most 20; is it in ms"),
        (
            {"SliceTiming": [0] * 4, "SliceEncodingDirection": "j"},
            "SliceEncodingDirection is 'j'; allowed: k, k-",
        ),
    ],
)
def test_sidecar_that_cannot_be_right_is_refused_in_one_line(bids_dataset, change, message):
    dataset = bids_dataset()
    dataset.write(**change)
    with pytest.raises(DataError, match=message) as refusal:
        read_asl(dataset.root)
    assert "\n" not in str(refusal.value)
    assert str(dataset.root) in str(refusal.value)


def test_volumes_must_match_the_context(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    rewrite_context(perf, lambda rows: rows[:-1])
    with pytest.raises(DataError, match=r"aslcontext.tsv: 5 rows for 6 volumes of sub-01_asl.nii.gz; allowed: one row"):
        read_asl(perf)


def test_context_must_exist(bids_dataset):
    perf = bids_dataset().write()
    (perf / "sub-01_aslcontext.tsv").unlink()
    with pytest.raises(DataError, match=r"aslcontext is missing; expected sub-01_aslcontext\.tsv"):
        read_asl(perf)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: ["type", *rows[1:]], r"columns are \['type'\]; allowed: volume_type"),
        (lambda rows: [*rows[:-1], "tag"], "volume_type is 'tag' in line 7; allowed: control, label, deltam"),
        (
            lambda rows: [*rows[:-1], "label"],
            "0 control, 2 label and 0 deltam volumes at PLD 500 ms; allowed: as many",
        ),
        (lambda rows: [*rows[:-1], "deltam"], "0 control, 1 label and 1 deltam volumes at PLD 500 ms"),
        (lambda rows: [rows[0], *["cbf"] * 6], "no control, label or deltam volume; allowed: raw ASL"),
    ],
)
def test_context_that_does_not_pair_is_refused(bids_dataset, change, message):
    perf = bids_dataset().write()
    rewrite_context(perf, change)
    with pytest.raises(DataError, match=message):
        read_asl(perf)


@pytest.mark.parametrize("number", ["1" + "0" * 400, "1" * 5000, "[" * 100_000])
def test_a_sidecar_of_digits_or_brackets_without_end_is_refused(bids_dataset, number):
    perf = bids_dataset().write()
    path = perf / "sub-01_asl.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps({**told, "LabelingDuration": "X"}).replace('"X"', number))
    with pytest.raises(DataError, match=r"sub-01_asl\.json"):
        read_asl(perf)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"M0Type": ', r"asl\.json: not JSON \(line 1, column 12"),
        (b"[1, 2]", r"asl\.json: holds \[1, 2\]; allowed: one JSON object"),
        (b"\xff\xfe\x00", r"asl\.json: cannot be read .* allowed: UTF-8 text"),
    ],
)
def test_damaged_sidecar_is_refused(bids_dataset, content, message):
    perf = bids_dataset().write()
    (perf / "sub-01_asl.json").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_asl(perf)


def test_missing_sidecar_is_refused(bids_dataset):
    perf = bids_dataset().write()
    (perf / "sub-01_asl.json").unlink()
    with pytest.raises(DataError, match=r"no JSON sidecar; expected sub-01_asl\.json"):
        read_asl(perf)


def test_folder_without_asl_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no \*_asl.nii\[.gz\] in a perf folder; expected sub-"):
        read_asl(tmp_path)
    with pytest.raises(DataError, match="not a folder; give a BIDS data set"):
        read_asl(tmp_path / "nowhere")


def test_image_under_two_names_is_refused(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    dataset.write_image(perf / "sub-01_asl.nii", dataset.m0_map)
    with pytest.raises(DataError, match=r"sub-01 has several images \(sub-01_asl.nii, sub-01_asl.nii.gz\)"):
        read_asl(perf)


def test_image_without_a_bids_name_is_refused(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write()
    dataset.write_image(perf / "perfusion_asl.nii", dataset.m0_map)
    with pytest.raises(DataError, match=r"perfusion_asl.nii: not a BIDS name; expected sub-<label>"):
        read_asl(perf)


def test_name_and_sidecar_must_agree_on_the_sequence(bids_dataset):
    dataset = bids_dataset()
    dataset.write("pcasl", stem="sub-01_acq-vsasl")
    with pytest.raises(DataError, match="acq-vsasl but the sidecar says pcasl; allowed: the same; rename it, or give"):
        read_asl(dataset.root)


def test_sequences_at_different_delays_are_not_joined(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write_joint()
    dataset.edit(perf / "sub-01_acq-vsasl_asl.json", PostLabelingDelay=[2.5, 2.5, 1.5, 1.5, 1.0, 1.0])
    with pytest.raises(DataError, match=r"gives \[1000.0, 1500.0, 2500.0\] ms; allowed: \[500.0, 1500.0, 2500.0\] ms"):
        read_asl(perf)


def test_sequences_whose_masks_do_not_overlap_are_refused(bids_dataset):
    dataset = bids_dataset()
    perf = dataset.write_joint()
    for kind, half in (("pcasl", slice(0, 3)), ("vsasl", slice(3, 6))):
        head = np.zeros_like(dataset.m0_map)
        head[half] = 1000.0
        dataset.write_image(perf / f"sub-01_acq-{kind}_m0scan.nii.gz", head)
    with pytest.raises(DataError, match="the mask is empty; allowed: a head in view; check M0"):
        read_asl(perf)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0])
def test_mask_threshold_is_a_share(tmp_path, threshold):
    with pytest.raises(ConfigError, match=r"mask_threshold is .*; allowed: above 0 and below 1"):
        read_asl(tmp_path, mask_threshold=threshold)


def test_model_of_other_delays_is_refused(bids_dataset):
    dataset = bids_dataset()
    dataset.write()
    series = only(dataset.root)
    require_plds(series, (500.0, 1500.4, 2500.0))
    for plds in ((500.0, 1500.0), (500.0, 1500.0, 2600.0)):
        with pytest.raises(DataError, match="sub-01: PLDs are 500, 1500, 2500 ms; the model was trained on 500, 1500"):
            require_plds(series, plds)


def test_model_of_another_label_duration_is_refused(bids_dataset):
    dataset = bids_dataset()
    dataset.write_joint()
    series = only(dataset.root)
    require_label_duration(series, 1800.4)
    require_label_duration(series, 1700.0, tolerance=180.0)
    with pytest.raises(DataError, match="LabelingDuration is 1800 ms; the model was trained on 1500 ms; train"):
        require_label_duration(series, 1500.0)


def test_model_that_needs_the_missing_sequence_is_refused(bids_dataset):
    dataset = bids_dataset()
    dataset.write()
    series = only(dataset.root)
    require_sequences(series, ("pcasl",))
    with pytest.raises(DataError, match="sequences are pcasl; the model needs pcasl, vsasl; add acq-vsasl_asl"):
        require_sequences(series, ("pcasl", "vsasl"))


def test_series_with_more_sequences_than_the_model_is_refused(bids_dataset):
    dataset = bids_dataset()
    dataset.write_joint()
    with pytest.raises(DataError, match="the model needs vsasl; use a model of both, or take the other image away"):
        require_sequences(only(dataset.root), ("vsasl",))
