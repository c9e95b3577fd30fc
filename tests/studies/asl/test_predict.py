"""The predict stage: measured data in, maps and a quality page out, and what is refused before anything is written."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch

from assay.errors import CheckpointError, ConfigError, DataError
from assay.studies.asl import predict, train
from assay.studies.asl.bids import read_asl
from assay.studies.asl.dataset import nominal_physics
from assay.studies.asl.model import PUBLISHED_STATISTICS
from assay.studies.asl.physics import joint_signal
from assay.studies.asl.trained import Maps, TrainedModel, load_trained

PLDS = (500.0, 1000.0, 1500.0, 2000.0, 2500.0, 3000.0)
SIMULATED = "data.source=simulated"


@pytest.fixture
def dataset(bids_dataset):
    """A joint PCASL and VSASL data set at the delays of the default parameters."""
    return bids_dataset(plds=PLDS)


@pytest.fixture
def params(make_params, dataset, tmp_path, monkeypatch):
    """Parameters of a prediction, with a small trained model in place."""
    monkeypatch.chdir(tmp_path)
    given = make_params(SIMULATED, f"predict.bids={dataset.root}", f"predict.output={tmp_path / 'maps'}")
    train.run(given)
    return given


def test_maps_are_those_of_the_model_in_the_place_of_the_image(params, dataset, tmp_path):
    dataset.write_joint()
    predict.run(params)
    image = nib.load(tmp_path / "maps/sub-01/perf/sub-01_desc-assay_cbf.nii.gz")
    (series,) = read_asl(dataset.root)
    model = load_trained(Path(params.predict.model), torch.device("cpu"))
    corrected = predict.efficiency_corrected(series, nominal_physics(params))
    noise = predict.noise_level(series, torch.from_numpy(corrected), PLDS, nominal_physics(params))
    expected = model.estimate(torch.from_numpy(corrected), torch.full((4, 1, 1, 1), noise)).cbf.permute(1, 2, 0)
    np.testing.assert_allclose(np.asarray(image.dataobj), expected.numpy(), rtol=1e-5)
    np.testing.assert_allclose(image.affine, series.affine)


def test_provenance_and_quality_page_are_written(params, dataset, tmp_path):
    dataset.write_joint()
    predict.run(params)
    folder = tmp_path / "maps/sub-01/perf"
    sidecar = json.loads((folder / "sub-01_desc-assay_cbf.json").read_text())
    text = json.dumps(sidecar)
    assert sidecar["Units"] == "mL/100 g/min" and "homogeneous x 1" in text and "label_duration" in text
    assert json.loads((tmp_path / "maps/dataset_description.json").read_text())["DatasetType"] == "derivative"
    assert (folder / "sub-01_desc-assayQuality.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "sub-01_desc-assayResidual_asl.nii.gz").exists()


def test_a_trained_variance_becomes_a_map(make_params, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset.write_joint()
    overrides = [f"predict.bids={dataset.root}", f"predict.output={tmp_path / 'maps'}"]
    given = make_params(SIMULATED, "model.learned_variance=true", "loss.nll_weight=1", *overrides)
    train.run(given)
    predict.run(given)
    assert (tmp_path / "maps/sub-01/perf/sub-01_desc-assaySd_cbf.nii.gz").exists()


class Proportional(torch.nn.Module):
    """CBF proportional to the mean PCASL signal, ATT constant."""

    def forward(self, signal, sigma):
        cbf = 1000 * signal[:, :6].mean(1, keepdim=True)
        return _Clamped(cbf, torch.full_like(cbf, 1000.0))


class _Clamped(tuple):
    def __new__(cls, cbf, att):
        return super().__new__(cls, (cbf, att))

    def clamped(self):
        return self

    cbf = property(lambda self: self[0])
    att = property(lambda self: self[1])


def test_signal_is_corrected_for_the_efficiency_in_the_sidecar(params, dataset):
    dataset.write("pcasl", stem="sub-01_acq-pcasl", LabelingEfficiency=0.425)
    dataset.write("vsasl", stem="sub-01_acq-vsasl", LabelingEfficiency=None)
    (series,) = read_asl(dataset.root)
    model = TrainedModel([Proportional()], params, PUBLISHED_STATISTICS, "proportional")
    corrected = torch.from_numpy(predict.efficiency_corrected(series, nominal_physics(params)))
    measured = torch.from_numpy(series.slices())
    sigma = torch.ones(4, 1, 1, 1)
    once, twice = (model.estimate(signal, sigma) for signal in (measured, corrected))
    assert isinstance(once, Maps)
    torch.testing.assert_close(twice.cbf, 2 * once.cbf)


@pytest.mark.parametrize(
    ("changes", "pcasl", "vsasl"),
    [
        ({"BackgroundSuppression": False}, 0.93**4, 0.93**3),
        ({"BackgroundSuppressionNumberPulses": 2}, 0.93**2, 0.93),
        ({"BackgroundSuppressionNumberPulses": None}, 1.0, 1.0),
    ],
)
def test_signal_and_noise_are_corrected_for_the_pulses_in_the_sidecar(bids_dataset, make_params, changes, pcasl, vsasl):
    """A model that was trained with 4 and 3 pulses of 93 %; how many there were is taken for that if it is not said."""
    physics = nominal_physics(make_params("physics.alpha_bs=0.93"))
    repeated = bids_dataset(plds=PLDS, repeats=3)
    for kind in ("pcasl", "vsasl"):
        repeated.write(kind, stem=f"sub-01_acq-{kind}", LabelingEfficiency=None, **changes)
    (series,) = read_asl(repeated.root)
    factors = np.repeat([pcasl, vsasl], len(PLDS))
    np.testing.assert_allclose(
        predict.efficiency_corrected(series, physics), series.slices() * factors[:, None, None], rtol=1e-5
    )
    noise = predict.noise_level(series, torch.zeros(4, 12, 6, 5), PLDS, physics)
    assert noise == pytest.approx(series.noise * float(np.sqrt((factors**2).mean())), rel=1e-5)


def test_noise_comes_from_repeats_or_else_from_residuals(params, dataset, bids_dataset):
    dataset.write_joint()
    (single,) = read_asl(dataset.root)
    physics = nominal_physics(params)
    noisy = torch.from_numpy(single.slices()) + 1e-4 * torch.randn(4, 12, 6, 5, generator=torch.Generator())
    assert predict.noise_level(single, noisy, PLDS, physics) == pytest.approx(1e-4, rel=0.15)
    repeated = bids_dataset(plds=PLDS, repeats=3)
    repeated.write_joint()
    (series,) = read_asl(repeated.root)
    assert predict.noise_level(series, noisy, PLDS, physics) == series.noise


def test_noise_from_residuals_has_no_bias(params):
    """The median of a chi-square variable of 10 degrees of freedom is 9.34: divided by 10 the sd would be 3.3 % low."""
    random = torch.Generator().manual_seed(0)
    cbf, att = 40 + 20 * torch.rand(4, 64, 64, generator=random), 1000 + 500 * torch.rand(4, 64, 64, generator=random)
    signal = joint_signal(cbf, att, PLDS, nominal_physics(params))
    noisy = signal + 1e-4 * torch.randn(signal.shape, generator=random)
    series = SimpleNamespace(noise=None, mask=np.ones((64, 64, 4), dtype=bool))
    assert predict.noise_level(series, noisy, PLDS, nominal_physics(params)) == pytest.approx(1e-4, rel=0.015)


def test_the_physics_is_that_of_the_training_whatever_the_parameters_say(params, dataset):
    dataset.write_joint()
    predict.run(dataclasses.replace(params, physics=dataclasses.replace(params.physics, t1_artery=1650.0)))
    sidecar = Path(params.predict.output, "sub-01/perf/sub-01_desc-assay_cbf.json").read_text()
    assert "1850" in sidecar and "1650" not in sidecar


@pytest.mark.parametrize("key", ["bids", "output"])
def test_a_missing_folder_name_is_refused(key, make_params, tmp_path):
    other = {"bids": "output", "output": "bids"}[key]
    with pytest.raises(
        ConfigError, match=rf"predict\.{key}: got null; allowed: a folder; give --predict\.{key} FOLDER"
    ):
        predict.run(make_params(f"predict.{other}={tmp_path}"))


def test_prediction_without_a_model_is_refused(make_params, dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset.write_joint()
    with pytest.raises(CheckpointError, match="run the train stage"):
        predict.run(make_params(f"predict.bids={dataset.root}", f"predict.output={tmp_path / 'maps'}"))


def refuse(params, message: str) -> None:
    with pytest.raises(DataError, match=message):
        predict.run(params)
    assert not Path(params.predict.output).exists()


def test_data_of_one_sequence_are_refused(params, dataset):
    dataset.write("pcasl")
    refuse(params, "sequences are pcasl; the model needs pcasl, vsasl; add acq-vsasl_asl beside it")


def test_other_delays_are_refused(params, bids_dataset):
    bids_dataset(plds=(500.0, 1500.0, 2500.0)).write_joint()
    refuse(params, "PLDs are 500, 1500, 2500 ms; the model was trained on 500, 1000")


def test_another_label_duration_is_refused(params, dataset):
    perf = dataset.write_joint()
    dataset.edit(perf / "sub-01_acq-pcasl_asl.json", LabelingDuration=1.4)
    refuse(params, "LabelingDuration is 1400 ms; the model was trained on 1800 ms")


def test_data_without_m0_are_refused(params, dataset):
    perf = dataset.write_joint()
    for path in perf.glob("*m0scan*"):
        path.unlink()
    refuse(params, "[mM]0")


def test_a_wrong_number_of_volumes_is_refused(params, dataset):
    perf = dataset.write_joint()
    context = perf / "sub-01_acq-pcasl_aslcontext.tsv"
    context.write_text("\n".join(context.read_text().split()[:-1]) + "\n")
    refuse(params, "volume")
